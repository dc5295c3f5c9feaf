"""PgBouncer's process: started, taken over, killed, hanging, ended."""

import asyncio
import os
import pwd
import re
import signal
import socket
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from app.node import pgbouncer, pooler_log, process
from app.node.agent import Agent
from app.node.errors import CannotStart, NodeError
from app.node.pgbouncer import PgBouncer
from app.node.process import Account, PoolerProcess, version_of
from tests.fixtures.ports import free_port
from tests.fixtures.processes import is_alive, is_root, owner
from tests.fixtures.waiting import eventually
from tests.node.configurations import SERVER
from tests.node.site import Site, busy, pid_of


async def test_it_runs_as_an_unprivileged_user_and_its_files_are_that_users(site: Site) -> None:
    await site.make_roles("acme")
    async with site.started(site.configuration(site.entry("acme"))) as engine:
        account = Account.choose()
        uid = os.geteuid() if account.uid is None else account.uid
        assert uid != 0
        assert owner(pid_of(engine)) == uid
        for file in (site.directory, *site.directory.glob("*.*")):
            assert file.stat().st_uid == uid or file.name == "pgbouncer.log"
            assert file.stat().st_mode & 0o077 == 0 or file.name == "pgbouncer.log"
        assert "secret" not in (site.directory / "pgbouncer.log").read_text()
    assert not is_alive(pid_of(engine))


def test_root_is_never_the_user_that_it_runs_as() -> None:
    with pytest.raises(CannotStart, match=r"unprivileged user|Only root can run"):
        Account.choose("root" if is_root() else "nobody")
    with pytest.raises(CannotStart, match=r"nosuch|Only root can run"):
        Account.choose("nosuch")


def test_a_user_needs_no_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers run with ids that no file of the image has."""
    uid = 2_000_000_000
    with pytest.raises(KeyError):
        pwd.getpwuid(uid)
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    assert Account.choose() == Account(name=f"uid {uid}")
    with pytest.raises(
        CannotStart, match=f"Only root can run PgBouncer as nobody. This is uid {uid}"
    ):
        Account.choose("nobody")


def test_only_a_pgbouncer_is_taken(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match="cannot be run"):
        version_of(tmp_path / "none")
    with pytest.raises(CannotStart, match="reports no version"):
        version_of(Path("/bin/true"))


async def test_a_port_in_use_is_told_with_the_end_of_the_log(site: Site) -> None:
    with (
        closing(socket.create_server(("127.0.0.1", site.port))),
        pytest.raises(CannotStart, match=r"cannot listen on 127.0.0.1.*in use"),
    ):
        await site.engine().start(site.configuration())


async def test_a_second_one_in_the_same_directory_is_refused(site: Site) -> None:
    async with site.started(site.configuration()) as running:
        other = replace(site, port=free_port()).engine()
        with pytest.raises(CannotStart, match=f"is already running, on port {site.port}"):
            await other.start(site.configuration())
        assert is_alive(pid_of(running))


async def test_its_log_does_not_grow_for_ever(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async with site.started(site.configuration()) as engine:
        log = site.directory / "pgbouncer.log"
        await engine.totals()
        assert "LOG process up" in log.read_text()
        monkeypatch.setattr(pooler_log, "_LONGEST", 1)
        await engine.totals()
        assert "LOG process up" not in log.read_text()


async def test_a_new_agent_takes_over_what_runs_and_cuts_nobody(site: Site) -> None:
    await site.make_roles("acme", "bravo", "coral")
    acme, bravo = site.entry("acme"), site.entry("bravo")
    async with (
        site.run(site.configuration(acme, site.entry("coral"))) as agent,
        busy(site, ["acme"]) as load,
    ):
        await eventually(lambda: load.served)
        # The first agent still exists, like one that hangs for a while.
        first, engine = agent._engine, site.engine()
        assert isinstance(first, PgBouncer)
        another = Agent(engine, site.configuration(acme, bravo, version=2))
        await another.start()
        assert pid_of(engine) == pid_of(first)
        assert another._entries["acme"].state == "open"
        await another.look()
        assert another.version == 2
        assert set(another._entries) == {"acme", "bravo"}
        engine.leave()
        await load.goes_on("acme")


async def test_one_that_runs_and_is_vulnerable_is_refused_and_left_alone(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with site.started(site.configuration()) as running:
        # The program was replaced since.
        monkeypatch.setattr(pgbouncer, "version_of", lambda _: (1, 26, 1))
        engine = site.engine(refuse_vulnerable=True)
        with pytest.raises(CannotStart, match=rf"vulnerable. {re.escape(running.name)}: .*CVE"):
            await engine.start(site.configuration())
        engine.leave()
        assert is_alive(pid_of(running))


async def test_after_it_was_killed_it_starts_with_every_entry_closed(site: Site) -> None:
    await site.make_roles("acme")
    node = site.configuration(site.entry("acme"))
    async with site.started(node) as engine:
        agent = Agent(engine, node)
        await agent.start()
        await engine.open("acme")
        assert await site.role_of("acme") == "tenant_acme"
        os.kill(pid_of(engine), signal.SIGKILL)
        await eventually(lambda: not is_alive(pid_of(engine)))
        with pytest.raises(NodeError):
            await agent.look()
        await eventually(lambda: _has_ended(engine))

        await agent.start()
        assert agent._entries["acme"].state == "closing"
        async with busy(site, ["acme"], clients=1) as load:
            await eventually(lambda: _looked(agent, load.served))


async def _has_ended(engine: PgBouncer) -> bool:
    return not await engine.is_running()


async def _looked(agent: Agent, served: dict[str, int]) -> bool:
    await agent.look()
    return bool(served)


async def test_one_that_hangs_is_ended(site: Site) -> None:
    async with site.started(site.configuration()) as engine:
        os.kill(pid_of(engine), signal.SIGSTOP)
        await engine.stop(patience=0.0)
        assert not is_alive(pid_of(engine))
        await engine.stop(patience=0.0)


async def test_clients_learn_that_postgres_is_away(site: Site) -> None:
    """PgBouncer would let them wait for two minutes."""
    engine = site.engine(max_wait=1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    here = site.configuration(site.entry("acme"))
    away = replace(here, servers={SERVER: replace(here.servers[SERVER], port=port)})
    await engine.start(away)
    try:
        await engine.open("acme")
        with pytest.raises(psycopg.OperationalError, match=r"query_wait_timeout|has been failing"):
            async with site.client("acme"):
                pass
    finally:
        await engine.stop(patience=0.0)


async def test_a_process_that_got_the_number_of_one_that_ended_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = await asyncio.create_subprocess_exec("/bin/sleep", "600")
    try:
        with monkeypatch.context() as earlier:
            earlier.setattr(process, "_beginning_of", lambda _: "7")
            pooler = PoolerProcess(other.pid)
        assert not pooler.is_running()
        await pooler.stop(patience=0.0)
        assert PoolerProcess(other.pid).is_running()
    finally:
        other.kill()
        await other.wait()
    assert other.returncode == -signal.SIGKILL
    assert not PoolerProcess(other.pid).is_running()
