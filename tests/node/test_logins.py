"""Who can log in to a node: each attack is refused, and succeeds without its defence.

Two known attacks cannot be shown on PgBouncer 1.18: pass-through of a client's keys is refused
after a wrong password only since 1.25, and a removed user keeps its old password.
"""

import asyncio
import errno
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest

from app.domain.nodes.configuration import NodeConfiguration
from app.domain.nodes.gate import EntryState
from app.node import agent as agent_module
from app.node import census, pgbouncer, rendering
from app.node.files import NodeDirectory
from app.node.pgbouncer import PgBouncer
from app.node.rendering import RenderedFiles
from tests.fixtures.waiting import eventually
from tests.node.configurations import password_of
from tests.node.scram_login import ScramLogin
from tests.node.site import Site, busy, role_password

REFUSED = (psycopg.OperationalError, asyncpg.PostgresError)
# Before PgBouncer 1.21, and since.
NO_HBA_LINE = "rejected|no authentication method"
DOCUMENT = Path(__file__).parents[2] / "docs" / "nodes.md"

Change = Callable[[RenderedFiles], RenderedFiles]


@pytest.fixture
async def tenants(site: Site) -> NodeConfiguration:
    """Two tenants, with one application each."""
    await site.make_roles("acme", "bravo")
    return site.configuration(site.entry("acme"), site.entry("bravo"))


@pytest.fixture
def undefended(monkeypatch: pytest.MonkeyPatch) -> Callable[[Change], None]:
    """`undefended(change)`: from now on files are rendered, and then changed."""

    def install(change: Change) -> None:
        def changed(*args: Any, **knobs: Any) -> RenderedFiles:
            return change(rendering.render(*args, **knobs))

        monkeypatch.setattr(pgbouncer, "render", changed)

    return install


async def open_all(engine: PgBouncer) -> None:
    for name in await engine.read_back():
        await engine.open(name)


async def test_another_tenants_application_is_refused(
    site: Site, tenants: NodeConfiguration, undefended: Callable[[Change], None]
) -> None:
    async with site.started(tenants) as engine:
        await open_all(engine)
        with pytest.raises(REFUSED, match=NO_HBA_LINE):
            await site.role_of("acme", user="bravo.web")
        # Nor does the password of the role itself help, if it leaks.
        with pytest.raises(REFUSED, match=NO_HBA_LINE):
            await site.role_of("acme", user="tenant_acme", password=role_password("acme"))

        undefended(without_hba)
        await engine.apply(replace(tenants, version=2))
        assert await site.role_of("acme", user="bravo.web") == "tenant_acme"
        role = await site.role_of("acme", user="tenant_acme", password=role_password("acme"))
        assert role == "tenant_acme"


def without_hba(files: RenderedFiles) -> RenderedFiles:
    return replace(files, ini=files.ini.replace("auth_type = hba", "auth_type = scram-sha-256"))


async def test_a_tenant_with_the_name_of_a_keyword_lets_nobody_else_in(
    site: Site, undefended: Callable[[Change], None]
) -> None:
    await site.make_roles("acme", "all", "sameuser")
    node = site.configuration(*map(site.entry, ("acme", "all", "sameuser")))
    async with site.started(node) as engine:
        await open_all(engine)
        assert await site.role_of("all") == "tenant_all"
        assert await site.role_of("sameuser") == "tenant_sameuser"
        with pytest.raises(REFUSED, match=NO_HBA_LINE):
            await site.role_of("acme", user="all.web")

        undefended(lambda files: replace(files, hba=files.hba.replace('"', "")))
        await engine.apply(replace(node, version=2))
        assert await site.role_of("acme", user="all.web") == "tenant_acme"


@pytest.mark.parametrize("defence", ["tombstone", "hba", "both"])
async def test_a_revoked_credential_is_refused_also_without_a_password(
    site: Site, defence: str, undefended: Callable[[Change], None]
) -> None:
    await site.make_roles("acme")
    both = site.configuration(site.entry("acme", users=("web", "jobs")))
    async with site.started(both) as engine:
        await open_all(engine)
        assert await site.role_of("acme") == "tenant_acme"

        undefended(lambda files: revoking(files, defence))
        await engine.apply(site.configuration(site.entry("acme", users=("jobs",)), version=2))
        with pytest.raises(REFUSED):
            await site.role_of("acme", user="acme.web")
        with pytest.raises(REFUSED):
            await site.enter_without_password("acme", "acme.web")
        assert await site.role_of("acme", user="acme.jobs") == "tenant_acme"


async def test_without_a_defence_a_revoked_credential_lets_in(
    site: Site, undefended: Callable[[Change], None]
) -> None:
    await site.make_roles("acme")
    both = site.configuration(site.entry("acme", users=("web", "jobs")))
    async with site.started(both) as engine:
        await open_all(engine)
        assert await site.role_of("acme") == "tenant_acme"
        undefended(lambda files: revoking(files, "none"))
        await engine.apply(site.configuration(site.entry("acme", users=("jobs",)), version=2))
        try:
            await site.enter_without_password("acme", "acme.web")
        except REFUSED:
            # A later PgBouncer keeps the password.
            assert await site.role_of("acme", user="acme.web") == "tenant_acme"


