"""One size for this process and all nodes: never exceeded while it moves to the load."""

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest

from app.control.nodes.declaration import NodeDeclarations
from app.control.nodes.feed import NodeFeed
from app.control.nodes.fleet import Fleet
from app.control.nodes.tracked_node import TrackedNode
from app.control.pools.role_limits import RoleLimits
from app.domain.desired_pool import DesiredPool
from app.domain.errors import CatalogUnavailable
from app.domain.nodes.allotment import NO_ALLOTMENT
from app.domain.nodes.configuration import NodeServer
from app.domain.nodes.declaration import NodeSpec
from app.domain.nodes.gate import EntryState
from app.domain.nodes.node import ABSENT_FOR, GONE_AFTER, STALE_AFTER
from app.domain.nodes.report import NodeReport, ServerReport
from app.domain.nodes.size_split import split
from app.domain.pool import PoolSize
from app.pools.pool import Pool
from tests.catalog.values import event
from tests.fixtures.clock import Clock
from tests.fixtures.control import PERSON, Control
from tests.fixtures.reporting import entry, node_report
from tests.fixtures.waiting import eventually

ADDRESSES = {
    "local": NodeServer(host="127.0.0.1", port=5432, tls_mode="disable", allotment=NO_ALLOTMENT)
}
NOW = datetime(2026, 7, 14, tzinfo=UTC)
SIZE = 10


@dataclass
class Agent:
    """An agent with one tenant, which reads its configuration when a test says so.

    Attributes:
        version, size: in force.
        open: connections of the tenant.
    """

    node: TrackedNode
    version: int = 0
    size: int = 0
    open: int = 0
    sequences: Any = field(default_factory=lambda: count(1))

    def read(self) -> None:
        """Put the latest configuration in force; connections beyond its size stay for now."""
        assert self.node.configuration is not None
        self.version = self.node.configuration.version
        [wanted] = self.node.configuration.entries
        self.size = wanted.size if wanted.logins else 0

    def report(self, *, waiting: int = 0) -> NodeReport:
        allotments = self.node.allotments()
        said = entry(
            "acme",
            state=EntryState.OPEN if self.size else EntryState.CLOSED,
            size=max(1, self.size),
            connections=self.open,
            in_use=self.open,
            clients=self.open + waiting,
            waiting=waiting,
        )
        return node_report(
            self.node.last_session,
            next(self.sequences),
            [said],
            version=self.version,
            servers={
                name: ServerReport(
                    generation=each.generation,
                    committed=min(each.connections, max(self.size, self.open)),
                    connected=self.open,
                )
                for name, each in allotments.items()
            },
        )


@dataclass
class Site:
    """A service, and agents whose reports a test decides."""

    control: Control
    clock: Clock
    fleet: Fleet
    feed: NodeFeed
    size: int = SIZE
    agents: dict[str, Agent] = field(default_factory=dict)

    async def node(self, name: str, **spec: Any) -> Agent:
        declared, _ = await self.control.catalog.nodes.save(
            NodeSpec(name=name, **spec), paused=False, draining=False, event=event("node.created")
        )
        node = self.fleet.put(declared)
        await self.feed.refresh()
        await self.fleet.begin_session(node)
        agent = self.agents[name] = Agent(node)
        await self.tick()
        agent.read()
        await self.hear(agent)
        return agent

    def resize(self, size: int) -> None:
        """Set the size, as an operator does."""
        self.control.manager.desired.put(
            DesiredPool(
                pool_id="acme",
                size=PoolSize(max_size=size, warmup_size=0),
                pause=None,
                generation=1,
                updated_at=NOW,
            )
        )

    async def credential(self) -> None:
        await self.control.credentials.create(self.control.state("acme"), "web", PERSON)
        await self.feed.refresh()

    async def tick(self, seconds: float = 1.0) -> None:
        """One round of what the service does by itself."""
        self.clock.now += seconds
        await self.fleet.run_once()
        await self.feed.refresh()
        self.check()

    async def hear(self, agent: Agent, *, waiting: int = 0, **changes: Any) -> None:
        report = replace(agent.report(waiting=waiting), **changes)
        await self.fleet.hear(agent.node, report)
        self.check()

    @property
    def pool(self) -> Pool | None:
        return self.control.manager.find("acme")

    @property
    def shares(self) -> Mapping[str, int | None]:
        """The share of each place; for this process, what it may have now."""
        sizes = self.fleet.sizes
        given = {name: sizes.share_on(name, "acme") for name in self.agents}
        return {"": sizes.here("acme"), **given}

    def check(self) -> None:
        """Check that all places together stay within the size, now and with their new shares."""
        here = self.fleet.sizes.here("acme")
        if here is None:
            assert all(agent.open == 0 for agent in self.agents.values())
            return
        used = self.pool.connections.open if self.pool else 0
        nodes = sum(
            max(self.fleet.sizes.share_on(name, "acme") or 0, agent.size, agent.open)
            for name, agent in self.agents.items()
        )
        assert max(here, used) + nodes <= self.size, (here, used, self.shares, self.agents)


