"""One size for this service and two nodes: Postgres never sees more while load moves."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.fixtures.nodes import RunningNode, running_node
from tests.fixtures.postgres import Database
from tests.fixtures.processes import paused
from tests.fixtures.served import Served, served
from tests.fixtures.sessions import counted_sessions
from tests.fixtures.waiting import eventually

SIZE = 6
PLACES = 3
HERE = "here"
# So long that clients wait for a connection most of the time, even if the machine is busy: once a
# second, the service counts those that do.
STATEMENT = "SELECT pg_sleep(0.2)"

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("scrub_roles")]


@dataclass
class Site:
    """A service, its nodes, and a tenant in a database.

    Attributes:
        most: connections that Postgres may show.
        answered: the number of statements, by place.
    """

    service: Served
    nodes: Mapping[str, RunningNode]
    database: Database
    most: int = SIZE
    answered: Counter[str] = field(default_factory=Counter)

    async def resize(self, size: int) -> None:
        response = await self.service.client.put("/v1/tenants/acme/pool", json={"max_size": size})
        response.raise_for_status()

    async def shares(self) -> Mapping[str, int]:
        """The share of each place; together never more than the size."""
        shown = (await self.service.client.get("/v1/tenants/acme/pool")).raise_for_status().json()
        shares = {each["node"]: each["share"] for each in shown["nodes"]} | {HERE: shown["share"]}
        assert sum(shares.values()) <= self.most, shares
        return shares

    async def is_in_force(self, size: int) -> bool:
        """Whether the service knows that all places obey a smaller size.

        Only then does it lower the limit of the role. What it shows of the places is not enough:
        other shares may be decided that no configuration of a node has yet.
        """
        async with self.database.connected() as connection:
            limit = await connection.fetchval(
                "SELECT rolconnlimit FROM pg_roles WHERE rolname = 'tenant_acme'"
            )
        # As `most_connections` and `connection_limit` say.
        return bool(limit == 2 * size + 2)

    async def has_most(self, place: str) -> bool:
        """Whether a place has all connections except one for each of the others."""
        return (await self.shares())[place] == self.most - 2

    @asynccontextmanager
    async def working(self, *places: str, clients: int = 8) -> AsyncIterator[None]:
        """Clients that always have work at each of these places, for a block.

        They leave between two statements: if one hangs up inside a statement, PgBouncer opens
        another connection before Postgres has ended the first.
        """
        leaving = asyncio.Event()
        work = [self._work_here if place == HERE else self._work_on for place in places]
        tasks = [
            asyncio.create_task(each(place, leaving), name=f"work: {place}")
            for each, place in zip(work, places, strict=True)
            for _ in range(clients)
        ]
        try:
            yield
            for task in tasks:
                assert not task.done(), task
            leaving.set()
            await eventually(lambda: all(task.done() for task in tasks))
            for task in tasks:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _work_here(self, place: str, leaving: asyncio.Event) -> None:
        while not leaving.is_set():
            assert await self.service.query("acme", STATEMENT) == 200
            self.answered[place] += 1

    async def _work_on(self, place: str, leaving: asyncio.Event) -> None:
        async with self.nodes[place].application("acme") as connection:
            while not leaving.is_set():
                await connection.execute(STATEMENT)
                self.answered[place] += 1

    async def all_go_on(self) -> None:
        """Wait until every place has answered from now on."""
        self.answered.clear()
        await eventually(lambda: set(self.answered) == {HERE, *self.nodes})

    async def watch(self, database: Database) -> None:
        async with database.connected() as connection:
            while True:
                found = await counted_sessions(connection, self.most)
                if len(found) > self.most:
                    shown = await self.service.client.get("/v1/tenants/acme/pool")
                    raise AssertionError(found, shown.text)
                await asyncio.sleep(0.01)


@asynccontextmanager
async def site_of(
    database: Database, catalog_database: Database, directory: Path
) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(
            served(
                directory,
                tenants_in=database,
                catalog_in=catalog_database,
                rate_limit=0,
                acquire_timeout_seconds=60,
            )
        )
        nodes = {}
        for name in ("east", "west"):
            (directory / name).mkdir()
            nodes[name] = await stack.enter_async_context(
                running_node(directory / name, service, name=name)
            )
        site = Site(service, nodes, database)
        await nodes["east"].tenant("acme")
        nodes["west"].passwords |= nodes["east"].passwords
        await site.resize(SIZE)
        for node in nodes.values():
            await eventually(lambda node=node: node.admits("acme"))  # type: ignore[misc]
        watch = asyncio.create_task(site.watch(database), name="watch pg_stat_activity")
        try:
            yield site
            if watch.done():
                watch.result()
        finally:
            watch.cancel()
            await asyncio.wait([watch])


async def test_connections_follow_the_load_from_place_to_place(
    database: Database, catalog_database: Database, enterable_path: Path
) -> None:
    async with site_of(database, catalog_database, enterable_path) as site:
        for place in ("east", HERE, "west", HERE, "east"):
            async with site.working(place):
                await eventually(lambda place=place: site.has_most(place))  # type: ignore[misc]
        async with site.working(HERE, "east", "west"):
            await site.all_go_on()
            await site.all_go_on()


async def test_what_a_stopped_agent_must_give_up_is_lent_to_nobody_before_it_continues(
    database: Database, catalog_database: Database, enterable_path: Path
) -> None:
    async with site_of(database, catalog_database, enterable_path) as site:
        async with site.working("east"):
            await eventually(lambda: site.has_most("east"))
        agent = site.nodes["east"].agent
        assert agent is not None

        async def has_given_up() -> bool:
            return (await site.shares())["east"] < SIZE - 2

        async with site.working(HERE, clients=16):
            with paused(agent.pid):
                await eventually(has_given_up)
                site.answered.clear()
                await eventually(lambda: site.answered[HERE] > SIZE)
                assert (await site.shares())[HERE] == 1
            await eventually(lambda: site.has_most(HERE))


async def test_a_smaller_size_is_in_force_everywhere_and_each_place_keeps_a_connection(
    database: Database, catalog_database: Database, enterable_path: Path
) -> None:
    async with (
        site_of(database, catalog_database, enterable_path) as site,
        site.working(HERE, "east", "west", clients=3),
    ):
        await site.all_go_on()
        for size in (4, 1):
            await site.resize(size)
            most = max(size, PLACES)
            await eventually(lambda most=most: site.is_in_force(most))  # type: ignore[misc]
            site.most = most
            await site.all_go_on()
            await site.all_go_on()
        site.most = SIZE
        await site.resize(SIZE)
        await site.all_go_on()
