"""One budget for this process and its nodes: never exceeded, whoever is silent, late or new."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import asyncpg
import pytest
from structlog.testing import capture_logs

from app.catalog.nodes import Liabilities, Nodes
from app.control.nodes.feed import NodeFeed
from app.control.nodes.fleet import NUMBERS_OF_EPOCH, Fleet
from app.control.nodes.node_loads import NodeLoads
from app.control.nodes.tracked_node import TrackedNode
from app.domain.desired_pool import PoolChange
from app.domain.errors import (
    BudgetExceeded,
    NodeInUse,
    NodeReportLate,
    NodeSessionEnded,
    NodeSessionUnknown,
)
from app.domain.nodes.allotment import NO_ALLOTMENT, Allotment
from app.domain.nodes.configuration import NodeServer
from app.domain.nodes.declaration import NodeSpec
from app.domain.nodes.gate import EntryState
from app.domain.nodes.node import ABSENT_FOR, GONE_AFTER, STALE_AFTER, NodeState
from app.domain.nodes.report import EntryReport, ServerReport
from app.domain.pool import PoolConfig
from app.domain.tenant import PoolStrategy, TenantId
from app.domain.wait import WaitCause
from app.pools import driver
from app.pools.servers.node_reservation import NO_RESERVATION
from app.pools.servers.server import Server
from tests.catalog.values import event
from tests.fixtures.catalog import address_of
from tests.fixtures.clock import Clock
from tests.fixtures.control import PERSON, Control, wired
from tests.fixtures.pools import manager_on, provisioned
from tests.fixtures.postgres import Database
from tests.fixtures.proxy import FaultProxy
from tests.fixtures.reporting import entry, node_report
from tests.fixtures.turns import counted_turns
from tests.fixtures.waiting import eventually

ADDRESSES = {
    "local": NodeServer(host="127.0.0.1", port=5432, tls_mode="disable", allotment=NO_ALLOTMENT)
}
BUDGET = 12
TENANTS = ("acme", "beta", "coyote")


@dataclass
class Site:
    """A service with a fleet, and agents whose reports a test decides."""

    control: Control
    clock: Clock
    fleet: Fleet
    feed: NodeFeed
    sequences: Any = field(default_factory=lambda: count(1))

    @property
    def server(self) -> Server:
        return self.control.manager.servers["local"]

    async def node(self, name: str, **spec: Any) -> TrackedNode:
        declared, _ = await self.control.catalog.nodes.save(
            NodeSpec(name=name, **spec), paused=False, draining=False, event=event("node.created")
        )
        node = self.fleet.put(declared)
        await self.feed.refresh()
        return node

    async def connect(self) -> asyncpg.Connection:
        """A connection of the tenant acme that a node could have opened."""
        login = self.control.manager.isolations[PoolStrategy.PER_TENANT].login(
            self.server, self.control.state("acme").tenant.spec
        )
        return await driver.connect(replace(login, settings={}), timeout=60)

    async def hear(
        self,
        node: TrackedNode,
        *,
        busy: tuple[str, ...] = (),
        committed: int | None = None,
        generation: int | None = None,
        backends: frozenset[int] = frozenset(),
        **changes: Any,
    ) -> Mapping[str, Allotment]:
        """The report of an agent that obeys its allotments, unless the arguments say otherwise."""
        current = node.allotments().get("local", Allotment(generation=0, connections=0))
        used = current.connections if committed is None else committed
        entries = [_entry(name, busy=name in busy) for name in node.entries]
        report = node_report(
            node.last_session,
            next(self.sequences),
            entries,
            version=node.version,
            servers={
                "local": ServerReport(
                    generation=current.generation if generation is None else generation,
                    committed=used,
                    connected=used,
                )
            },
            backends={"local": backends},
        )
        answer = await self.fleet.hear(node, replace(report, **changes))
        self.check()
        return answer.allotments

    def check(self) -> None:
        """Check that this process and the nodes together can use no more than there is."""
        nodes = sum(node.liability for node in self.fleet.nodes.values())
        ours = max(self.server.budget.limit, self.server.budget.used)
        assert ours + nodes <= BUDGET, (ours, nodes)

    async def later(self, seconds: float) -> None:
        self.clock.now += seconds
        await self.fleet.run_once()
        self.check()


def _entry(name: str, *, busy: bool) -> EntryReport:
    return entry(name, size=3, connections=0, in_use=int(busy), clients=int(busy))


def fleet_of(control: Control, clock: Clock, epoch: int = 1) -> Site:
    fleet = Fleet(
        control.catalog,
        control.manager,
        control.credentials,
        NodeLoads(clock),
        epoch=epoch,
        clock=clock,
    )
    feed = NodeFeed(fleet, control.manager, control.credentials, ADDRESSES, epoch=epoch)
    return Site(control, clock, fleet, feed)


@pytest.fixture
async def site(
    database: Database, catalog_database: Database, scrub_roles: None
) -> AsyncIterator[Site]:
    """Tenants with pools of three connections on a budget of twelve."""
    configs = {PoolStrategy.PER_TENANT: PoolConfig.per_tenant(pool_size=3)}
    async with (
        manager_on(database, budget=BUDGET, configs=configs) as manager,
        FaultProxy(catalog_database.host, catalog_database.port) as proxy,
    ):
        address = replace(address_of(catalog_database), host=proxy.host, port=proxy.port)
        control = wired(manager, address, proxy)
        for name in TENANTS:
            await provisioned(manager, name)
        yield fleet_of(control, Clock())
        await control.catalog.close()


async def test_a_node_gets_what_its_tenants_need_and_this_process_keeps_the_rest(
    site: Site,
) -> None:
    node = await site.node("edge")
    await site.fleet.begin_session(node)
    site.check()
    # So that one tenant can open at once.
    assert (node.allotments()["local"].connections, site.server.budget.limit) == (3, 9)
    answer = await site.hear(node, busy=TENANTS)
    assert (answer["local"].connections, site.server.budget.limit) == (9, 3)
    stored = await site.control.catalog.nodes.load_liabilities()
    assert stored == {("edge", "local"): 9}
    # Two nodes: each gets as much as the other, and no more than is allowed.
    other = await site.node("other", limits={"local": 2})
    await site.fleet.begin_session(other)
    await site.hear(other, busy=TENANTS)
    await site.hear(node, busy=TENANTS)
    await site.hear(other, busy=TENANTS)
    assert other.allotments()["local"].connections == 2
    stored = await site.control.catalog.nodes.load_liabilities()
    assert sum(stored.values()) <= BUDGET


async def test_connections_come_back_once_the_node_has_given_them_up(site: Site) -> None:
    node = await site.node("edge")
    await site.fleet.begin_session(node)
    await site.hear(node, busy=TENANTS)
    manager = site.control.manager
    async with AsyncExitStack() as leases:
        waiting = [
            asyncio.create_task(leases.enter_async_context(manager.lease(name, timeout=60)))
            for name in TENANTS
            for _ in range(3)
        ]
        await eventually(lambda: site.server.budget.used == 3)
        await site.later(60)
        await site.hear(node)
        await site.later(20)
        answer = await site.hear(node, committed=9, generation=0)
        assert answer["local"].connections == 3
        # It has more open than it may have now: none of them is free yet.
        assert (node.liability, site.server.budget.limit) == (9, 3)
        await site.hear(node, committed=3)
        assert site.server.budget.limit == 9
        await asyncio.gather(*waiting)
        site.check()
        # While leases run, nothing is taken from them: the node waits until they end.
        await site.hear(node, busy=TENANTS, committed=3)
        assert node.liability == 3
    await eventually(lambda: site.server.budget.used <= site.server.budget.limit)
    await site.hear(node, busy=TENANTS)
    await eventually(lambda: site.server.budget.used <= site.server.budget.limit)
    await site.hear(node, busy=TENANTS)
    assert node.liability > 3


async def test_a_node_gives_up_what_it_does_not_need_for_a_min_size(site: Site) -> None:
    control, node = site.control, await site.node("edge")
    await site.fleet.begin_session(node)
    await site.hear(node, busy=TENANTS)
    await site.later(STALE_AFTER - 1)
    await site.hear(node)
    await site.hear(node)
    # It has no work, but keeps what nobody else lacks.
    assert (node.allotments()["local"].connections, site.server.budget.limit) == (7, 5)

    async def keep(tenant: str) -> None:
        change = PoolChange(min_size=3, max_size=3)
        await control.pool_operations.put(control.state(tenant), change, PERSON)

    await keep("acme")
    await keep("beta")
    await site.later(STALE_AFTER - 1)
    await site.hear(node)
    await site.hear(node)
    await eventually(lambda: site.server.budget.used == 6)
    # All but one connection of the node can be kept by pools.
    await control.tenant("dingo")
    change = PoolChange(min_size=6, max_size=6)
    with pytest.raises(BudgetExceeded, match=r"6 of the server's 12 .*, and nodes keep 1"):
        await control.pool_operations.put(control.state("dingo"), change, PERSON)
    await keep("coyote")
    # A silent node gives up nothing.
    await site.later(STALE_AFTER)
    assert site.server.reservation.kept == node.liability
    with pytest.raises(BudgetExceeded, match="all that a silent one may have"):
        await control.pool_operations.put(control.state("dingo"), change, PERSON)


async def test_what_pools_keep_and_what_nodes_may_have_is_the_budget(site: Site) -> None:
    control, node = site.control, await site.node("edge")
    for name in ("acme", "beta"):
        change = PoolChange(min_size=3, max_size=3)
        await control.pool_operations.put(control.state(name), change, PERSON)
    await eventually(lambda: site.server.budget.used == 6)
    await site.fleet.begin_session(node)
    await site.later(0)
    for _ in range(2):
        await site.hear(node, busy=TENANTS)
        server = site.server
        assert server.used + server.on_nodes <= server.limit == BUDGET
    # However many clients the node has, it can have no more.
    assert (server.used, server.budget.limit, server.on_nodes) == (6, 6, 6)
    assert node.allotments()["local"].connections == 6


async def test_a_node_gets_a_connection_although_pools_keep_the_whole_budget(site: Site) -> None:
    control, manager = site.control, site.control.manager
    for name in TENANTS:
        change = PoolChange(min_size=4, max_size=4)
        await control.pool_operations.put(control.state(name), change, PERSON)
    await eventually(lambda: site.server.budget.used == BUDGET)
    node = await site.node("edge")
    async with AsyncExitStack() as leases:
        for name in TENANTS:
            for _ in range(4):
                await leases.enter_async_context(manager.lease(name, timeout=60))
        await site.fleet.begin_session(node)
        await site.later(0)
        await site.hear(node, committed=0)
        # No lease is cut for it.
        assert (site.server.used, node.liability) == (BUDGET, 0)
    await eventually(lambda: site.server.used == BUDGET - 1)
    await site.hear(node, busy=TENANTS)
    # Pools keep all but one for each node, whatever its clients need.
    assert (site.server.used, node.liability, site.server.budget.limit) == (11, 1, 11)
    await eventually(lambda: site.server.budget.used == site.server.budget.limit)
    # The tenant that lost one is served by what others keep idle.
    async with AsyncExitStack() as leases:
        for name in TENANTS[:2]:
            for _ in range(4):
                await leases.enter_async_context(manager.lease(name, timeout=60))
        async with AsyncExitStack() as others:
            for _ in range(3):
                await others.enter_async_context(manager.lease(TENANTS[2], timeout=60))
            site.check()
    site.check()
    # Once the node has gone, pools keep their min_size again.
    await site.later(STALE_AFTER)
    await site.later(GONE_AFTER)
    await site.later(ABSENT_FOR)
    assert node.liability == 0
    await site.later(0)
    await eventually(lambda: site.server.budget.used == BUDGET)


async def test_clients_of_a_node_wait_for_the_budget_while_the_node_lacks_some(
    site: Site,
) -> None:
    control, node = site.control, await site.node("edge")
    for name in TENANTS:
        await control.credentials.create(control.state(name), "web", PERSON)
    queued = tuple(
        entry(name, state=EntryState.CLOSED, in_use=0, waiting=4, size=3) for name in TENANTS
    )
    acme = control.state("acme").tenant.spec
    await site.fleet.begin_session(node)
    for _ in range(2):
        await site.hear(node)
        await site.later(0)
        await site.feed.refresh()
    assert site.fleet.wait_of(acme) is None
    # It gets what it lacks: all tenants have their turn at once.
    await site.hear(node, entries=queued)
    wait = site.fleet.wait_of(acme)
    assert (site.server.is_contended, wait and wait.cause) == (False, WaitCause.CONNECTION)
    await control.tenant("dingo")
    await control.pool_operations.put(
        control.state("dingo"), PoolChange(min_size=8, max_size=8), PERSON
    )
    await site.later(0)
    await site.hear(node, entries=queued)
    assert node.allotments()["local"].connections == 4
    wait = site.fleet.wait_of(acme)
    assert (site.server.is_contended, wait and wait.cause) == (True, WaitCause.SERVER_BUDGET)
    # An operator's limit is another cause.
    await site.node("edge", limits={"local": 4})
    await site.hear(node, entries=queued)
    wait = site.fleet.wait_of(acme)
    assert (site.server.is_contended, wait and wait.cause) == (False, WaitCause.NODE_LIMIT)
    await site.hear(node)
    assert site.fleet.wait_of(acme) is None


async def test_what_clients_of_a_node_wait_for_is_unknown_once_their_server_has_left_the_settings(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    control, node = site.control, await site.node("edge")
    await site.fleet.begin_session(node)
    # The node has its earlier configuration until it fetches another one.
    await site.hear(node, entries=(entry("acme", state=EntryState.CLOSED, waiting=2, size=3),))
    acme = control.state("acme").tenant.spec
    monkeypatch.delitem(control.manager.servers, "local")
    assert site.fleet.loads.waiting_of(acme.id) == 2
    assert site.fleet.wait_of(acme) is None


async def test_an_agent_is_called_when_its_allotment_shrinks_because_others_wait_for_it(
    site: Site,
) -> None:
    node, other = await site.node("edge"), await site.node("other")
    await site.fleet.begin_session(node)
    await site.hear(node, busy=TENANTS)
    had = node.allotments()["local"].connections
    called = asyncio.create_task(site.feed.wait(node, node.version, 3600), name="its poll")
    await asyncio.sleep(0)
    await site.fleet.begin_session(other)
    await site.hear(other, busy=TENANTS)
    assert node.allotments()["local"].connections < had
    await eventually(called.done)
    # Once; and neither when its own report shows it, nor when it gets more.
    poll = asyncio.create_task(site.feed.wait(node, node.version, 3600), name="its next poll")
    await asyncio.sleep(0)
    declared = node.declared
    node.declared = replace(declared, spec=replace(declared.spec, limits={"local": 1}))
    assert (await site.hear(node, busy=TENANTS))["local"].connections == 1
    node.declared = declared
    await site.hear(node, busy=TENANTS)
    await site.hear(other)
    assert node.allotments()["local"].connections > 1
    await asyncio.sleep(0)
    assert not poll.done()
    poll.cancel()


async def test_while_a_node_is_deleted_others_go_on_and_it_is_given_nothing(site: Site) -> None:
    node, other = await site.node("edge"), await site.node("other")
    for each in (node, other):
        await site.fleet.begin_session(each)
    node.declared = replace(node.declared, draining=True)
    await site.hear(node)
    await site.hear(node)
    assert node.liability == 0
    async with site.fleet.removal(node):
        node.declared = replace(node.declared, draining=False)
        await site.hear(other, busy=TENANTS)
        await site.hear(node, busy=TENANTS)
        await site.hear(other, busy=TENANTS)
        assert (node.liability, other.allotments()["local"].connections) == (0, 9)
    assert list(site.fleet.nodes) == ["other"]


async def test_an_agent_is_called_if_an_allotment_shrank_before_it_saw_the_larger_one(
    site: Site,
) -> None:
    node = await site.node("edge", limits={"local": 4})
    await site.fleet.begin_session(node)
    await site.hear(node, busy=TENANTS)
    had = node.allotments()["local"]
    declared = node.declared
    for most in (8, 6):
        node.declared = replace(declared, spec=replace(declared.spec, limits={"local": most}))
        if most == 8:
            await site.later(1)
    assert node.allotments()["local"].connections == 8 > had.connections
    node.is_called = False
    # The answer to its report of what it had gives it less than what it never saw.
    answer = await site.hear(
        node, busy=TENANTS, generation=had.generation, committed=had.connections
    )
    assert (answer["local"].connections, node.liability) == (6, 8)
    assert node.is_called
    await site.feed.wait(node, node.version, 3600)
    await site.hear(node, busy=TENANTS)
    assert (node.liability, node.is_called) == (6, False)


async def test_without_the_catalog_no_node_gets_more(site: Site) -> None:
    node = await site.node("edge")
    await site.fleet.begin_session(node)
    await site.control.proxy.cut()
    answer = await site.hear(node, busy=TENANTS)
    assert (answer["local"].connections, node.liability) == (3, 3)
    await site.control.proxy.pass_through()
    await site.later(0)
    answer = await site.hear(node, busy=TENANTS)
    assert answer["local"].connections == 9
    assert (await site.control.catalog.nodes.load_liabilities())["edge", "local"] == 9


async def test_reports_are_answered_while_the_catalog_swallows_what_it_is_asked(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever writes first waits for it; the others do not, and learn the outcome."""
    catalog, asked = site.control.catalog, 0
    save = Nodes.save_liabilities

    async def count(nodes: Nodes, liabilities: Liabilities) -> None:
        nonlocal asked
        asked += 1
        await save(nodes, liabilities)

    nodes = [await site.node(name) for name in ("edge", "other", "third")]
    for node in nodes:
        await site.fleet.begin_session(node)
        await site.hear(node, busy=TENANTS[:1])
    had = {node.name: node.liability for node in nodes}
    with monkeypatch.context() as patch:
        patch.setattr("app.control.nodes.budget_division._PATIENCE", 0.05)
        patch.setattr(catalog._database, "_deadline", 1.0)
        patch.setattr(Nodes, "save_liabilities", count)
        site.control.proxy.black_hole()
        first = asyncio.create_task(site.hear(nodes[0], busy=TENANTS), name="the first report")
        await eventually(lambda: asked)
        for node in nodes[1:]:
            await site.hear(node, busy=TENANTS)
        assert not first.done()
        await first
        for node in nodes:
            await site.hear(node, busy=TENANTS)
        # Nobody asked again: that is done once for all, beside the reports.
        assert not catalog.available
        assert asked == 1
        assert all(node.liability <= had[node.name] for node in nodes)
    await site.control.proxy.pass_through()
    await site.later(0)
    assert catalog.available
    for _ in range(5):
        for node in nodes:
            await site.hear(node, busy=TENANTS)
    assert sum(node.liability for node in nodes) > sum(had.values())
    stored = await catalog.nodes.load_liabilities()
    assert all(stored[node.name, "local"] >= node.liability for node in nodes)


