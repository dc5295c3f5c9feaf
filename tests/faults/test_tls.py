"""TLS connects only to the declared server, or to none."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import trustme
import uvloop
from httpx import ASGITransport, AsyncClient
from structlog.testing import capture_logs

from app import wire
from app.catalog.database import CatalogAddress
from app.catalog.database import Database as Catalog
from app.domain.errors import CatalogUnavailable, ServerUnavailable
from app.main import create_app
from app.pools import driver
from app.runtime.topology import _login, _tls
from app.settings import ServerSettings, Settings, SettingsError
from tests.faults.test_hostile_server import asking_in_clear, hashing
from tests.fixtures.hostile import PASSWORD, hostile_server, login_to
from tests.fixtures.postgres import Database
from tests.fixtures.tls import Authorities, TlsPostgres, write_certificate
from tests.fixtures.waiting import eventually

WEAKER = pytest.mark.parametrize("tls", ["require", "verify-full"])


def declared(server: Database, **endpoint: Any) -> ServerSettings:
    """The settings as an operator writes them."""
    return ServerSettings(
        host=endpoint.pop("host", server.host),
        port=server.port,
        user=endpoint.pop("user", server.user),
        password=endpoint.pop("password", server.password),
        **endpoint,
    )


@asynccontextmanager
async def connected(endpoint: ServerSettings) -> AsyncIterator[asyncpg.Connection]:
    """A pool's connection to it, for a block."""
    login = wire.Login(**_login("local", endpoint))
    connection = await driver.connect(login, timeout=20)
    try:
        yield connection
    finally:
        await connection.close(timeout=10)


async def refusal(endpoint: ServerSettings) -> str:
    """Why neither a pool nor the catalog connects to it: both give the same sentence."""
    with pytest.raises(ServerUnavailable) as raised:
        async with connected(endpoint):
            pass
    catalog = Catalog(CatalogAddress(**_login("the catalog", endpoint)), deadline=20)
    with pytest.raises(CatalogUnavailable, match=raised.value.detail):
        async with catalog.transaction():
            pass
    await catalog.close()
    return raised.value.detail


async def test_the_right_certificate_is_accepted(tls_postgres: TlsPostgres) -> None:
    authority = tls_postgres.authorities.file
    async with connected(declared(tls_postgres.database, tls_ca_file=authority)) as connection:
        assert await connection.fetchval("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")


