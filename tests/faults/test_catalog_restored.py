"""The catalog is restored from a backup: agents of nodes go on, whatever it has of them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.fixtures.nodes import NODE, RunningNode, running_node
from tests.fixtures.ports import free_port
from tests.fixtures.postgres import Database, fresh_database
from tests.fixtures.processes import kill
from tests.fixtures.served import Served, served
from tests.fixtures.waiting import eventually

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("scrub_roles")]


async def test_agents_go_on_after_a_restore_of_the_catalog(
    database: Database,
    catalog_database: Database,
    postgres_server: Database,
    enterable_path: Path,
) -> None:
    port = free_port()

    @asynccontextmanager
    async def serving(catalog: Database) -> AsyncIterator[Served]:
        async with served(
            enterable_path, port=port, tenants_in=database, catalog_in=catalog
        ) as service:
            yield service

    async with serving(catalog_database):
        pass
    async with (
        fresh_database(postgres_server, template=catalog_database.database) as without_node,
        serving(catalog_database) as service,
        running_node(enterable_path, service) as node,
    ):
        await node.tenant("acme")
        await eventually(lambda: node.admits("acme"))
        [pooler] = node.poolers
        await kill(service.process)
        async with fresh_database(postgres_server, template=catalog_database.database) as backup:
            async with serving(catalog_database):
                await eventually(node.is_ready)
                await node.kill_agent()
                await node.start()
                await eventually(node.is_ready)
            # The agent that runs takes its configuration, and so does one that starts.
            async with serving(backup):
                await eventually(node.is_ready)
                await _admits_a_new_tenant(node, "bravo")
                await node.kill_agent()
                await node.start()
                await eventually(node.is_ready)
                await _admits_a_new_tenant(node, "coral")
        async with serving(without_node) as restored:
            assert (await restored.client.get(f"/v1/nodes/{NODE}")).status_code == 404
            (await restored.client.put(f"/v1/nodes/{NODE}", json={})).raise_for_status()
            await eventually(node.is_ready)
            await _admits_a_new_tenant(node, "delta")
            assert node.agent is not None
            assert node.agent.returncode is None
        assert node.poolers == {pooler}


async def _admits_a_new_tenant(node: RunningNode, tenant: str) -> None:
    """The response to a new credential waits until the node accepts it."""
    await node.tenant(tenant)
    await eventually(lambda: node.admits(tenant))
