"""A person, or a tool that manages configurations, changes a node's files and reloads PgBouncer."""

import errno
import os
import re
import signal
from collections.abc import Callable
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from app.node import agent as module
from app.node.agent import Agent
from app.node.files import NodeDirectory
from app.node.rendering import HBA, INI, USERS
from tests.fixtures.waiting import eventually
from tests.node.site import Site, look, pid_of, reloads, working

CHANGED = "files that others changed are in force again"


@pytest.mark.parametrize(
    ("file", "change"),
    [
        pytest.param(INI, lambda text: re.sub(r"(acme|bravo) = .*\n", "", text), id="no entries"),
        pytest.param(INI, lambda text: re.sub(r"(size|connections)=2", r"\1=9", text), id="sizes"),
        pytest.param(INI, lambda text: f"nonsense\n{text}", id="cannot be parsed"),
        pytest.param(USERS, lambda _: "", id="no users"),
        pytest.param(HBA, lambda _: "", id="nobody is admitted"),
    ],
)
async def test_they_are_written_and_read_again_and_nobody_has_connections_before(
    site: Site, monkeypatch: pytest.MonkeyPatch, file: str, change: Callable[[str], str]
) -> None:
    monkeypatch.setattr(module, "RELOAD_INTERVAL", 0.0)
    monkeypatch.setattr(module, "URGENT_INTERVAL", 0.0)
    await site.make_roles("acme", "bravo")
    node = site.configuration(site.entry("acme"), site.entry("bravo"), allotment=2)
    async with site.started(node) as engine:
        agent = Agent(engine, node)
        await agent.start()
        await agent.look()
        as_made, in_force = (site.directory / file).read_text(), await engine.read_back()
        (site.directory / file).write_text(change(as_made))
        os.kill(pid_of(engine), signal.SIGHUP)
        await eventually(lambda: "SIGHUP" in engine.log.path.read_text())
        with capture_logs() as logs:
            await agent.look()
        assert CHANGED in [entry["event"] for entry in logs]
        assert (site.directory / file).read_text() == as_made
        assert await engine.read_back() == in_force
        assert not any(entry.is_open for entry in in_force.values())
        async with working([look(agent)]):
            assert await site.role_of("acme") == "tenant_acme"
        before = reloads(site)
        await agent.look()
        assert reloads(site) == before


async def test_what_could_be_written_only_in_part_is_no_change_by_others(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RELOAD_INTERVAL", 0.0)
    monkeypatch.setattr(module, "URGENT_INTERVAL", 0.0)
    await site.make_roles("acme", "bravo")
    node = site.configuration(site.entry("acme"), allotment=2)
    wanted = site.configuration(site.entry("acme"), site.entry("bravo"), allotment=2)
    write = NodeDirectory.write

    def is_full(directory: NodeDirectory, name: str, content: bytes) -> None:
        if name == INI:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(directory, name, content)

    async with site.started(node) as engine:
        agent = Agent(engine, node)
        await agent.start()
        await agent.look()
        agent.configure(replace(wanted, version=node.version + 1))
        with monkeypatch.context() as full:
            full.setattr(NodeDirectory, "write", is_full)
            await agent.look()
            assert "No space left" in agent.problem
        with capture_logs() as logs:
            await agent.look()
        assert not agent.problem
        assert set(await engine.read_back()) == {"acme", "bravo"}
        assert CHANGED not in [entry["event"] for entry in logs]
