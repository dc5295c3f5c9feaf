"""A node's parts fail one after the other: applications go on, within the budget."""

import os
import signal
from pathlib import Path

import pytest

from tests.fixtures.nodes import RunningNode, all_go_on, applications, running_node
from tests.fixtures.postgres import Database
from tests.fixtures.processes import kill, paused
from tests.fixtures.served import served
from tests.fixtures.waiting import eventually

BUDGET = 8
AGE = "UPDATE leadership SET renewed_at = renewed_at - interval '11 seconds'"
TENANTS = ("acme", "bravo", "coral", "delta", "ember")

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("scrub_roles")]


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
        async with applications(dict.fromkeys(TENANTS, node), database, budget=BUDGET) as served_:
            await all_go_on(served_, TENANTS)
            with paused(service.process.pid):
                await all_go_on(served_, TENANTS)
            await node.kill_agent()
            await node.start()
            await eventually(node.is_ready)
            await all_go_on(served_, TENANTS)
            assert node.poolers == {pooler}
            # An agent stops, too, and leaves its pooler running.
            assert node.agent is not None
            node.agent.terminate()
            assert await node.agent.wait() == 0
            await node.start()
            await eventually(node.is_ready)
            await all_go_on(served_, TENANTS)
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
        async with applications(dict.fromkeys(TENANTS, node), database, budget=BUDGET) as served_:
            await all_go_on(served_, TENANTS)
            await kill(active.process)
            async with catalog_database.connected() as connection:
                await connection.execute(AGE)  # the dead one's trust need not be waited for
            await all_go_on(served_, TENANTS)
            await eventually(node.is_ready)
            await all_go_on(served_, TENANTS)
        # The new leader's changes reach it.
        response = await standby.client.delete("/v1/tenants/acme/credentials/web")
        response.raise_for_status()
        await eventually(lambda: is_refused(node, "acme"))
