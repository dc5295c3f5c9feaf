"""The network between a node's agent and the service drops everything, both ways or one way."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import psycopg
import pytest

from tests.fixtures.nodes import BACKENDS, RunningNode, all_go_on, applications, running_node
from tests.fixtures.postgres import Database
from tests.fixtures.processes import kill
from tests.fixtures.proxy import FaultProxy
from tests.fixtures.served import Served, served
from tests.fixtures.waiting import eventually

BUDGET = 12
# What does not pass, by node: to the service, and to the agent.
CUTS = {"both": (True, True), "up": (True, False), "down": (False, True)}
HERE = ("here-a", "here-b")

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("scrub_roles")]


async def test_nodes_that_are_cut_off_go_on_within_their_allotments_and_come_back(
    database: Database, catalog_database: Database, enterable_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(
            served(
                enterable_path,
                tenants_in=database,
                catalog_in=catalog_database,
                servers__local__budget=BUDGET,
                rate_limit=0,
                acquire_timeout_seconds=60,
            )
        )
        nodes = {}
        for name in CUTS:
            (enterable_path / name).mkdir()
            proxy = FaultProxy("127.0.0.1", service.client.base_url.port or 0)
            nodes[name] = await stack.enter_async_context(
                running_node(
                    enterable_path / name,
                    service,
                    name=name,
                    through=await stack.enter_async_context(proxy),
                    selector={"node": name},
                )
            )
        for tenant in HERE:
            await service.tenant(tenant)
        tenants = {f"{name}-{letter}": node for name, node in nodes.items() for letter in "ab"}
        for tenant, node in tenants.items():
            await node.tenant(tenant, labels={"node": node.name})
        for tenant, node in tenants.items():
            await eventually(lambda tenant=tenant, node=node: node.admits(tenant))  # type: ignore[misc]

        before = await stack.enter_async_context(applications(tenants, database, budget=BUDGET))
        await all_go_on(before, tenants)
        for node, (up, down) in zip(nodes.values(), CUTS.values(), strict=True):
            assert node.through is not None
            node.through.black_hole(up=up, down=down)
        # From now on there is more work, here and there.
        callers = [asyncio.create_task(service.caller(tenant)) for tenant in 2 * HERE]
        async with applications(tenants, database, budget=BUDGET) as later:
            await eventually(lambda: are_stale(nodes["both"], nodes["up"]))
            for node in nodes.values():
                assert await backends_of(node, database) <= await held_by(node)
            await all_go_on(before, tenants)
            await all_go_on(later, tenants)
            await here_goes_on(service)
            for node in nodes.values():
                assert await backends_of(node, database) <= await held_by(node)
                assert node.through is not None
                await node.through.pass_through()
            for node in nodes.values():
                await eventually(node.is_ready)
            await all_go_on(before, tenants)
            await all_go_on(later, tenants)
            await here_goes_on(service)
        for caller in callers:
            assert not caller.done()
            caller.cancel()
        await asyncio.wait(callers)
        assert set(service.answers) == {200}


async def are_stale(*nodes: RunningNode) -> bool:
    return {(await node.shown()).get("state") for node in nodes} == {"stale"}


async def held_by(node: RunningNode) -> int:
    """The most connections that it can have, as far as the service knows."""
    return sum(server["held"] for server in (await node.shown())["servers"])


async def backends_of(node: RunningNode, database: Database) -> int:
    """Connections of its tenants, which nobody else opens."""
    async with database.connected() as connection:
        found = await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE starts_with(usename::text, $1)",
            f"tenant_{node.name}",
        )
    return int(found)


async def here_goes_on(service: Served) -> None:
    answered = service.answers[200]
    await eventually(lambda: service.answers[200] > answered + 10)


async def test_a_tenant_is_recycled_on_each_node_whatever_ends_before_it_hears_of_it(
    database: Database, catalog_database: Database, enterable_path: Path
) -> None:
    """The message is lost, the agent ends, and the service that was asked ends, too."""
    knobs = {"tenants_in": database, "catalog_in": catalog_database}
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(served(enterable_path, **knobs))
        nodes = {}
        for name in ("near", "far"):
            (enterable_path / name).mkdir()
            nodes[name] = await stack.enter_async_context(
                running_node(enterable_path / name, first, name=name)
            )
        await nodes["near"].tenant("acme")
        nodes["far"].passwords["acme"] = nodes["near"].passwords["acme"]
        connections = {}
        for name, node in nodes.items():
            await eventually(lambda node=node: node.admits("acme"))  # type: ignore[misc]
            connections[name] = await stack.enter_async_context(node.application("acme"))
        before = {name: await backend_of(each) for name, each in connections.items()}
        await nodes["far"].kill_agent()
        await eventually(lambda: are_stale(nodes["far"]))

        response = await first.client.post("/v1/tenants/acme/pool/recycle")
        assert response.json()["nodes"] == [
            {"node": "far", "recycled": False},
            {"node": "near", "recycled": True},
        ], response.text
        assert await backend_of(connections["near"]) != before["near"]
        assert await backend_of(connections["far"]) == before["far"]
        near = await backend_of(connections["near"])

        await kill(first.process)
        second = await stack.enter_async_context(served(enterable_path, **knobs))
        for node in nodes.values():
            assert node.agent is not None
            await kill(node.agent)
            node.services = [second]
            await node.start()
        await eventually(lambda: has_other_backend(connections["far"], before["far"]))
        await eventually(nodes["near"].is_ready)
        assert await backend_of(connections["near"]) == near, "once is enough"


async def test_a_deleted_tenant_keeps_no_session_on_a_node_that_is_cut_off(
    database: Database, catalog_database: Database, enterable_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(
            served(enterable_path, tenants_in=database, catalog_in=catalog_database)
        )
        proxy = await stack.enter_async_context(
            FaultProxy("127.0.0.1", service.client.base_url.port or 0)
        )
        node = await stack.enter_async_context(running_node(enterable_path, service, through=proxy))
        await node.tenant("acme")
        await eventually(lambda: node.admits("acme"))
        connection = await stack.enter_async_context(node.application("acme"))
        await backend_of(connection)
        proxy.black_hole()
        await eventually(lambda: are_stale(node))
        (await service.client.delete("/v1/tenants/acme")).raise_for_status()
        assert await backends_in(database) > 0, "the node has not heard of it"
        await eventually(lambda: has_no_backend(database))


async def has_no_backend(database: Database) -> bool:
    return await backends_in(database) == 0


async def backends_in(database: Database) -> int:
    async with database.connected() as connection:
        return int(await connection.fetchval(BACKENDS))


async def backend_of(connection: psycopg.AsyncConnection) -> int:
    [(pid,)] = await (await connection.execute("SELECT pg_backend_pid()")).fetchall()
    return int(pid)


async def has_other_backend(connection: psycopg.AsyncConnection, before: int) -> bool:
    return await backend_of(connection) != before
