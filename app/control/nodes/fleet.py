"""All nodes, and the division of each server's budget among them and this process.

Once a second, and at each report, connections move to where they are lacking. What a node may have
is in the catalog before it is sent, so that the next leader of the service counts it, too. A
back-end of a tenant's role that is neither ours nor reported by a node counts as used.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from time import monotonic

import structlog

from app.catalog.catalog import Catalog
from app.catalog.nodes import Liabilities
from app.control.background import in_slices
from app.control.nodes.demand import Demand
from app.control.nodes.node_loads import NodeLoads
from app.control.nodes.size_split import SizeSplit
from app.control.nodes.tracked_node import TrackedNode
from app.control.nodes.unexplained_backends import UnexplainedBackends
from app.control.tenants.application_credentials import ApplicationCredentials
from app.domain.errors import CatalogUnavailable, NodeNotFound
from app.domain.nodes.allotment import Allotment, Commitment
from app.domain.nodes.declaration import DeclaredNode
from app.domain.nodes.division import Holder, divide
from app.domain.nodes.documents import ReportAnswer
from app.domain.nodes.node import NodeState
from app.domain.nodes.report import NodeReport
from app.domain.tenant import TenantSpec
from app.pools.manager import TenantPoolManager
from app.pools.server import Server

# Numbers of sessions and allotments grow over all leaders: each epoch has so many of its own, more
# than nodes can use up in years.
NUMBERS_OF_EPOCH = 1 << 32
# As a holder this process has a name that no node can have.
_PROCESS = ""
# Of a holder without work, against others: it gets what it could use at once only if there is more
# than enough.
_IDLE_WEIGHT = 0.1
# What this process should have while it has no work: a pool of the usual size.
_PROCESS_FLOOR = 5
# Seconds between two writes of liabilities that have fallen: to know more than true is safe.
_SAVE_INTERVAL = 10.0
# Entries that a node may report without having them by its configuration.
_MOST_ENTRIES = 10_000
# Users or pools looked at between two turns of the event loop.
_SLICE = 500
# Seconds for which a report waits for others' divisions, and those of one for the catalog. Agents
# hear an answer within `ANSWER_SECONDS`.
_PATIENCE = 2.0

_log = structlog.get_logger(__name__)


class Fleet:
    """The nodes of the service.

    Attributes:
        sizes: what of each tenant's size they and this process may have.
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
        """Begin without nodes; *epoch* is that of this instance's leadership."""
        self._loads = loads
        self._catalog = catalog
        self._manager = manager
        self._credentials = credentials
        self._clock = clock
        self._first_number = epoch * NUMBERS_OF_EPOCH
        self._last_number = self._first_number
        self.nodes: dict[str, TrackedNode] = {}
        self._own: defaultdict[str, Commitment] = defaultdict(Commitment)
        self._own_demand: defaultdict[str, Demand] = defaultdict(Demand)
        self._saved: dict[tuple[str, str], int] = {}
        self._saved_at = 0.0
        self._lock = asyncio.Lock()
        # Servers to divide, in the order in which that was asked for.
        self._due: dict[str, None] = {}
        # Until when the division under way may write to the catalog.
        self._saves_until = 0.0
        self._backends = UnexplainedBackends(manager, clock)
        self.sizes = SizeSplit(manager, self.nodes, clock)
        manager.nodes_of = self._nodes_of

    async def load(self) -> None:
        """Load what the catalog has; at start.

        Raises:
            CatalogUnavailable
        """
        for declared in await self._catalog.nodes.load():
            self.put(declared).forget_sizes()
        self._saved = dict(await self._catalog.nodes.load_liabilities())
        for name, node in self.nodes.items():
            owed = {server: most for (owner, server), most in self._saved.items() if owner == name}
            if any(owed.values()):
                node.owe(owed, self._first_number)
        for server in self._manager.servers.values():
            server.share(others=self._owed(server.name), most=None)

    # -- nodes ---------------------------------------------------------------------------------

    def put(self, declared: DeclaredNode) -> TrackedNode:
        """Learn of a node, or of a change to it."""
        node = self.nodes.get(declared.spec.name)
        if node is None:
            node = self.nodes[declared.spec.name] = TrackedNode(declared, self._clock)
        node.declared = declared
        return node

    @asynccontextmanager
    async def removal(self, node: TrackedNode) -> AsyncIterator[None]:
        """Forget a node at the end of the block, unless that fails; it is given nothing meanwhile.

        Without any node this process has all there is.

        Raises:
            NodeInUse: it may have connections.
        """
        async with self._lock:
            node.check_unused()
            node.is_leaving = True
        try:
            yield
            async with self._lock:
                await self._forget(node)
        finally:
            node.is_leaving = False

    async def _forget(self, node: TrackedNode) -> None:
        self.nodes.pop(node.name, None)
        self._loads.forget(node.name)
        self.sizes.forget(node.name)
        await self.sizes.decide()
        self._saved = {key: value for key, value in self._saved.items() if key[0] != node.name}
        if not self.nodes:
            self._own.clear()
            self._backends.forget()
            for server in self._manager.servers.values():
                server.share(others=0, most=None)

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
        """What keeps *node* from its work, in a sentence; empty: nothing that is known here.

        Its agent knows what it cannot do itself. That a server is away is seen here at once.
        """
        if node.latest is not None and node.latest.report.problem:
            return node.latest.report.problem
        known = (self._manager.servers.get(name) for name in sorted(node.servers))
        away = [server for server in known if server is not None and not server.is_available]
        return away[0].unavailable_detail if away else ""

    def _nodes_of(self, tenant: TenantSpec) -> int:
        """On how many nodes connections of a tenant may be opened."""
        return sum(node.declared.spec.serves(tenant) for node in self.nodes.values())

    def addresses(self, tenant: TenantSpec) -> list[str]:
        """Hosts and ports at which applications of a tenant can connect."""
        return [
            node.declared.spec.address
            for _, node in sorted(self.nodes.items())
            if node.declared.spec.address
            and node.declared.spec.serves(tenant)
            and not node.declared.draining
        ]

    def unexplained(self, server: str) -> int:
        """Back-ends of tenants' roles that are neither ours nor, as far as is known, a node's."""
        return self._backends.count(server, self.nodes.values())

    # -- what agents say -------------------------------------------------------------------------

    async def begin_session(self, node: TrackedNode) -> int:
        """The number of a new session of *node*'s agent; it has what it could use at once then."""
        node.begin_session(self._next_number())
        self._note_demand(node)
        await self._divide_all(node.commitments.keys() | node.servers)
        return node.last_session

    async def hear(self, node: TrackedNode, report: NodeReport) -> ReportAnswer:
        """Take in a report; what *node* may have from now on.

        Raises:
            NodeSessionEnded, NodeReportLate
        """
        report = self._of_node(node, report)
        heard = node.hear(report, most_sessions=self._first_number + NUMBERS_OF_EPOCH)
        self._loads.hear(node.name, report.entries, heard.gone)
        self.sizes.hear(node, report.entries)
        await self.sizes.decide()
        self._note_demand(node)
        await self._divide_all(report.servers)
        await self._note_uses(node, report.users)
        node.answered(report)
        return ReportAnswer(
            allotments=node.allotments(),
            version=node.version,
            wants_all=not heard.is_based,
        )

    async def _note_uses(self, node: TrackedNode, users: Iterable[str]) -> None:
        """Applications of *node*'s tenants are connected as these *users*."""
        async for user in in_slices(users, _SLICE):
            credential = self._credentials.find(user)
            if credential is not None and credential.tenant in node.entries:
                self._credentials.used(credential)

    def _of_node(self, node: TrackedNode, report: NodeReport) -> NodeReport:
        """*report* without servers, and without too many entries, that are not the node's.

        What is kept of them takes memory, and an agent names them as it likes.
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
        """Look at the servers' back-ends, release nodes that are gone, and divide."""
        if not self.nodes:
            return
        names = {
            name for node in self.nodes.values() for name in node.commitments.keys() | node.servers
        }
        servers = [self._manager.servers[name] for name in names & self._manager.servers.keys()]
        await self._note_own_demands(servers)
        nodes = self.nodes.values()
        looks = (self._backends.look_at(server, nodes) for server in servers)
        await asyncio.gather(self._ask_catalog(), *looks)
        self._backends.note_absence(nodes)
        for node in nodes:
            if node.liability and node.state is NodeState.GONE:
                self._release(node)
        await self.sizes.run_once()
        await self._divide_all(names)
        await self._save_fallen()

    async def _ask_catalog(self) -> None:
        """Learn whether the catalog is back, while nobody waits for the answer."""
        if not self._catalog.available:
            with suppress(CatalogUnavailable):
                await self._catalog.ping()

    def _release(self, node: TrackedNode) -> None:
        _log.warning("node gone, its connections are free", node=node.name)
        for server, commitment in node.commitments.items():
            released = commitment.release()
            node.commitments[server] = released
            self._last_number = max(self._last_number, released.generation)
        node.forget_sizes()
        self.sizes.release(node.name)

    # -- demand ----------------------------------------------------------------------------------

    def _note_demand(self, node: TrackedNode) -> None:
        """What *node* needs so that all its tenants with work can have connections, or one can."""
        latest = node.latest
        busy: defaultdict[str, int] = defaultdict(int)
        weight: defaultdict[str, float] = defaultdict(float)
        for reported in latest.entries.values() if latest is not None else ():
            entry = node.entries.get(reported.name)
            if entry is not None and not entry.paused and node.reports.is_busy(reported):
                busy[entry.server] += entry.size
                weight[entry.server] += entry.weight
        for server in node.servers | node.demands.keys():
            demand = node.demands.setdefault(server, Demand())
            wanted = max(busy[server], node.largest.get(server, 0))
            demand.note(wanted, weight[server], self._clock())

    async def _note_own_demands(self, servers: Iterable[Server]) -> None:
        wanted: defaultdict[str, int] = defaultdict(int)
        async for pool in in_slices(list(self._manager.pools()), _SLICE):
            wanted[pool.server.name] += min(pool.most, pool.demand)
        for server in servers:
            weight, most = float(server.budget.contenders.weight), wanted[server.name]
            self._own_demand[server.name].note(max(most, _PROCESS_FLOOR), weight, self._clock())

    # -- division --------------------------------------------------------------------------------

    async def _divide_all(self, servers: Iterable[str]) -> None:
        """Divide *servers*, or leave that to the division under way: agents wait for answers."""
        self._due |= dict.fromkeys(sorted(set(servers) & self._manager.servers.keys()))
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._lock.acquire()
        except TimeoutError:
            return
        try:
            self._saves_until = self._clock() + _PATIENCE
            while self._due:
                name = next(iter(self._due))
                del self._due[name]
                await self._divide(self._manager.servers[name])
        finally:
            self._lock.release()

    async def _divide(self, server: Server) -> None:
        """Move what is lacking; twice, because what this process gives up is free at once.

        Not before the server has been reached: until then nodes keep what they have. And not once
        the last node is forgotten.
        """
        if server.limits is None or not self.nodes:
            return
        for _ in range(2):
            self._obey(server)
            changes = dict(divide(self._budget(server), self._holders(server)))
            if _PROCESS in changes:
                self._give_process(server, changes.pop(_PROCESS))
            if not await self._send(server.name, changes):
                break
        else:
            # What nobody lacks is this process'.
            own = self._own[server.name]
            free = self._budget(server) - own.liability - self._owed(server.name)
            if free > 0:
                self._give_process(server, own.current + free)
        self._obey(server)

    def _budget(self, server: Server) -> int:
        return server.divisible - self.unexplained(server.name)

    def _holders(self, server: Server) -> list[Holder]:
        demand = self._own_demand[server.name]
        own = Holder(
            name=_PROCESS,
            demand=max(demand.connections, _PROCESS_FLOOR),
            commitment=self._own[server.name],
            weight=max(demand.weight, _IDLE_WEIGHT),
        )
        return [own, *(self._holder(node, server.name) for node in self.nodes.values())]

    def _holder(self, node: TrackedNode, server: str) -> Holder:
        demand = node.demands.get(server) or Demand()
        return Holder(
            name=node.name,
            demand=demand.connections,
            commitment=node.commitment(server),
            weight=max(demand.weight, _IDLE_WEIGHT),
            limit=node.limit(server),
            reachable=node.is_reachable,
        )

    async def _send(self, server: str, changes: Mapping[str, int]) -> bool:
        """Give nodes their new allotments; False if the catalog is away, and some must wait."""
        sent = {
            name: Allotment(generation=self._next_number(), connections=connections)
            for name, connections in changes.items()
        }
        owed = {
            (name, server): commitment.liability
            for name, node in self.nodes.items()
            for known in (node.commitment(server),)
            for commitment in (known.send(sent[name]) if name in sent else known,)
        }
        # All of them: what has fallen for one is what another one gets, also after a restart.
        grown = {name for name in sent if owed[name, server] > self._saved.get((name, server), 0)}
        is_late = self._clock() > self._saves_until
        if grown and (is_late or not await self._save(owed)):
            for name in grown:
                del sent[name]
        for name, allotment in sent.items():
            # A report may have come, or the node gone, while the catalog was written.
            if (node := self.nodes.get(name)) is not None:
                node.send(server, allotment)
        return len(sent) == len(changes)

    def _give_process(self, server: Server, connections: int) -> None:
        own = self._own[server.name]
        allotment = Allotment(generation=own.generation + 1, connections=connections)
        self._own[server.name] = own.send(allotment)
        self._obey(server)

    def _obey(self, server: Server) -> None:
        """Keep this process' pools to its allotment, and never to more than nodes leave of all."""
        others = self._owed(server.name) + self.unexplained(server.name)
        own = self._own[server.name]
        if not own.generation:
            most = max(0, server.divisible - others)
            own = own.send(Allotment(generation=1, connections=most))
        server.share(others=others, most=own.current)
        self._own[server.name] = own.acknowledge(own.generation, server.budget.used)

    def _owed(self, server: str) -> int:
        """What nodes can have of a server, together."""
        return sum(node.commitment(server).liability for node in self.nodes.values())

    def _next_number(self) -> int:
        self._last_number += 1
        return self._last_number

    # -- what the next leader must know ----------------------------------------------------------

    async def _save(self, liabilities: Liabilities) -> bool:
        """Store them; whether the catalog could be reached. While it is away it is not asked."""
        if not self._catalog.available:
            return False
        # Until it has answered, it may have either.
        for each, connections in liabilities.items():
            self._saved[each] = min(connections, self._saved.get(each, 0))
        try:
            await self._catalog.nodes.save_liabilities(liabilities)
        except CatalogUnavailable as error:
            _log.warning("no node gets more connections", reason=error.detail)
            return False
        self._saved.update(liabilities)
        return True

    async def _save_fallen(self) -> None:
        """Store what has fallen, now and then."""
        now = self._clock()
        if now - self._saved_at < _SAVE_INTERVAL:
            return
        self._saved_at = now
        async with self._lock:
            await self._save(
                {
                    (node.name, server): commitment.liability
                    for node in self.nodes.values()
                    for server, commitment in node.commitments.items()
                    if commitment.liability < self._saved.get((node.name, server), 0)
                }
            )