@pytest.fixture
async def site(control: Control) -> Site:
    clock = Clock()
    await control.tenant("acme")
    made = site_of(control, clock, epoch=1)
    made.resize(SIZE)
    return made


def site_of(control: Control, clock: Clock, epoch: int) -> Site:
    fleet = Fleet(
        control.catalog,
        control.manager,
        control.credentials,
        control.node_loads,
        epoch=epoch,
        clock=clock,
    )
    feed = NodeFeed(fleet, control.manager, control.credentials, ADDRESSES, epoch=epoch)
    return Site(control, clock, fleet, feed)


async def test_a_tenant_without_a_credential_has_all_its_size_in_this_process(site: Site) -> None:
    edge = await site.node("edge")
    async with site.control.manager.lease("acme"):
        assert site.pool is not None
        assert (site.pool.most, site.fleet.sizes.here("acme")) == (SIZE, None)
    await site.credential()
    assert (site.pool.most, site.shares) == (1, {"": 1, "edge": 9})
    [found] = site.control.credentials.of(site.control.state("acme").tenant.spec.id)
    await site.control.credentials.revoke(found, PERSON)
    await site.feed.refresh()
    assert site.shares == {"": 1, "edge": 0}
    edge.read()
    await site.hear(edge)
    assert (site.pool.most, site.fleet.sizes.here("acme")) == (SIZE, None)
    site.pool.resize(PoolSize(max_size=SIZE + 2))
    assert site.pool.most == SIZE + 2


async def test_connections_move_to_where_they_are_lacking_once_they_were_given_up(
    site: Site,
) -> None:
    await site.credential()
    east = await site.node("east")
    assert site.shares == {"": 1, "east": 9}
    west = await site.node("west")
    assert site.shares == {"": 1, "east": 5, "west": 0}
    east.read()
    await site.hear(east)
    assert site.shares == {"": 1, "east": 5, "west": 4}
    await site.tick()
    west.read()
    east.open, west.open = 3, 4
    await site.hear(east)
    await site.hear(west, waiting=20)
    assert site.shares == {"": 1, "east": 1, "west": 4}
    await site.tick()
    assert site.shares["west"] == 4
    # In force there, and three transactions still run.
    east.read()
    await site.hear(east)
    assert site.shares["west"] == 6
    east.open = 1
    await site.hear(east)
    assert site.shares == {"": 1, "east": 1, "west": 8}
    await site.tick()
    west.read()
    await site.hear(west)


async def test_callers_here_get_what_nodes_do_not_need(site: Site) -> None:
    await site.credential()
    edge = await site.node("edge")
    manager = site.control.manager
    async with AsyncExitStack() as leases:
        waiting = [
            asyncio.create_task(leases.enter_async_context(manager.lease("acme", timeout=60)))
            for _ in range(4)
        ]
        await eventually(lambda: site.pool and site.pool.metrics.waiting_requests == 3)
        await site.tick()
        assert site.shares == {"": 1, "edge": 2}
        edge.read()
        await site.hear(edge)
        assert site.shares == {"": 8, "edge": 2}
        await asyncio.gather(*waiting)
        # And back: what leases hold is given away when they end.
        site.clock.now += 60
        edge.open = 2
        await site.hear(edge, waiting=40)
        assert site.shares == {"": 1, "edge": 6}
    await eventually(lambda: site.pool and site.pool.connections.open == 1)
    await site.tick()
    assert site.shares == {"": 1, "edge": 9}