@pytest.mark.parametrize("new_loop", [uvloop.new_event_loop, asyncio.new_event_loop])
def test_a_cancelled_statement_leaves_its_connection_to_the_next(
    tls_postgres: TlsPostgres, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def cancel() -> None:
        authority = tls_postgres.authorities.file
        async with connected(declared(tls_postgres.database, tls_ca_file=authority)) as connection:
            with pytest.raises(TimeoutError):
                await connection.execute("SELECT pg_sleep(600)", timeout=0.1)
            assert await connection.fetchval("SELECT 42") == 42

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(cancel())


async def test_a_certificate_for_another_name_is_refused(tls_postgres: TlsPostgres) -> None:
    authority = tls_postgres.authorities.file
    endpoint = declared(tls_postgres.database, host="127.0.0.1", tls_ca_file=authority)
    assert "IP address mismatch" in await refusal(endpoint)


async def test_a_certificate_of_an_unknown_authority_is_refused(tls_postgres: TlsPostgres) -> None:
    other = tls_postgres.authorities.other_file
    endpoint = declared(tls_postgres.database, tls_ca_file=other)
    assert "self-signed" in await refusal(endpoint)
    assert "self-signed" in await refusal(declared(tls_postgres.database))


async def test_an_expired_certificate_is_refused(tls_postgres: TlsPostgres) -> None:
    yesterday = datetime.now(UTC) - timedelta(days=1)
    ours = tls_postgres.authorities.ours
    endpoint = declared(tls_postgres.database, tls_ca_file=tls_postgres.authorities.file)
    await tls_postgres.present(ours.issue_cert("localhost", not_after=yesterday), "expired")
    try:
        assert "expired" in await refusal(endpoint)
    finally:
        await tls_postgres.present(ours.issue_cert("localhost"), "right")
    async with connected(endpoint):
        pass


@WEAKER
async def test_a_server_without_tls_gets_nothing(postgres_server: Database, tls: str) -> None:
    assert await refusal(declared(postgres_server, tls=tls)) == "The server does not offer TLS."


async def test_a_server_is_not_asked_in_clear_after_its_certificate_was_refused(
    authorities: Authorities,
) -> None:
    async with untrusted_server(authorities) as endpoint:
        assert "certificate is not accepted" in await refusal(endpoint)


@asynccontextmanager
async def untrusted_server(authorities: Authorities) -> AsyncIterator[ServerSettings]:
    """A server with a certificate of the other authority, to which nobody may send a query."""
    async with hostile_server(asking_in_clear, tls=showing(authorities.other)) as server:
        yield ServerSettings.model_validate(
            {
                "host": "localhost",
                "port": server.port,
                "user": "u",
                "password": PASSWORD,
                "tls_ca_file": authorities.file,
            }
        )
        assert server.heard == b""


def showing(authority: trustme.CA) -> ssl.SSLContext:
    """The files with which a server shows a certificate for `localhost`."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    return context


async def test_a_hostile_server_is_watched_behind_tls_too(authorities: Authorities) -> None:
    async with hostile_server(hashing(20_000_000), tls=showing(authorities.ours)) as server:
        with pytest.raises(wire.ServerRejected, match="SCRAM iterations"):
            await talk(server.port, ssl.create_default_context(cafile=authorities.file))


async def test_a_password_is_given_in_clear_to_a_verified_server_only(
    authorities: Authorities,
) -> None:
    verified = ssl.create_default_context(cafile=authorities.file)
    unverified = _tls("local", ServerSettings.model_validate(_SOMEWHERE | {"tls": "require"}))
    assert unverified is not False
    async with hostile_server(asking_in_clear, tls=showing(authorities.ours)) as server:
        with pytest.raises(wire.ServerRejected, match="password in clear"):
            await talk(server.port, unverified)
        assert server.heard == b""
        talking = asyncio.create_task(talk(server.port, verified, timeout=180))
        await eventually(lambda: PASSWORD.encode() in server.heard)
        assert not talking.done()
        talking.cancel()
        await asyncio.wait({talking})


_SOMEWHERE = {"host": "localhost", "user": "u", "password": PASSWORD}


async def talk(port: int, tls: ssl.SSLContext, *, timeout: float = 20) -> None:
    """Try to log in to it."""
    await wire.connect(login_to(port, host="localhost", tls=tls), timeout=timeout)


async def test_a_directory_that_takes_passwords_in_clear_works_behind_verified_tls(
    tls_postgres: TlsPostgres,
) -> None:
    async with tls_postgres.admin() as admin:
        await admin.execute("CREATE ROLE plain LOGIN PASSWORD 'plain'")
    try:
        endpoint = declared(
            tls_postgres.database,
            user="plain",
            password="plain",
            tls_ca_file=tls_postgres.authorities.file,
        )
        async with connected(endpoint) as connection:
            assert await connection.fetchval("SELECT current_user") == "plain"
    finally:
        async with tls_postgres.admin() as admin:
            await admin.execute("DROP ROLE plain")


@WEAKER
async def test_certificates_at_home_are_left_there(
    tls_postgres: TlsPostgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tls: str
) -> None:
    home = tmp_path / ".postgresql"
    home.mkdir()
    write_certificate(
        tls_postgres.authorities.ours.issue_cert("somebody@example.com"),
        key=home / "postgresql.key",
        chain=home / "postgresql.crt",
    )
    (home / "root.crt").write_bytes(tls_postgres.authorities.other.cert_pem.bytes())
    monkeypatch.setenv("HOME", str(tmp_path))
    authority = tls_postgres.authorities.file if tls == "verify-full" else None
    endpoint = declared(tls_postgres.database, tls=tls, tls_ca_file=authority)
    async with connected(endpoint) as connection:
        seen = await connection.fetchrow(
            "SELECT ssl, client_dn FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        )
    assert tuple(seen or ()) == (True, None)


async def test_the_whole_service_runs_behind_tls(tls_postgres: TlsPostgres, tmp_path: Path) -> None:
    async with tls_postgres.admin() as admin:
        await admin.execute("CREATE DATABASE catalog")
    endpoint = {
        "host": "localhost",
        "port": tls_postgres.database.port,
        "user": tls_postgres.database.user,
        "password": tls_postgres.database.password,
        "tls_ca_file": tls_postgres.authorities.file,
    }
    settings = Settings.model_validate(
        {
            "data_dir": tmp_path,
            "servers": {"local": endpoint},
            "catalog": {**endpoint, "database": "catalog"},
        }
    )
    app = create_app(settings)
    try:
        async with app.router.lifespan_context(app), tls_postgres.admin() as admin:
            protected = await admin.fetch(
                "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)"
                " WHERE application_name LIKE 'poolkeeper%'"
            )
            assert protected
            assert all(ssl for [ssl] in protected)
    finally:
        async with tls_postgres.admin() as admin:
            await admin.execute("DROP DATABASE catalog WITH (FORCE)")


async def test_a_server_that_switches_tls_off_is_left_until_it_is_on_again(
    tls_postgres: TlsPostgres, tmp_path: Path
) -> None:
    database = tls_postgres.database
    endpoint = {
        "host": "localhost",
        "port": database.port,
        "user": database.user,
        "password": database.password,
        "tls_ca_file": tls_postgres.authorities.file,
    }
    async with tls_postgres.admin() as admin:
        await admin.execute("CREATE DATABASE catalog")
    settings = Settings.model_validate(
        {
            "data_dir": tmp_path,
            "servers": {"local": endpoint},
            "catalog": {**endpoint, "database": "catalog"},
        }
    )
    app = create_app(settings)
    transport = ASGITransport(app)

    async def failing() -> dict[str, str]:
        shown = (await client.get("/readyz")).json()
        return {each["name"]: each["detail"] for each in shown["checks"] if not each["ok"]}

    async def are_named() -> bool:
        why = "The server does not offer TLS."
        found, findings = await failing(), (await client.get("/v1/findings")).text
        return why in found.get("catalog", "") and "servers" in found and why in findings

    async def are_well() -> bool:
        return not {"catalog", "poller", "servers"} & (await failing()).keys()

    async with tls_postgres.admin() as admin:
        try:
            async with (
                app.router.lifespan_context(app),
                AsyncClient(transport=transport, base_url="http://localhost") as client,
            ):
                await eventually(are_well)
                try:
                    await admin.execute("ALTER SYSTEM SET ssl = off")
                    await admin.execute("SELECT pg_reload_conf()")
                    await eventually(partial(_is_off, admin))
                    await admin.execute(
                        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                        " WHERE application_name LIKE 'poolkeeper%'"
                    )
                    await eventually(are_named)
                finally:
                    await admin.execute("ALTER SYSTEM RESET ssl")
                    await admin.execute("SELECT pg_reload_conf()")
                await eventually(are_well)
        finally:
            await admin.execute("DROP DATABASE catalog WITH (FORCE)")


async def _is_off(admin: asyncpg.Connection) -> bool:
    return bool(await admin.fetchval("SHOW ssl") == "off")


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_authorities_that_cannot_be_read_stop_the_start(
    tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "authorities.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(SettingsError, match=r"authorities\.pem"):
        _tls("local", ServerSettings.model_validate(_SOMEWHERE | {"tls_ca_file": file}))


def test_authorities_are_refused_if_nothing_would_be_verified() -> None:
    with pytest.raises(ValueError, match="requires tls = verify-full"):
        ServerSettings.model_validate(_SOMEWHERE | {"tls": "require", "tls_ca_file": "somewhere"})


@pytest.mark.parametrize(
    ("host", "tls", "warned"),
    [
        ("db.example.com", "verify-full", False),
        ("db.example.com", "require", True),
        ("db.example.com", "disable", True),
        ("10.0.0.7", "disable", True),
        ("localhost", "disable", False),
        ("::1", "require", False),
        ("/run/postgresql", "disable", False),
    ],
)
def test_less_protection_beyond_this_machine_is_warned_of(
    host: str, tls: str, *, warned: bool
) -> None:
    with capture_logs() as events:
        _tls("server local", ServerSettings.model_validate(_SOMEWHERE | {"host": host, "tls": tls}))
    assert [event["event"] for event in events] == ["connections are not protected"] * warned


def test_the_strictest_is_the_default() -> None:
    assert ServerSettings.model_validate(_SOMEWHERE).tls == "verify-full"
