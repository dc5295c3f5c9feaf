"""PgBouncer's console: who may use it, its answers, and hangs."""

import asyncio
import os
import socket
from pathlib import Path

import pytest

from app.node import console as module
from app.node.console import Console, quoted
from app.node.errors import CommandRefused, ConsoleLost, NothingListens
from app.node.messages import Row
from app.node.process import Account
from tests.fixtures.processes import is_root, paused
from tests.fixtures.waiting import eventually
from tests.node.site import Site, pid_of


async def test_commands_are_answered_and_a_refused_one_changes_nothing(site: Site) -> None:
    async with site.started(site.configuration(site.entry("acme"))) as engine:
        console = await Console.connect(engine._socket, uid=Account.choose().uid)
        assert console.pid == pid_of(engine)
        read: list[str | None] = []

        def name(row: Row) -> str | None:
            read.append(row["name"])
            return row["name"]

        # Rows that have not changed are not read again.
        for _ in range(3):
            shown = await console.rows("SHOW DATABASES", name, is_polled=True)
            assert set(shown) == {"acme", "pgbouncer"}
        assert len(read) == 2
        await console.run(f"RESUME {quoted('acme')}")
        await console.rows("SHOW DATABASES", name, is_polled=True)
        assert read[2:] == ["acme"]
        await console.rows("SHOW DATABASES", name)
        assert len(read) == 5
        with pytest.raises(CommandRefused, match="no such database: nobody"):
            await console.run(f"PAUSE {quoted('nobody')}")
        with pytest.raises(CommandRefused, match="invalid command"):
            await console.run("SHOW VERSION", "BREW COFFEE", "SHOW VERSION")
        with pytest.raises(CommandRefused, match="invalid command"):
            await console.rows("SHOW COFFEE", dict)
        [version] = await console.rows("SHOW VERSION", dict)
        assert str(version["version"]).startswith("PgBouncer ")
        console.close()
        console.close()
        assert console.is_closed
        with pytest.raises(ConsoleLost, match="closed"):
            await console.run("SHOW VERSION")


async def test_a_person_at_the_console_is_no_other_agent(site: Site) -> None:
    async with site.started(site.configuration()) as engine:
        for name in ("psql", "poolkeeper"):
            console = await Console.connect(engine._socket, uid=Account.choose().uid, name=name)
            assert not await engine.has_another_agent()
            console.close()


async def test_a_console_without_a_name_may_be_that_of_an_earlier_versions_agent(
    site: Site,
) -> None:
    """If it were not, an agent that is replaced by that version would make its clients wait."""
    async with site.started(site.configuration()) as engine:
        console = await Console.connect(engine._socket, uid=Account.choose().uid)
        assert await engine.has_another_agent()
        console.close()


async def test_an_answer_that_nobody_waits_for_is_not_taken_for_the_next_one(site: Site) -> None:
    async with site.started(site.configuration()) as engine:
        await engine.measure()
        console = engine._console
        assert console is not None
        with paused(pid_of(engine)):
            asking = asyncio.create_task(engine.clients(), name="ask")
            await eventually(console._turn.locked)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
        assert await engine.read_back() == {}
        assert await engine.measure() == {}


@pytest.mark.skipif(not is_root(), reason="only root can be another user")
async def test_another_user_is_refused_and_root_is_itself_again(site: Site) -> None:
    async with site.started(site.configuration()) as engine:
        with pytest.raises(ConsoleLost, match="refuses the agent"):
            await Console.connect(engine._socket)
        assert os.geteuid() == 0
    with pytest.raises(NothingListens):
        await Console.connect(engine._socket, uid=Account.choose().uid)
    assert os.geteuid() == 0


async def test_a_socket_that_nobody_listens_on_is_told_from_one_that_hangs(
    tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NothingListens):
        await Console.connect(tmp_path / "none")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "left"))
    with pytest.raises(NothingListens):
        await Console.connect(tmp_path / "left")

    monkeypatch.setattr(module, "DEADLINE_SECONDS", 0.2)
    async with site.started(site.configuration()) as engine:
        with paused(pid_of(engine)), pytest.raises(ConsoleLost, match="does not answer"):
            await Console.connect(engine._socket, uid=Account.choose().uid)
        with paused(pid_of(engine)), pytest.raises(ConsoleLost, match="does not answer"):
            await engine.measure()
        # The next command connects again.
        monkeypatch.setattr(module, "DEADLINE_SECONDS", 60.0)
        assert await engine.measure() == {}