def revoking(files: RenderedFiles, defence: str) -> RenderedFiles:
    """The files after `acme.web` was revoked, with only some of its defences."""
    if defence in {"hba", "none"}:
        lines = [line for line in files.users.splitlines() if not line.startswith('"acme.web"')]
        files = replace(files, users="".join(f"{line}\n" for line in lines))
    if defence in {"tombstone", "none"}:
        files = replace(files, hba=files.hba.replace('"acme.jobs"', '"acme.jobs","acme.web"'))
    return files


async def test_a_revoked_credential_stays_out_after_another_agent_took_over(site: Site) -> None:
    await site.make_roles("acme")
    both = site.configuration(site.entry("acme", users=("web", "jobs")))
    async with site.started(both):
        one = site.configuration(site.entry("acme", users=("jobs",)), version=2)
        another = site.engine()
        assert await another.start(one)
        assert await another.differs(one)
        await another.apply(one)
        await open_all(another)
        another.leave()
        assert '"acme.web" "SCRAM-SHA-256$' in (site.directory / "users.txt").read_text()
        with pytest.raises(REFUSED):
            await site.enter_without_password("acme", "acme.web")
        assert await site.role_of("acme", user="acme.jobs") == "tenant_acme"


async def test_refused_logins_have_the_messages_of_the_document(
    site: Site, tenants: NodeConfiguration
) -> None:
    table = DOCUMENT.read_text("utf-8").partition("### What clients see")[2].partition("###")[0]
    password = password_of("acme.web")
    logins: tuple[tuple[str, str, str, dict[str, str]], ...] = (
        ("acme.web", "acme", "wrong", {}),
        ("acme.nobody", "acme", password, {}),
        ("bravo.web", "acme", password_of("bravo.web"), {}),
        ("acme.web", "nowhere", password, {}),
        ("acme.web", "acme", password, {"options": "-c statement_timeout=5s"}),
    )
    async with site.started(tenants) as engine:
        await open_all(engine)
        refused = []
        for user, database, given, settings in logins:
            with pytest.raises(asyncpg.ProtocolViolationError) as error:  # 08P01
                await asyncpg.connect(
                    host="127.0.0.1",
                    port=site.port,
                    user=user,
                    database=database,
                    password=given,
                    server_settings=settings,
                    ssl=False,
                    timeout=180,
                )
            refused.append(str(error.value))
    assert refused[0] == "SASL authentication failed"
    assert all(re.search(NO_HBA_LINE, each) for each in refused[1:3])
    assert re.search(f"{NO_HBA_LINE}|no such database", refused[3])
    assert re.match("unsupported startup parameter", refused[4])
    if site.engine().version < (1, 20):
        assert all(f"`{each}`" in table for each in refused)


async def test_settings_of_a_transaction_and_of_the_role_take_the_place_of_options(
    site: Site, tenants: NodeConfiguration
) -> None:
    show = "SHOW statement_timeout"
    async with site.started(tenants) as engine:
        await open_all(engine)
        async with site.client("acme") as client:
            async with client.transaction():
                await client.execute("SET LOCAL statement_timeout = '5s'")
                assert await (await client.execute(show)).fetchone() == ("5s",)
            assert await (await client.execute(show)).fetchone() != ("5s",)
            await client.execute("ALTER ROLE CURRENT_USER SET statement_timeout = '7s'")
            assert await (await client.execute(show)).fetchone() != ("7s",)
        async with site.database.connected() as admin:
            await admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE usename = 'tenant_acme'"
            )
        await eventually(lambda: is_shown(site, show, "7s"))


async def is_shown(site: Site, show: str, value: str) -> bool:
    async with site.client("acme") as client:
        return await (await client.execute(show)).fetchone() == (value,)


async def test_the_console_is_closed_to_applications(
    site: Site, tenants: NodeConfiguration, undefended: Callable[[Change], None]
) -> None:
    async with site.started(tenants) as engine:
        with pytest.raises(REFUSED):
            await site.role_of("pgbouncer", user="acme.web")
        with pytest.raises(REFUSED):
            await site.role_of("pgbouncer", user="pgbouncer", password="x")
        with pytest.raises(REFUSED):
            await site.enter_without_password("pgbouncer", "pgbouncer")

        undefended(with_console)
        await engine.apply(replace(tenants, version=2))
        async with site.client("pgbouncer", user="acme.web") as console:
            version = engine.name.removeprefix("PgBouncer ")
            assert console.info.parameter_status("server_version") == f"{version}/bouncer"


def with_console(files: RenderedFiles) -> RenderedFiles:
    return replace(
        files,
        ini=files.ini.replace("admin_users =", "admin_users = acme.web"),
        hba=files.hba + 'host "pgbouncer" "acme.web" 127.0.0.1/32 scram-sha-256\n',
    )


