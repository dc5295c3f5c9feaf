"""`poolkeeper doctor`: checks before a start what the service needs, and reports what is missing.

It changes nothing. It reads the same settings as `poolkeeper serve`, and connects to the declared
servers and to the catalog.
"""

import asyncio
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack

import typer
from rich.console import Console
from rich.text import Text

from app.api.auth.key_file import InvalidKeyFile, KeyFile
from app.catalog.database import CatalogAddress
from app.catalog.migrate import check_database
from app.cli.client.exit_status import ExitStatus, fail
from app.cli.login_sql import login_sql
from app.domain.errors import PoolkeeperError
from app.pools import driver
from app.pools.servers.server import Server
from app.pools.servers.server_requirements import Requirement, requirements_of
from app.runtime.logs import configure_logging
from app.runtime.topology import start_topology
from app.settings import Endpoint, Settings, SettingsError, load_settings
from app.text.printable import printable
from app.text.wrapping import terminal_width, wrapped
from app.wire import TlsRejected

_EMBEDDED = "No server is declared: the service starts a Postgres of its own."
_ADMIN_ATTRIBUTES = "CREATEROLE CREATEDB"
_CATALOG_TLS = "POOLKEEPER_CATALOG__TLS"
# Width of the columns before the sentences of a report.
_MARGIN = 11

Findings = Mapping[str, Sequence[Requirement]]


def doctor() -> None:
    """Check servers, catalog, rights, TLS, budgets and keys, and print the SQL that is missing.

    Exits with 1 if the service would not start, not provision or not isolate tenants.
    """
    try:
        settings = load_settings()
        configure_logging("console", "ERROR")
        findings = asyncio.run(examine(settings))
    except SettingsError as error:
        fail(str(error), ExitStatus.USAGE)
    console, printed = Console(highlight=False, soft_wrap=True), set[str]()
    for place, requirements in findings.items():
        for line in _report(place, requirements, terminal_width(sys.stdout), printed):
            console.print(line)
    failed = [each for every in findings.values() for each in every if not each.is_met]
    raise typer.Exit(1 if any(each.is_critical for each in failed) else 0)


async def examine(settings: Settings) -> Findings:
    """Check the service's requirements, by place.

    Raises:
        SettingsError: a secret cannot be read.
    """
    findings: dict[str, Sequence[Requirement]] = {"this machine": [*_of_machine(settings)]}
    if settings.catalog is None:
        return findings
    async with AsyncExitStack() as stack:
        topology = await start_topology(settings, stack)
        catalog, attributes = settings.catalog, ""
        for name, server in topology.servers.items():
            stack.push_async_callback(server.close)
            declared = settings.servers[name]
            is_together = (declared.host, declared.port) == (catalog.host, catalog.port)
            if is_together and declared.user == catalog.user:
                attributes = _ADMIN_ATTRIBUTES
            tls = f"POOLKEEPER_SERVERS__{name.upper()}__TLS"
            findings[f"server {name}"] = [
                tls_requirement(declared, tls),
                *await _of_server(server, catalog.database if is_together else None, tls),
            ]
        findings["catalog"] = [
            tls_requirement(catalog, _CATALOG_TLS),
            await _of_catalog(topology.catalog, attributes),
        ]
    return findings


def _of_machine(settings: Settings) -> Iterator[Requirement]:
    if settings.is_embedded:
        yield Requirement(name="servers", is_met=True, detail=_EMBEDDED)
    else:
        is_given = settings.read_secret_key() is not None
        yield Requirement(
            name="secret key",
            is_met=is_given,
            is_critical=False,
            detail="it is in the settings"
            if is_given
            else "none is in the settings, so one is generated in data_dir: back it up",
        )
    file = KeyFile(settings.keys_path, required=settings.requires_keys)
    try:
        file.load()
    except InvalidKeyFile as error:
        yield Requirement(name="API keys", is_met=False, detail=str(error))
    else:
        count = f"{len(file)} in {file.path}" if file.is_enforced else "not needed on loopback"
        yield Requirement(name="API keys", is_met=True, detail=count)


def tls_requirement(endpoint: Endpoint, setting: str) -> Requirement:
    """How secure connections to *endpoint* are; *setting*: the name of its TLS setting."""
    is_met = endpoint.is_local or endpoint.tls == "verify-full"
    detail = f"{endpoint.tls} to {endpoint.host}:{endpoint.port}"
    if not is_met:
        detail += (
            f"; set {setting}=verify-full, and {setting}_CA_FILE if the certificate is your own"
        )
    return Requirement(name="TLS", is_met=is_met, is_critical=False, detail=detail)


async def _of_server(server: Server, catalog: str | None, tls: str) -> Sequence[Requirement]:
    login = server.admins.login
    try:
        await driver.close(await server.admins.open())
    except PoolkeeperError as error:
        sql = login_sql(
            error, role=login.user, database=login.database, attributes=_ADMIN_ATTRIBUTES
        )
        detail = f"{_with_tls_settings(error, tls)} Nothing else was checked."
        return [_refused("connection", detail, sql)]
    await server.start()
    try:
        return await requirements_of(server, catalog=catalog)
    except PoolkeeperError as error:
        return [Requirement(name="connection", is_met=False, detail=error.detail)]


async def _of_catalog(address: CatalogAddress, attributes: str) -> Requirement:
    """Whether *address* can hold a catalog; *attributes*: those that its role needs elsewhere."""
    try:
        facts, _ = await check_database(address)
    except PoolkeeperError as error:
        sql = login_sql(
            error,
            role=address.user,
            database=address.database,
            attributes=attributes,
            options="ENCODING 'UTF8'",
        )
        return _refused("database", _with_tls_settings(error, _CATALOG_TLS), sql)
    detail = f"database {facts.database} can hold the catalog"
    return Requirement(name="database", is_met=True, detail=detail)


def _with_tls_settings(error: PoolkeeperError, setting: str) -> str:
    """Why a connection failed; if TLS is the reason, with the settings that control it."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, TlsRejected):
        cause = cause.__cause__
    if cause is None:
        return error.detail
    return (
        f"{error.detail} {setting}_CA_FILE names the authorities to trust; {setting}=require "
        "accepts any certificate, and disable goes without TLS."
    )


def _refused(name: str, detail: str, sql: str | None) -> Requirement:
    place = "any database of that server"
    return Requirement(name=name, is_met=False, detail=detail, sql=sql, sql_place=place)


def _report(
    place: str, requirements: Sequence[Requirement], width: int | None, printed: set[str]
) -> Iterator[Text]:
    """The lines about one place, with the SQL that was not *printed* before."""
    yield Text(place, style="bold")
    for each in requirements:
        word, style = ("ok", "green") if each.is_met else ("missing", "bold red")
        if not each.is_met and each.sql is None:
            word = "failed"
        if not each.is_met and not each.is_critical:
            word, style = "advice", "yellow"
        found = printable(f"{each.name}: {each.detail}")
        first, *others = wrapped(found, width and width - _MARGIN)
        yield Text.assemble((f"  {word}".ljust(_MARGIN), style), first)
        yield from (Text(" " * _MARGIN + line) for line in others)
    missing = {each.sql: each.sql_place for each in requirements if not each.is_met and each.sql}
    new = [sql for sql in missing if sql not in printed]
    if new:
        yield Text(f"  As a superuser, in {missing[new[0]]}, run:")
        yield from (Text(printable(f"    {line}")) for sql in new for line in sql.splitlines())
        printed.update(new)
