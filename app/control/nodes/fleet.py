"""The fleet: all nodes, with their declarations, reports, sizes and allotments.

Each server's budget, and the size of each tenant, is divided again once a second and at each
report.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from time import monotonic

import structlog

from app.catalog.catalog import Catalog
from app.control.nodes.budget_division import BudgetDivision
from app.control.nodes.node_loads import NodeLoads
from app.control.nodes.size_split import SizeSplit
from app.control.nodes.stored_liabilities import StoredLiabilities
from app.control.nodes.tracked_node import TrackedNode
from app.control.nodes.unexplained_backends import UnexplainedBackends
from app.control.tenants.application_credentials import ApplicationCredentials
from app.control.time_slices import in_slices
from app.domain.errors import CatalogUnavailable, NodeNotFound
from app.domain.nodes.client_wait import WaitingClients
from app.domain.nodes.declaration import DeclaredNode
from app.domain.nodes.documents import ReportAnswer
from app.domain.nodes.node import NodeState
from app.domain.nodes.report import NodeReport
from app.domain.tenant import TenantSpec
from app.domain.wait import Wait
from app.pools.manager import TenantPoolManager

# Numbers of sessions and allotments grow over all leaders: each epoch has so many numbers of its
# own that nodes cannot use them up in years.
NUMBERS_OF_EPOCH = 1 << 32
# The most entries that a node may report beyond those in its configuration.
_MOST_ENTRIES = 10_000

_log = structlog.get_logger(__name__)


class Fleet:
    """The nodes of the service.

    Attributes:
        loads: what nodes have reported of each tenant.
        sizes: how each tenant's size is split over nodes and this process.
    """

    def __init__(
        self,
        catalog: Catalog,
        manager: TenantPoolManager,
        credentials: ApplicationCredentials,
        loads: NodeLoads,
        *,
        epoch: int,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Start without nodes; *epoch* is that of this instance's leadership."""
        self.loads = loads
        self._catalog = catalog
        self._manager = manager
        self._credentials = credentials
        self._clock = clock
        self._first_number = epoch * NUMBERS_OF_EPOCH
        self._last_number = self._first_number
        self.nodes: dict[str, TrackedNode] = {}
        self._backends = UnexplainedBackends(manager, clock)
        self._stored = StoredLiabilities(catalog)
        self._budgets = BudgetDivision(
            manager,
            self.nodes,
            self._backends,
            self._stored,
            next_number=self._next_number,
            clock=clock,
        )
        self.sizes = SizeSplit(manager, self.nodes, clock)
        manager.desired.share(
            nodes_of=self._nodes_of,
            most_here=self.sizes.here,
            size_in_force=self.sizes.size_in_force,
        )

    async def load(self) -> None:
        """Load what the catalog has; at start.

        Raises:
            CatalogUnavailable
        """
        for declared in await self._catalog.nodes.load():
            self.put(declared).forget_sizes()
        stored = await self._stored.load()
        for name, node in self.nodes.items():
            owed = {server: most for (owner, server), most in stored.items() if owner == name}
            if any(owed.values()):
                node.owe(owed, self._first_number)
        self._budgets.begin()

    # -- nodes ---------------------------------------------------------------------------------

    def put(self, declared: DeclaredNode) -> TrackedNode:
        """Add a node, or update it."""
        node = self.nodes.get(declared.spec.name)
        if node is None:
            node = self.nodes[declared.spec.name] = TrackedNode(declared, self._clock)
        node.redeclare(declared)
        return node

    @asynccontextmanager
    async def removal(self, node: TrackedNode) -> AsyncIterator[None]:
        """Forget a node at the end of the block unless it raises; the node gets nothing until then.

        Without nodes, this process has the whole budget.

        Raises:
            NodeInUse: it may have connections.
        """
        async with self._budgets.lock:
            node.begin_removal()
        try:
            yield
            async with self._budgets.lock:
                await self._forget(node)
        finally:
            node.end_removal()

    async def _forget(self, node: TrackedNode) -> None:
        self.nodes.pop(node.name, None)
        self.loads.forget(node.name)
        self.sizes.forget(node.name)
        await self.sizes.decide()
        self._stored.forget(node.name)
        if not self.nodes:
            self._budgets.end()

    def node(self, name: str) -> TrackedNode:
        """A declared node.

        Raises:
            NodeNotFound
        """
        found = self.nodes.get(name)
        if found is None:
            raise NodeNotFound(f"There is no node {name}.")
        return found

    def problem(self, node: TrackedNode) -> str:
        """Say in a sentence what keeps *node* from working; empty if nothing is known.

        Its agent reports its own problems. This process sees at once that a server is away.
        """
        if own := self.own_problem(node):
            return own
        known = (self._manager.servers.get(name) for name in sorted(node.servers))
        away = [server for server in known if server is not None and not server.is_available]
        return away[0].unavailable_detail if away else ""

    def own_problem(self, node: TrackedNode) -> str:
        """The same without what other nodes have, too: a server that is away."""
        if not node.problem and node.is_outdated:
            return f"It has not applied its configuration for {node.outdated_seconds:.0f} s."
        return node.problem

    def _nodes_of(self, tenant: TenantSpec) -> int:
        """The number of nodes on which connections of a tenant may be opened."""
        return sum(node.declared.spec.serves(tenant) for node in self.nodes.values())

    def addresses(self, tenant: TenantSpec) -> list[str]:
        """Hosts and ports of the ready nodes where a tenant's applications can connect."""
        return [
            node.declared.spec.address
            for _, node in sorted(self.nodes.items())
            if node.declared.spec.address
            and node.declared.spec.serves(tenant)
            and node.state is NodeState.READY
        ]

    def unexplained(self, server: str) -> int:
        """Back-ends of tenants' roles that are neither ours nor, as far as known, a node's."""
        return self._budgets.unexplained(server)

    # -- what agents say -------------------------------------------------------------------------

    async def begin_session(self, node: TrackedNode) -> int:
        """Start a session of *node*'s agent and return its number.

        What it may have is divided at once.
        """
        node.begin_session(self._next_number())
        self._budgets.note_demand(node)
        await self._budgets.redivide(node.commitments.keys() | node.servers)
        return node.last_session

    def wait_of(self, tenant: TenantSpec) -> Wait | None:
        """What a tenant's clients wait for on the node where most of them wait.

        None: none do, or its server is not in the settings.
        """
        found = [
            (reported.waiting, name, reported)
            for name, node in self.nodes.items()
            if node.is_reachable and node.latest is not None
            for reported in (node.latest.entries.get(tenant.id),)
            if reported is not None and reported.waiting
        ]
        server = self._manager.servers.get(tenant.server)
        if not found or server is None:
            return None
        _, name, reported = max(found, key=lambda each: each[:2])
        node = self.nodes[name]
        size = self._manager.desired.size(tenant.pool_id, tenant.strategy).max_size
        return WaitingClients(
            node=name,
            server=tenant.server,
            is_available=server.is_available,
            last_error=server.last_error,
            login_error=self._manager.connectors.refusal(tenant),
            state=reported.state,
            is_node_paused=node.declared.paused,
            in_use=reported.in_use,
            share=min(node.sizes.latest(tenant.id), reported.size),
            max_size=tenant.usable(size),
            demand=demand.connections if (demand := node.demands.get(tenant.server)) else 0,
            allotment=node.commitment(tenant.server).current,
            limit=node.limit(tenant.server),
        ).wait

    def open_on(self, server: str) -> int:
        """Connections to *server* that nodes have, as each one last reported."""
        nodes = [node for node in self.nodes.values() if node.state is not NodeState.GONE]
        reports = [node.latest.report.servers for node in nodes if node.latest]
        return sum(each[server].connected for each in reports if server in each)

    async def hear(self, node: TrackedNode, report: NodeReport) -> ReportAnswer:
        """Take in a report; return what *node* may have from now on.

        Raises:
            NodeSessionEnded, NodeSessionUnknown, NodeReportLate
        """
        report = self._of_node(node, report)
        heard = node.hear(report, most_sessions=self._last_number + 1)
        self.loads.hear(node.name, report.entries, heard.gone)
        self.sizes.hear(node, report.entries)
        await self.sizes.decide()
        # With thousands of entries, both halves take long: let other tasks run between them.
        await asyncio.sleep(0)
        self._budgets.note_demand(node)
        await self._budgets.redivide(report.servers)
        await self._note_uses(node, report.users)
        node.answered(report)
        return ReportAnswer(
            allotments=node.allotments(),
            version=node.version,
            wants_all=not heard.is_based,
        )

    async def _note_uses(self, node: TrackedNode, users: Iterable[str]) -> None:
        """Note that applications of *node*'s tenants are connected as *users*."""
        async for user in in_slices(users):
            credential = self._credentials.find(user)
            if credential is not None and credential.tenant in node.entries:
                self._credentials.used(credential)

    def _of_node(self, node: TrackedNode, report: NodeReport) -> NodeReport:
        """Remove from *report* foreign servers, and foreign entries beyond a limit.

        Keeping them takes memory, and an agent can name them as it likes.
        """
        servers = self._manager.servers.keys() | node.commitments.keys()
        entries = report.entries
        known = len(node.latest.entries) if node.latest is not None else 0
        if known + len(entries) > max(_MOST_ENTRIES, len(node.entries)):
            entries = tuple([entry for entry in entries if entry.name in node.entries])
        return replace(
            report,
            servers={name: each for name, each in report.servers.items() if name in servers},
            entries=entries,
        )

    # -- once a second ---------------------------------------------------------------------------

    async def run_once(self) -> None:
        """Check the servers' back-ends, release nodes that are gone, and divide again."""
        if not self.nodes:
            return
        names = {
            name for node in self.nodes.values() for name in node.commitments.keys() | node.servers
        }
        servers = [self._manager.servers[name] for name in names & self._manager.servers.keys()]
        await self._budgets.note_own_demands(servers)
        nodes = self.nodes.values()
        looks = (self._backends.look_at(server, nodes) for server in servers)
        await asyncio.gather(self._ask_catalog(), *looks)
        self._backends.note_absence(nodes)
        for node in nodes:
            if node.liability and node.state is NodeState.GONE:
                self._release(node)
        await self.sizes.run_once()
        await self._budgets.redivide(names)
        await self._budgets.save_fallen()

    async def _ask_catalog(self) -> None:
        """Find out whether the catalog is back, while nobody waits for the answer."""
        if not self._catalog.available:
            with suppress(CatalogUnavailable):
                await self._catalog.ping()

    def _release(self, node: TrackedNode) -> None:
        _log.warning("node gone, its connections are free", node=node.name)
        self._last_number = max(self._last_number, node.release())
        self.sizes.release(node.name)

    def _next_number(self) -> int:
        self._last_number += 1
        return self._last_number