async def test_a_write_that_is_cancelled_may_have_happened(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the next leader would count fewer connections than there are."""
    node = await site.node("edge")
    await site.fleet.begin_session(node)
    await site.hear(node, busy=TENANTS)
    node.declared = replace(node.declared, draining=True)
    for _ in range(2):
        await site.hear(node)
    assert node.liability == 0
    save, is_written = Nodes.save_liabilities, asyncio.Event()

    async def save_and_hang(nodes: Nodes, liabilities: Liabilities) -> None:
        await save(nodes, liabilities)
        is_written.set()
        await asyncio.Event().wait()

    with monkeypatch.context() as patch:
        patch.setattr(Nodes, "save_liabilities", save_and_hang)
        tick = asyncio.create_task(site.later(20), name="a tick that takes too long")
        await is_written.wait()
        tick.cancel()
        await asyncio.gather(tick, return_exceptions=True)
    node.declared = replace(node.declared, draining=False)
    await site.hear(node, busy=TENANTS)
    assert node.liability == 9
    assert (await site.control.catalog.nodes.load_liabilities())["edge", "local"] == 9


async def test_a_new_leader_counts_what_an_earlier_one_sent_until_it_no_longer_applies(
    site: Site,
) -> None:
    node = await site.node("edge")
    session = await site.fleet.begin_session(node)
    await site.hear(node, busy=TENANTS)
    later = fleet_of(site.control, site.clock, epoch=2)
    await later.fleet.load()
    await later.feed.refresh()
    known = later.fleet.node("edge")
    assert (known.liability, site.server.budget.limit) == (9, 3)
    # An answer of the earlier leader may still be on its way.
    answer = await later.hear(known, session=session, committed=0, generation=10**6)
    assert known.liability == 9
    assert answer["local"].generation > node.allotments()["local"].generation
    await later.hear(known, committed=0)
    assert known.liability == known.allotments()["local"].connections
    assert await later.fleet.begin_session(known) > session


async def test_a_new_leader_allots_nothing_before_it_has_divided_what_there_is(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is stored may be more than a node has, and more than a budget that was lowered since."""
    node = await site.node("edge")
    await site.fleet.begin_session(node)
    await site.hear(node, busy=TENANTS)
    given = node.allotments()["local"]
    later = fleet_of(site.control, site.clock, epoch=2)
    await later.fleet.load()
    await later.feed.refresh()
    known = later.fleet.node("edge")
    offered = later.feed.latest(known)
    assert offered is not None
    assert offered.servers["local"].allotment == NO_ALLOTMENT
    with monkeypatch.context() as patch:
        patch.setattr(site.server, "limits", None)  # it has not answered yet
        assert await later.hear(known, committed=3, generation=given.generation) == {}
        assert known.liability == 9
        # An agent that has just started knows none, and may go on with that.
        answer = await later.hear(known, committed=0, generation=0)
        assert answer["local"].connections == 9
    answer = await later.hear(known, busy=TENANTS, committed=3, generation=given.generation)
    assert answer["local"].generation > given.generation
    assert answer["local"].connections == 9


async def test_a_silent_node_holds_what_it_has_until_it_is_gone(site: Site) -> None:
    node = await site.node("edge")
    await site.fleet.begin_session(node)
    await site.hear(node, busy=TENANTS)
    states = [node.state]
    await site.later(STALE_AFTER)
    states.append(node.state)
    assert states == [NodeState.READY, NodeState.STALE]
    connection = await site.connect()
    try:
        for _ in range(20):
            await site.later(4)
            assert node.liability == 9
        with pytest.raises(NodeInUse):
            async with site.fleet.removal(node):
                pass
    finally:
        await connection.close()
    began = site.clock.now
    while node.liability:
        await site.later(1)
        assert site.clock.now < began + 2 * ABSENT_FOR
    assert site.clock.now >= began + ABSENT_FOR
    assert (node.state, site.server.budget.limit) == (NodeState.GONE, BUDGET)
    # It is back with what it had: it holds that until it has heard that it has nothing.
    await site.hear(node, committed=0, generation=1)
    assert node.state is NodeState.READY
    await site.fleet.begin_session(node)
    await site.hear(node, committed=0)


async def test_backends_that_are_there_at_the_first_look_count_at_once(site: Site) -> None:
    """A tenant can have renamed its connection before the leader that had it died."""
    node = await site.node("edge")
    await site.fleet.begin_session(node)
    site.clock.now += STALE_AFTER
    async with AsyncExitStack() as stack:
        for _ in range(5):
            stack.push_async_callback((await site.connect()).close)
        await site.later(0)
        # As many as the node may have are perhaps its own.
        assert (node.liability, site.fleet.unexplained("local")) == (3, 2)
        assert site.server.budget.limit + node.liability == BUDGET - 2


async def test_backends_that_belong_to_none_count_as_used(site: Site) -> None:
    node = await site.node("edge")
    await site.fleet.begin_session(node)
    await site.later(0)
    connection = await site.connect()
    try:
        await site.later(0)
        assert site.fleet.unexplained("local") == 0
        await site.later(4)
        assert site.fleet.unexplained("local") == 1
        assert site.server.budget.limit + node.liability == BUDGET - 1
        reported = frozenset({connection.get_server_pid()})
        await site.hear(node, backends=reported)
        await site.later(0)
        assert site.fleet.unexplained("local") == 0
    finally:
        await connection.close()

    async def is_gone() -> bool:
        await site.later(0)
        return not site.fleet._backends._unreported["local"]

    await eventually(is_gone)
    async with site.control.manager.lease("acme"):
        await site.later(4)
        await site.later(4)
        assert site.fleet.unexplained("local") == 0


async def test_the_workers_of_a_parallel_query_belong_to_its_connection(site: Site) -> None:
    node = await site.node("edge")
    await site.fleet.begin_session(node)
    await site.later(0)
    async with _closing(site) as connection:
        await connection.execute("CREATE TABLE few AS SELECT FROM generate_series(1, 3)")
        parallel = "SET debug_parallel_query = on; SELECT count(pg_sleep(1000000)) FROM few"
        running = asyncio.create_task(connection.execute(parallel))
        pid = connection.get_server_pid()

        async def has_worker() -> bool:
            async with site.server.admin() as admin:
                look = "SELECT count(*) FROM pg_stat_activity WHERE leader_pid = $1"
                return bool(await admin.fetchval(look, pid))

        await eventually(has_worker)
        for _ in range(3):
            await site.hear(node, backends=frozenset({pid}))
            await site.later(4)
        assert not running.done()
        assert site.fleet.unexplained("local") == 0
        running.cancel()


async def test_a_statement_that_its_client_left_for_ever_ends_when_others_need_its_place(
    site: Site,
) -> None:
    """A client can forbid its back-end to notice that it has gone."""
    nodes = [await site.node(name) for name in ("edge", "west")]
    other = nodes[1]
    for node in nodes:
        await site.fleet.begin_session(node)
    await site.later(0)
    async with AsyncExitStack() as stack:
        abandoned, known, idle = [await stack.enter_async_context(_closing(site)) for _ in range(3)]
        # Postgres does not say whether it runs a statement.
        async with site.server.admin() as admin:
            await admin.execute("ALTER ROLE tenant_acme SET track_activities = off")
        untracked = await stack.enter_async_context(_closing(site))
        running = [asyncio.create_task(each.execute(_ENDLESS)) for each in (abandoned, known)]
        for task in running:
            stack.callback(task.cancel)
        await _runs(site, abandoned, known)
        mine = frozenset({known.get_server_pid()})
        waits: dict[str, Any] = {"entries": _QUEUED}

        async def pass_by(times: int, **reported: Any) -> None:
            for _ in range(times):
                await site.hear(nodes[0], backends=mine, **reported)
                await site.later(2)

        await site.hear(other)
        await pass_by(8)
        assert not running[0].done(), "nobody needs its place"
        # The other node was last heard when it might have had this connection.
        await pass_by(2, **waits)
        assert site.server.is_contended
        assert not running[0].done()
        # With a problem it repeats the last back-ends that its pooler has shown, or none.
        with capture_logs() as logs:
            await site.hear(other, problem="The pooler does not answer.")
            await pass_by(1, **waits)
        assert "back-ends without a client ended" not in {each["event"] for each in logs}
        await site.hear(other)
        await pass_by(1, **waits)
        await eventually(running[0].done)
        assert "administrator command" in str(running[0].exception())
        await pass_by(8, **waits)
        assert not running[1].done()
        assert await idle.fetchval("SELECT 1") == 1
        assert await untracked.fetchval("SHOW track_activities") == "off"


_ENDLESS = "SET client_connection_check_interval = 0; SELECT pg_sleep(1000000)"
_QUEUED = tuple(
    entry(name, state=EntryState.CLOSED, in_use=0, waiting=40, size=30) for name in TENANTS
)


@asynccontextmanager
async def _closing(site: Site) -> AsyncIterator[asyncpg.Connection]:
    connection = await site.connect()
    try:
        yield connection
    finally:
        connection.terminate()


async def _runs(site: Site, *connections: asyncpg.Connection) -> None:
    pids = [each.get_server_pid() for each in connections]
    query = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY($1) AND wait_event = 'PgSleep'"

    async def all_of_them() -> bool:
        async with site.server.admin() as admin:
            return bool(await admin.fetchval(query, pids) == len(pids))

    await eventually(all_of_them)


async def test_without_nodes_nothing_is_said_of_what_was_there(site: Site) -> None:
    node = await site.node("edge", limits={"local": 0})
    await site.fleet.begin_session(node)
    connection = await site.connect()
    await site.later(0)
    assert site.fleet.unexplained("local") == 1
    await connection.close()
    async with site.fleet.removal(node):
        pass
    # Its last report was on its way.
    await site.hear(node)
    await site.later(4)
    assert (site.fleet.unexplained("local"), site.server.budget.limit) == (0, BUDGET)
    assert site.server.reservation == NO_RESERVATION


async def test_reports_are_taken_in_order_and_of_the_latest_agent(site: Site) -> None:
    node = await site.node("edge")
    first = await site.fleet.begin_session(node)
    await site.hear(node, sequence=5)
    for sequence in (4, 5):
        with pytest.raises(NodeReportLate):
            await site.hear(node, sequence=sequence)
    second = await site.fleet.begin_session(node)
    assert second > first
    with pytest.raises(NodeSessionEnded):
        await site.hear(node, session=first, sequence=99)
    for session in (second + 1, second + NUMBERS_OF_EPOCH):
        with pytest.raises(NodeSessionUnknown):
            await site.hear(node, session=session, sequence=99)
    await site.hear(node, session=second, sequence=1)


async def test_a_tenant_that_is_reported_twice_counts_once(site: Site) -> None:
    node = await site.node("edge")
    await site.fleet.begin_session(node)
    entries = tuple(_entry("acme", busy=True) for _ in range(9))
    answer = await site.hear(node, entries=entries)
    assert answer["local"].connections == 3


async def test_what_an_agent_says_beyond_its_node_is_forgotten(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.control.nodes.fleet._MOST_ENTRIES", 2)
    control = site.control
    for name in ("acme", "beta"):
        await control.credentials.create(control.state(name), "web", PERSON)
    control.manager.put_tenant(
        replace(
            (beta := control.state("beta").tenant),
            spec=replace(beta.spec, labels={"plan": "silver"}),
        )
    )
    node = await site.node("edge", selector={"plan": "gold"})
    await site.fleet.begin_session(node)
    strange = ServerReport(generation=1, committed=5, connected=5)
    for number in range(9):
        await site.hear(
            node,
            version=1,
            users=frozenset({"beta.web"}),
            servers={f"s{number}": strange},
            entries=(_entry(f"t{number}", busy=True),),
        )
    assert control.credentials.get(TenantId("beta"), "web").last_used_at is None
    assert node.commitments.keys() <= {"local"}
    assert node.latest is not None
    assert len(node.latest.entries) == 2
    assert site.fleet.loads.find("t8") is None


async def test_a_drained_node_gives_everything_back_once_its_clients_have_left(
    site: Site,
) -> None:
    node = await site.node("edge")
    await site.fleet.begin_session(node)
    await site.hear(node, busy=TENANTS)
    node.declared = replace(node.declared, draining=True)
    await site.hear(node, busy=TENANTS)
    assert node.liability == 9
    await site.hear(node)
    await site.hear(node)
    assert (node.liability, site.server.budget.limit) == (0, BUDGET)
    async with site.fleet.removal(node):
        pass
    await site.later(1)
    assert site.server.budget.limit == BUDGET


async def test_uses_of_credentials_are_noted_as_agents_report_them(site: Site) -> None:
    control = site.control
    await control.credentials.create(control.state("acme"), "web", PERSON)
    node = await site.node("edge")
    await site.fleet.begin_session(node)
    await site.hear(node, users=frozenset({"acme.web", "acme.unknown", "x"}))
    [credential] = control.credentials.of(TenantId("acme"))
    assert credential.last_used_at is not None


async def test_a_report_is_taken_in_and_its_demand_noted_in_two_turns(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await site.node("edge")
    await site.fleet.begin_session(node)
    async with counted_turns() as turns:
        monkeypatch.setattr(node, "hear", turns.counted(node.hear))
        budgets = site.fleet._budgets
        monkeypatch.setattr(budgets, "note_demand", turns.counted(budgets.note_demand))
        await site.hear(node)
    assert (turns.calls, turns.most) == (2, 1)


async def test_others_have_their_turn_while_users_of_a_report_are_looked_up(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await site.node("edge")
    await site.fleet.begin_session(node)
    await site.control.credentials.create(site.control.state("acme"), "web", PERSON)
    users = frozenset({"acme.web", *(f"acme.{number}" for number in range(1200))})
    async with counted_turns() as turns:
        find = turns.counted(site.control.credentials.find)
        monkeypatch.setattr(site.control.credentials, "find", find)
        await site.hear(node, users=users)
    assert turns.calls == len(users)
    assert turns.most <= 500
    used = site.control.credentials.find("acme.web")
    assert used is not None
    assert used.last_used_at is not None
