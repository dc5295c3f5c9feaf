"""A node's files are made in a thread: what can happen in that time."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest

from app.node import agent as module
from app.node import pgbouncer, rendering
from app.node.agent import Agent
from app.node.errors import CannotRender
from app.node.rendering import RenderedFiles
from tests.fixtures.waiting import eventually
from tests.node.site import Site, reloads


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Apply each configuration without delay."""
    monkeypatch.setattr(module, "RELOAD_INTERVAL", 0.0)
    monkeypatch.setattr(module, "URGENT_INTERVAL", 0.0)


async def test_the_loop_is_free_while_files_are_made(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []

    def watched(*args: object, **knobs: object) -> RenderedFiles:
        threads.append(threading.get_ident())
        return rendering.render(*args, **knobs)  # type: ignore[arg-type]

    monkeypatch.setattr(pgbouncer, "render", watched)
    monkeypatch.setattr(pgbouncer, "_TOGETHER", 1)
    await site.make_roles("acme", "bravo", "coral")
    async with site.started(site.configuration(site.entry("acme"))) as engine:
        agent = Agent(engine, site.configuration(*map(site.entry, ("acme", "bravo", "coral"))))
        await agent.start()
        await agent.look()
        assert set(await engine.read_back()) == {"acme", "bravo", "coral"}
    assert len(threads) > 3
    assert threading.get_ident() not in threads


@pytest.mark.parametrize("can_be_rendered", [True, False])
async def test_a_configuration_replaced_during_its_comparison_does_not_decide_on_the_next(
    site: Site, monkeypatch: pytest.MonkeyPatch, *, can_be_rendered: bool
) -> None:
    await site.make_roles("acme")
    small, large = site.entry("acme", size=1), site.entry("acme", size=5)
    # What is compared is what PgBouncer has, or cannot have; the new one is the other.
    last = large if can_be_rendered else small
    async with site.started(site.configuration(small)) as engine:
        agent = Agent(engine, site.configuration(small))
        await agent.start()
        await agent.look()
        before = reloads(site)

        def overtaken(*args: object, **knobs: object) -> RenderedFiles:
            loop.call_soon_threadsafe(agent.configure, site.configuration(last, version=3))
            if not can_be_rendered:
                raise CannotRender("No.")
            return rendering.render(*args, **knobs)  # type: ignore[arg-type]

        loop = asyncio.get_running_loop()
        agent.configure(site.configuration(small, version=2))
        with monkeypatch.context() as patched:
            patched.setattr(pgbouncer, "render", overtaken)
            await agent.look()
        assert agent.configuration.version == 3
        assert agent.version == 1
        await agent.look()
        assert (agent.version, agent.problem) == (3, "")
        assert (await engine.read_back())["acme"].size == last.size
        # Nothing except what differs.
        assert reloads(site) - before == (1 if can_be_rendered else 0)


async def test_recyclings_that_follow_each_other_are_collected(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on a node with a thousand tenants.
    monkeypatch.setattr(module, "RELOAD_INTERVAL", 10.0)
    monkeypatch.setattr(module, "RELOAD_ENTRIES", 1)
    await site.make_roles("acme")
    acme, now = site.entry("acme"), 1000.0
    async with site.started(site.configuration(acme)) as engine:
        agent = Agent(engine, site.configuration(acme), clock=lambda: now)
        await agent.start()
        await agent.look()
        before = reloads(site)
        for version, seconds, in_force in ((2, 60.0, 2), (3, 0.9, 2), (4, 0.9, 2), (5, 0.9, 5)):
            now += seconds
            entry = replace(acme, recycles=version)
            agent.configure(site.configuration(entry, version=version))
            for _ in range(2):
                await agent.look()
            assert agent.version == in_force
        assert reloads(site) - before == 2


async def test_an_agent_that_is_cancelled_while_files_are_made_writes_none(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.make_roles("acme", "bravo")
    one = site.configuration(site.entry("acme"))
    two = site.configuration(site.entry("acme"), site.entry("bravo"), version=2)
    begun, go_on = threading.Event(), threading.Event()

    def slow(*args: object, **knobs: object) -> RenderedFiles:
        begun.set()
        go_on.wait()
        return rendering.render(*args, **knobs)  # type: ignore[arg-type]

    async with site.started(one) as engine:
        before = {path.name: path.read_bytes() for path in files_of(site)}
        with monkeypatch.context() as patched:
            patched.setattr(pgbouncer, "render", slow)
            applying = asyncio.create_task(engine.apply(two), name="apply")
            try:
                await eventually(begun.is_set)
                applying.cancel()
                await asyncio.wait({applying})
            finally:
                go_on.set()
        assert applying.cancelled()
        assert {path.name: path.read_bytes() for path in files_of(site)} == before
        assert not await engine.differs(one)
        await engine.apply(two)
        assert set(await engine.read_back()) == {"acme", "bravo"}


def files_of(site: Site) -> list[Path]:
    return [path for path in site.directory.iterdir() if path.suffix in {".ini", ".txt", ".conf"}]


async def test_a_pooler_starts_although_all_lookups_of_names_hang(site: Site) -> None:
    """They use the event loop's threads, and a silent name server can hold them for minutes."""
    loop, answers = asyncio.get_running_loop(), Event()
    loop.set_default_executor(ThreadPoolExecutor(max_workers=1))
    lookup = loop.run_in_executor(None, answers.wait)
    try:
        async with asyncio.timeout(60), site.started(site.configuration(site.entry("acme"))):
            assert not lookup.done()
    finally:
        answers.set()
        await lookup