async def test_nothing_is_split_while_nothing_changes(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = Mock(wraps=split)
    monkeypatch.setattr("app.control.nodes.size_split.split", splits)
    await site.credential()
    edge = await site.node("edge")
    await site.tick()
    splits.reset_mock()
    for _ in range(3):
        await site.hear(edge)
        await site.tick()
    assert not splits.called
    # The node becomes silent, and reports again.
    await site.tick(STALE_AFTER)
    assert splits.called
    await site.hear(edge)
    await site.tick()
    splits.reset_mock()
    await site.hear(edge)
    await site.tick()
    assert not splits.called


async def test_a_node_that_was_deleted_while_it_was_declared_for_a_tenant_gets_nothing(
    site: Site,
) -> None:
    await site.credential()
    edge = await site.node("edge")
    sizes = site.fleet.sizes
    sizes.declare("acme", "local", SIZE, ["edge", "deleted"])
    await sizes.decide()
    assert (site.shares, sizes.share_on("deleted", "acme")) == ({"": 1, "edge": 9}, 0)
    edge.read()
    await site.hear(edge)
    await site.tick()
    assert site.shares == {"": 1, "edge": 9}


async def test_a_tenant_that_can_be_used_on_no_node_is_never_limited(site: Site) -> None:
    sizes = site.fleet.sizes
    sizes.declare("acme", "local", SIZE, [])
    assert (sizes.here("acme"), sizes.share_on("edge", "acme")) == (None, None)
    sizes.declare("acme", "local", SIZE, ["edge"])
    assert (sizes.here("acme") is None, sizes.share_on("another", "acme")) == (False, 0)
    before = site.shares
    sizes.release("another")
    sizes.forget("another")
    assert site.shares == before


async def test_a_report_without_every_entry_shows_no_size_in_force(site: Site) -> None:
    """It omits a tenant that may have changed since the previous report."""
    await site.credential()
    edge = await site.node("edge")
    site.resize(4)
    await site.feed.refresh()
    assert site.shares == {"": 0, "edge": 3}
    # Its last report of the tenant: closed.
    edge.size = 0
    await site.hear(edge)
    edge.read()
    edge.open = 7
    await site.hear(edge, entries=(), more=True)
    assert site.shares == {"": 0, "edge": 3}
    await site.hear(edge)
    assert site.shares == {"": 0, "edge": 3}
    edge.open = 3
    await site.hear(edge)
    assert site.shares == {"": 1, "edge": 3}


async def test_a_changed_size_is_split_again(site: Site) -> None:
    await site.credential()
    edge = await site.node("edge")
    site.resize(2)
    await site.feed.refresh()
    assert site.shares == {"": 0, "edge": 1}
    edge.read()
    await site.hear(edge)
    assert site.shares == {"": 1, "edge": 1}
    site.size = 2
    site.check()
    site.resize(SIZE)
    site.size = SIZE
    await site.feed.refresh()
    assert site.shares == {"": 1, "edge": 9}


async def test_a_new_leader_counts_all_that_a_node_may_have_in_force(site: Site) -> None:
    await site.credential()
    edge = await site.node("edge")
    # It may have that many, of any tenants.
    await site.control.catalog.nodes.save_liabilities({("edge", "local"): 15})
    later = site_of(site.control, site.clock, epoch=2)
    await later.fleet.load()
    edge.node = later.fleet.node("edge")
    later.agents["edge"] = edge
    await later.feed.refresh()
    # It is offered its share at once: its clients go on.
    assert later.shares == {"": 0, "edge": 9}
    await later.hear(edge)
    await later.tick()
    assert later.shares == {"": 0, "edge": 9}
    edge.read()
    await later.hear(edge)
    assert later.shares == {"": 1, "edge": 9}


async def test_callers_have_a_connection_while_it_is_unknown_what_nodes_have_in_force(
    site: Site,
) -> None:
    """They were there under an earlier leader, and each may have the whole size."""
    await site.credential()
    for name in ("east", "west"):
        await site.node(name)
    await site.control.catalog.nodes.save_liabilities(
        {("east", "local"): 15, ("west", "local"): 15}
    )
    later = site_of(site.control, site.clock, epoch=2)
    await later.fleet.load()
    await later.feed.refresh()

    async def borrow() -> None:
        async with site.control.manager.lease("acme", timeout=60):
            pass

    caller = asyncio.create_task(borrow(), name="caller")
    await eventually(lambda: site.pool and site.pool.metrics.waiting_requests)
    await later.fleet.run_once()
    assert later.shares[""] == 0
    site.clock.now += STALE_AFTER
    await later.fleet.run_once()
    await caller


async def test_a_node_that_was_gone_opens_nothing_before_it_knows_its_share(site: Site) -> None:
    await site.credential()
    edge = await site.node("edge")
    await site.tick()
    assert edge.node.commitment("local").current == 9
    edge.size = 0
    for _ in range(int(GONE_AFTER + ABSENT_FOR) // 2 + 1):
        await site.tick(2)
    assert edge.node.liability == 0
    assert site.shares == {"": SIZE, "edge": 0}
    # By the configuration that it had.
    await site.hear(edge)
    await site.tick()
    await site.hear(edge)
    assert edge.node.commitment("local").current == 0
    edge.read()
    await site.hear(edge)
    assert site.shares == {"": 1, "edge": 9}
    assert edge.node.commitment("local").current == 9


async def test_each_place_has_a_connection_whatever_the_size_while_it_has_callers(
    site: Site,
) -> None:
    site.resize(1)
    await site.credential()
    nodes = [await site.node(name) for name in ("east", "west")]
    for _ in range(4):
        for agent in nodes:
            agent.read()
            agent.open = agent.size
            await site.hear(agent, waiting=2)
        await site.tick()
    assert [agent.open for agent in nodes] == [1, 1]
    for _ in range(20):
        for agent in nodes:
            agent.read()
            agent.open = 0
            await site.hear(agent)
        await site.tick()
    assert sum(share or 0 for share in site.shares.values()) == 1
    # One that has none any more leaves nothing behind.
    east, west = nodes
    for _ in range(20):
        for agent in nodes:
            agent.read()
        east.open, west.open = east.size, 0
        await site.hear(east, waiting=2)
        await site.hear(west)
        await site.tick()
    assert site.shares == {"": 0, "east": 1, "west": 0}


async def test_callers_have_a_connection_while_a_silent_node_has_all_of_the_size(
    site: Site,
) -> None:
    site.resize(1)
    await site.credential()
    edge = await site.node("edge")
    edge.open = edge.size
    await site.hear(edge, waiting=2)
    assert site.shares == {"": 0, "edge": 1}
    # Its last report says that nobody uses it; what it has in use cannot be known.
    edge.open = 0
    await site.hear(edge)
    await site.tick(STALE_AFTER)

    async def borrow() -> None:
        async with site.control.manager.lease("acme", timeout=60):
            pass

    caller = asyncio.create_task(borrow(), name="caller")
    await eventually(lambda: site.pool and site.pool.metrics.waiting_requests)
    site.size = 2
    await site.tick()
    assert site.shares == {"": 1, "edge": 1}
    await caller
    # It reports again.
    for _ in range(3):
        edge.read()
        await site.hear(edge, waiting=1)
        await site.tick(STALE_AFTER)
    await eventually(lambda: site.pool and not site.pool.connections.open)
    site.size = 1
    site.check()


async def test_a_tenant_that_is_deleted_leaves_nothing_behind_once_nodes_have_obeyed(
    site: Site,
) -> None:
    await site.credential()
    edge = await site.node("edge")
    edge.open = 2
    await site.hear(edge)
    manager = site.control.manager
    tenant = site.control.state("acme").tenant
    manager.put_tenant(replace(tenant, deleting=True))
    await site.feed.refresh()
    assert edge.node.configuration is not None
    assert edge.node.configuration.entries == ()
    assert site.shares == {"": 1, "edge": 0}
    # A new tenant of the same name has what the node has left.
    manager.put_tenant(tenant)
    await site.feed.refresh()
    assert site.shares == {"": 1, "edge": 9}
    manager.put_tenant(replace(tenant, deleting=True))
    await site.feed.refresh()
    edge.version, edge.size, edge.open = edge.node.version, 0, 0
    await site.hear(edge, entries=())
    await site.tick()
    assert site.fleet.sizes.here("acme") is None


async def test_places_without_callers_are_idle_except_for_one(site: Site) -> None:
    await site.credential()
    east = await site.node("east")
    west = await site.node("west")
    for _ in range(2):
        for agent in (east, west):
            agent.read()
            await site.hear(agent)
        await site.tick()
    assert site.shares == {"": 1, "east": 5, "west": 4}
    idle_places = site.fleet.sizes.idle_places
    assert (idle_places("acme"), idle_places("beta")) == (2, 0)
    await site.hear(east, waiting=1)
    assert idle_places("acme") == 2
    await site.hear(west, waiting=1)
    assert idle_places("acme") == 1
    async with site.control.manager.lease("acme", timeout=60):
        await site.tick()
        assert idle_places("acme") == 0


async def test_a_paused_node_takes_nothing_from_others(site: Site) -> None:
    await site.credential()
    east, west = await site.node("east"), await site.node("west")
    east.read()
    await site.hear(east)
    west.node.declared = replace(west.node.declared, paused=True)
    await site.hear(west, waiting=99)
    assert site.shares == {"": 1, "east": 5, "west": 4}


async def test_a_node_leaves_everything_to_others_when_it_is_drained_or_deleted(
    site: Site,
) -> None:
    await site.credential()
    east, west = await site.node("east", limits={"local": 2}), await site.node("west")
    west.node.declared = replace(west.node.declared, draining=True)
    for _ in range(2):
        for agent in (east, west):
            agent.read()
            await site.hear(agent)
        await site.tick()
    assert site.shares == {"": 8, "east": 2, "west": 0}
    east.node.declared = replace(east.node.declared, draining=True)
    for _ in range(3):
        await site.hear(east)
        await site.tick()
        east.read()
    assert east.node.liability == 0
    async with site.fleet.removal(east.node):
        pass
    assert site.fleet.sizes.here("acme") == SIZE


async def test_the_limit_of_a_role_falls_once_no_place_has_more_than_the_smaller_size(
    site: Site,
) -> None:
    """Before that, a place with a small share could not log in."""
    control, limits = site.control, AsyncMock(spec=RoleLimits)
    declarations = NodeDeclarations(
        control.catalog,
        control.manager,
        site.fleet,
        site.feed,
        limits=limits,
        locks=control.locks,
    )
    await site.credential()
    edge = await site.node("edge")
    state = control.state("acme")

    def most() -> int:
        return control.manager.desired.most_connections(state.tenant.spec)

    assert most() == 2 * SIZE
    edge.open = 9
    await site.hear(edge)
    site.resize(3)
    await site.feed.refresh()
    assert most() == 2 * SIZE
    edge.read()
    await site.hear(edge)
    await site.tick()
    assert most() == 2 * SIZE
    assert not limits.apply.called
    edge.open = 2
    await site.hear(edge)
    await declarations.close(180.0)
    assert most() == 2 * 3
    limits.apply.assert_awaited_once_with(state)
    # A larger one is allowed at once.
    site.resize(SIZE)
    assert most() == 2 * SIZE
    await site.feed.refresh()
    site.resize(3)
    assert most() == 2 * SIZE


async def drain(site: Site, agent: Agent, *, draining: bool = True) -> None:
    """Drain a node without clients, or resume it, and wait until it is done."""
    agent.node.declared = replace(agent.node.declared, draining=draining)
    for _ in range(3):
        await site.hear(agent)
        await site.tick()
        agent.read()


async def test_a_node_that_is_resumed_after_a_drain_has_its_share_again(site: Site) -> None:
    await site.credential()
    east = await site.node("east")
    await drain(site, east)
    assert (east.node.liability, site.shares) == (0, {"": SIZE, "east": 0})
    await drain(site, east, draining=False)
    assert site.shares == {"": 1, "east": 9}


async def test_a_node_that_could_not_be_deleted_has_its_share_again(site: Site) -> None:
    await site.credential()
    east = await site.node("east")
    await drain(site, east)
    declarations = NodeDeclarations(
        site.control.catalog,
        site.control.manager,
        site.fleet,
        site.feed,
        limits=AsyncMock(spec=RoleLimits),
        locks=site.control.locks,
    )
    site.control.proxy.refuse()
    await site.control.proxy.reset()
    with pytest.raises(CatalogUnavailable):
        await declarations.delete(east.node, PERSON)
    await site.control.proxy.pass_through()
    await site.control.catalog.ping()
    await drain(site, east, draining=False)
    assert site.shares == {"": 1, "east": 9}
    await drain(site, east)
    await declarations.delete(east.node, PERSON)
    assert site.fleet.sizes.here("acme") is None
    assert not site.fleet.nodes