async def test_a_roles_password_is_rotated_without_an_error(
    site: Site, tenants: NodeConfiguration
) -> None:
    async with site.run(tenants) as agent, busy(site, ["acme"]) as load:
        await eventually(lambda: load.served.get("acme", 0) > 20)
        agent.configure(paused(tenants, 2))
        await eventually(lambda: agent._entries["acme"].state == "closed")
        async with site.database.connected() as connection:
            await connection.execute("ALTER ROLE tenant_acme PASSWORD 'another'")
        acme = replace(tenants.entries[0], password="another")
        agent._applied_at = float("-inf")
        agent.configure(replace(tenants, version=3, entries=(acme, tenants.entries[1])))
        await load.goes_on("acme", by=20)


def paused(node: NodeConfiguration, version: int) -> NodeConfiguration:
    entries = tuple(replace(entry, paused=True) for entry in node.entries)
    return replace(node, version=version, entries=entries)


async def test_a_revoked_credentials_clients_are_cut_and_those_of_others_are_not(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_module, "RELOAD_INTERVAL", 3600.0)
    monkeypatch.setattr(agent_module, "RELOAD_ENTRIES", 1)
    await site.make_roles("acme", "bravo")
    acme = site.entry("acme", users=("web", "jobs"))
    node = site.configuration(acme, site.entry("bravo"))
    without_jobs = site.configuration(site.entry("acme"), site.entry("bravo"), version=2)
    nobody = site.configuration(site.entry("acme", users=()), site.entry("bravo"), version=3)
    async with site.run(node) as agent, busy(site, ["bravo"], clients=1) as load:
        await eventually(lambda: agent.version == 1)
        async with site.client("acme") as web:
            await eventually(lambda: load.served)
            # A RELOAD was a moment ago, and this does not wait for the next one.
            agent.configure(without_jobs)
            await eventually(lambda: agent.version == 2)
            with pytest.raises(REFUSED):
                await site.role_of("acme", user="acme.jobs")
            await web.execute("SELECT 1")

            agent.configure(nobody)
            # A statement sent in the same moment makes the system drop PgBouncer's message.
            told = "database removed|server closed the connection"
            removed = told if site.engine().version < (1, 24) else None
            with pytest.raises(psycopg.OperationalError, match=removed):
                await eventually(lambda: fails(web))
        with pytest.raises(REFUSED):
            await site.role_of("acme")
        await load.goes_on("bravo")


async def test_open_clients_of_a_deleted_tenant_are_cut(
    site: Site, tenants: NodeConfiguration
) -> None:
    async with site.run(tenants) as agent:
        await eventually(lambda: agent.version == 1)
        async with site.client("bravo") as bravo, site.client("acme") as acme:
            await bravo.execute("SELECT 1")
            agent.configure(site.configuration(site.entry("acme"), version=2))
            with pytest.raises(psycopg.Error, match="database removed"):
                await eventually(lambda: fails(bravo))
            await acme.execute("SELECT 1")


async def test_nobody_gets_connections_of_a_tenant_while_a_full_disk_keeps_a_revoked_user_in(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.make_roles("acme", "bravo")
    acme = site.entry("acme", users=("web", "jobs"))
    node = site.configuration(acme, site.entry("bravo"))
    without_jobs = site.configuration(site.entry("acme"), site.entry("bravo"), version=2)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async with site.run(node) as agent, busy(site, ["bravo"], clients=1) as load:
        await eventually(lambda: agent.version == 1)
        async with site.client("acme", user="acme.jobs") as jobs, site.client("acme") as web:
            await jobs.execute("SELECT 1")
            with monkeypatch.context() as patched:
                patched.setattr(NodeDirectory, "write", full)
                agent.configure(without_jobs)
                await eventually(lambda: "No space left" in agent.problem)
                await eventually(lambda: agent._entries["acme"].state is EntryState.CLOSED)
                statements = [asyncio.create_task(each.execute("SELECT 2")) for each in (jobs, web)]
                await eventually(lambda: agent._entries["acme"].measured.waiting == 2)
                await load.goes_on("bravo")
                assert not any(each.done() for each in statements)
            await eventually(lambda: agent.version == 2)
            with pytest.raises(psycopg.OperationalError):
                await statements[0]
            await asyncio.gather(*statements, return_exceptions=True)
        assert await site.role_of("acme") == "tenant_acme"
        assert not agent.problem


async def fails(client: psycopg.AsyncConnection) -> None:
    await client.execute("SELECT 1")


async def test_a_login_under_way_when_its_credential_is_revoked_is_cut(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(census, "_CLOSE_INTERVAL", 0.05)
    monkeypatch.setattr(census, "_INTERVAL", 3600.0)
    await site.make_roles("acme")
    node = site.configuration(site.entry("acme", users=("web", "jobs")))
    async with site.run(node) as agent:
        await eventually(lambda: agent.version == 1)
        attack = await ScramLogin.begin(site.port, "acme", "acme.jobs")
        agent.configure(site.configuration(site.entry("acme"), version=2))
        await eventually(lambda: agent.version == 2)
        # PgBouncer still has the old verifier: this login succeeds.
        assert await attack.finish(password_of("acme.jobs"))
        await attack.ends()
        assert await site.role_of("acme") == "tenant_acme"
