"""A node's parts fail one after the other: applications go on, within the budget."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.fixtures.nodes import RunningNode, running_node
from tests.fixtures.postgres import Database
from tests.fixtures.processes import kill, paused
from tests.fixtures.served import served
from tests.fixtures.waiting import eventually
from tests.node.site import BACKENDS

BUDGET = 8
AGE = "UPDATE leadership SET renewed_at = renewed_at - interval '11 seconds'"
TENANTS = ("acme", "bravo", "coral", "delta", "ember")

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("scrub_roles")]


@asynccontextmanager
async def applications(node: RunningNode, database: Database) -> AsyncIterator[list[str]]:
    """Applications of all tenants that always have work; what each was served last, by tenant.

    None sees an error, and there are never more connections than the budget has.
    """
    served_: list[str] = []

    async def work(tenant: str) -> None:
        async with node.application(tenant) as connection:
            while True:
                await connection.execute("SELECT pg_sleep(0.002)")
                served_.append(tenant)

    async def watch() -> None:
        async with database.connected() as connection:
            while True:
                assert await connection.fetchval(BACKENDS) <= BUDGET
                await asyncio.sleep(0.01)

    tasks = [asyncio.create_task(work(each), name=each) for each in TENANTS for _ in range(3)]
    tasks.append(asyncio.create_task(watch(), name="watch pg_stat_activity"))
    try:
        yield served_
        for task in tasks:
            assert not task.done(), (task.get_name(), task.exception())
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def all_go_on(served_: list[str]) -> None:
    """Wait until every tenant has been served after now."""
    served_.clear()
    await eventually(lambda: set(served_) == set(TENANTS))


async def test_applications_go_on_whatever_fails_beside_their_pooler(
    database: Database, catalog_database: Database, enterable_path: Path
) -> None:
    async with (
        served(
            enterable_path,
            tenants_in=database,
            catalog_in=catalog_database,
            servers__local__budget=BUDGET,
        ) as service,
        running_node(enterable_path, service) as node,
    ):
        for tenant in TENANTS:
            await node.tenant(tenant)
        for tenant in TENANTS:
            await eventually(lambda tenant=tenant: node.admits(tenant))  # type: ignore[misc]
        [pooler] = node.poolers
        async with applications(node, database) as served_:
            await all_go_on(served_)
            with paused(service.process.pid):
                await all_go_on(served_)
            await node.kill_agent()
            await node.start()
            await eventually(node.is_ready)
            await all_go_on(served_)
            assert node.poolers == {pooler}
            # An agent stops, too, and leaves what runs.
            assert node.agent is not None
            node.agent.terminate()
            assert await node.agent.wait() == 0
            await node.start()
            await eventually(node.is_ready)
            await all_go_on(served_)
            assert node.poolers == {pooler}

        os.kill(pooler, signal.SIGKILL)
        await eventually(lambda: node.poolers - {pooler})
        await eventually(lambda: node.admits("acme"))

        response = await service.client.delete("/v1/tenants/acme/credentials/web")
        response.raise_for_status()
        await eventually(lambda: is_refused(node, "acme"))
        assert await node.admits("bravo")


async def is_refused(node: RunningNode, tenant: str) -> bool:
    return not await node.admits(tenant)


async def test_another_instance_takes_over_and_the_agent_finds_it(
    database: Database, catalog_database: Database, enterable_path: Path
) -> None:
    knobs = {
        "tenants_in": database,
        "catalog_in": catalog_database,
        "advertises": True,
        "servers__local__budget": BUDGET,
    }
    for name in ("first", "second"):
        (enterable_path / name).mkdir()
    async with (
        served(enterable_path / "first", **knobs) as active,
        served(enterable_path / "second", **knobs) as standby,
        running_node(enterable_path, active, standby) as node,
    ):
        for tenant in TENANTS:
            await node.tenant(tenant)
        for tenant in TENANTS:
            await eventually(lambda tenant=tenant: node.admits(tenant))  # type: ignore[misc]
        async with applications(node, database) as served_:
            await all_go_on(served_)
            await kill(active.process)
            async with catalog_database.connected() as connection:
                await connection.execute(AGE)  # the dead one's trust need not be waited for
            await all_go_on(served_)
            await eventually(node.is_ready)
            await all_go_on(served_)
        # The new leader's changes reach it.
        response = await standby.client.delete("/v1/tenants/acme/credentials/web")
        response.raise_for_status()
        await eventually(lambda: is_refused(node, "acme"))
