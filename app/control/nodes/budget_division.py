"""The division of each server's budget among this process and its nodes.

Connections move to where they are lacking. A node's allotment is stored in the catalog before it is
sent, so that the next leader of the service counts it, too. A back-end of a tenant's role that is
neither ours nor reported by a node counts as used.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

from app.control.nodes.demand import Demand
from app.control.nodes.stored_liabilities import StoredLiabilities
from app.control.nodes.tracked_node import TrackedNode
from app.control.nodes.unexplained_backends import UnexplainedBackends
from app.control.time_slices import in_slices
from app.domain.nodes.allotment import Allotment, Commitment
from app.domain.nodes.budget_division import Holder, divide
from app.domain.nodes.gate import WITHOUT_TURN
from app.pools.manager import TenantPoolManager
from app.pools.servers.node_reservation import NO_RESERVATION, NodeReservation
from app.pools.servers.server import Server

# The name of this process as a holder; no node can have it.
_PROCESS = ""
# The weight of a holder without work: it gets what it could use at once only if there is more than
# enough.
_IDLE_WEIGHT = 0.1
# What this process should have while it has no work: one pool of the usual size.
_PROCESS_FLOOR = 5
# Seconds between two writes of liabilities that have fallen; a stored value that is too high is
# safe.
_SAVE_INTERVAL = 10.0
# Seconds that a report waits for other divisions, and a division for the catalog. Agents accept an
# answer within `ANSWER_SECONDS`.
_PATIENCE = 2.0


class BudgetDivision:
    """Decides how many connections of each server this process and each node may have.

    Attributes:
        lock: held while connections move.
    """

    def __init__(
        self,
        manager: TenantPoolManager,
        nodes: Mapping[str, TrackedNode],
        backends: UnexplainedBackends,
        stored: StoredLiabilities,
        *,
        next_number: Callable[[], int],
        clock: Callable[[], float],
    ) -> None:
        """Divide among *nodes* and the pools of *manager*; *next_number* numbers allotments."""
        self._manager = manager
        self._nodes = nodes
        self._backends = backends
        self._stored = stored
        self._next_number = next_number
        self._clock = clock
        self.lock = asyncio.Lock()
        self._own: defaultdict[str, Commitment] = defaultdict(Commitment)
        self._own_demand: defaultdict[str, Demand] = defaultdict(Demand)
        self._own_kept: Mapping[str, int] = {}
        # Servers to divide, in the order of the requests.
        self._due: dict[str, None] = {}
        # Until when the present division may write to the catalog.
        self._saves_until = 0.0
        self._fallen_saved_at = 0.0

    def begin(self) -> None:
        """Start with the nodes' allotments from an earlier leader of the service."""
        for server in self._manager.servers.values():
            owed = self._owed(server.name)
            server.reserve(NodeReservation(owed=owed, kept=owed))

    def end(self) -> None:
        """Give the whole budget to this process, because there are no nodes."""
        self._own.clear()
        self._backends.forget()
        for server in self._manager.servers.values():
            server.reserve(NO_RESERVATION)

    def unexplained(self, server: str) -> int:
        """Back-ends of tenants' roles that are neither ours nor, as far as known, a node's."""
        return self._backends.count(server, self._nodes.values())

    # -- demand ----------------------------------------------------------------------------------

    def note_demand(self, node: TrackedNode) -> None:
        """Note what *node* needs: for all tenants with work, and at least for its largest one."""
        latest = node.latest
        busy: defaultdict[str, int] = defaultdict(int)
        weight: defaultdict[str, float] = defaultdict(float)
        queued: defaultdict[str, int] = defaultdict(int)
        for reported in latest.entries.values() if latest is not None else ():
            entry = node.entries.get(reported.name)
            if entry is not None and not entry.paused and node.reports.is_busy(reported):
                busy[entry.server] += entry.size
                weight[entry.server] += entry.weight
                queued[entry.server] += reported.waiting if reported.state in WITHOUT_TURN else 0
        for server in node.servers | node.demands.keys():
            demand = node.demands.setdefault(server, Demand())
            wanted = max(busy[server], node.largest.get(server, 0))
            demand.note(wanted, weight[server], self._clock(), queued=queued[server])

    async def note_own_demands(self, servers: Iterable[Server]) -> None:
        """Note what this process could use of these servers."""
        wanted: defaultdict[str, int] = defaultdict(int)
        kept: defaultdict[str, int] = defaultdict(int)
        async for pool in in_slices(list(self._manager.pools())):
            wanted[pool.server.name] += min(pool.most, pool.demand)
            kept[pool.server.name] += pool.kept
        self._own_kept = kept
        for server in servers:
            weight, most = float(server.budget.contenders.weight), wanted[server.name]
            self._own_demand[server.name].note(max(most, _PROCESS_FLOOR), weight, self._clock())

    # -- division --------------------------------------------------------------------------------

    async def redivide(self, servers: Iterable[str]) -> None:
        """Divide *servers*, or leave it to the division under way: agents wait for answers."""
        self._due |= dict.fromkeys(sorted(set(servers) & self._manager.servers.keys()))
        try:
            async with asyncio.timeout(_PATIENCE):
                await self.lock.acquire()
        except TimeoutError:
            return
        try:
            self._saves_until = self._clock() + _PATIENCE
            while self._due:
                name = next(iter(self._due))
                del self._due[name]
                await self._divide(self._manager.servers[name])
        finally:
            self.lock.release()

    async def _divide(self, server: Server) -> None:
        """Move lacking connections; twice, because what this process gives up is free at once.

        It does nothing until the server has been reached: nodes keep what they have. It also does
        nothing once the last node is forgotten.
        """
        if server.limits is None or not self._nodes:
            return
        reached = [node for node in self._nodes.values() if node.is_reachable]
        for _ in range(2):
            self._obey(server)
            changes = dict(divide(self._budget(server), self._holders(server)))
            if _PROCESS in changes:
                self._give_process(server, changes.pop(_PROCESS))
            if not await self._send(server.name, changes):
                break
        else:
            # Connections that nobody lacks belong to this process.
            own = self._own[server.name]
            free = self._budget(server) - own.liability - self._owed(server.name)
            if free > 0:
                self._give_process(server, own.current + free)
        for node in reached:
            node.note_division(server.name)
        self._obey(server)

    def _budget(self, server: Server) -> int:
        return server.divisible - self.unexplained(server.name)

    def _room(self, server: Server) -> int:
        """The most connections that pools can keep beside those that nodes keep."""
        return max(0, self._budget(server) - self._kept_by_nodes(server.name))

    def _holders(self, server: Server) -> list[Holder]:
        demand = self._own_demand[server.name]
        own = Holder(
            name=_PROCESS,
            demand=max(demand.connections, _PROCESS_FLOOR),
            commitment=self._own[server.name],
            weight=max(demand.weight, _IDLE_WEIGHT),
            kept=min(self._own_kept.get(server.name, 0), self._room(server)),
        )
        return [own, *(self._holder(node, server.name) for node in self._nodes.values())]

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
        """Give nodes their new allotments; False if the catalog is away and some must wait."""
        sent = {
            name: Allotment(generation=self._next_number(), connections=connections)
            for name, connections in changes.items()
        }
        owed = {
            (name, server): commitment.liability
            for name, node in self._nodes.items()
            for known in (node.commitment(server),)
            for commitment in (known.send(sent[name]) if name in sent else known,)
        }
        # All of them: one node gets what another one gave up, after a restart too.
        grown = {name for name in sent if owed[name, server] > self._stored.of(name, server)}
        is_late = self._clock() > self._saves_until
        if grown and (is_late or not await self._stored.save(owed)):
            for name in grown:
                del sent[name]
        for name, allotment in sent.items():
            # A report may have come, or the node gone, during the write to the catalog.
            if (node := self._nodes.get(name)) is not None:
                node.send(server, allotment)
        return len(sent) == len(changes)

    def _give_process(self, server: Server, connections: int) -> None:
        own = self._own[server.name]
        allotment = Allotment(generation=own.generation + 1, connections=connections)
        self._own[server.name] = own.send(allotment)
        self._obey(server)

    def _obey(self, server: Server) -> None:
        """Limit this process' pools to its allotment, and to what nodes leave of the budget."""
        others = self._owed(server.name) + self.unexplained(server.name)
        own = self._own[server.name]
        if not own.generation:
            most = max(0, server.divisible - others)
            own = own.send(Allotment(generation=1, connections=most))
        lack = any(self._lacks(node, server.name) for node in self._nodes.values())
        server.reserve(
            NodeReservation(
                owed=others,
                kept=self._kept_by_nodes(server.name),
                most_here=own.current,
                lack=lack,
                leaves_min_size=self._own_kept.get(server.name, 0) <= self._room(server),
            )
        )
        self._own[server.name] = own.acknowledge(own.generation, server.budget.used)

    def _kept_by_nodes(self, server: str) -> int:
        return sum(self._kept_by(node, server) for node in self._nodes.values())

    def _kept_by(self, node: TrackedNode, server: str) -> int:
        """The connections that a node does not give up: one if it has tenants there.

        It gives up none while it is not reachable.
        """
        if not node.is_reachable:
            return node.commitment(server).liability
        limit = node.limit(server)
        return min(1, node.largest.get(server, 0), 1 if limit is None else limit)

    def _lacks(self, node: TrackedNode, server: str) -> bool:
        """Whether clients of *node* wait for connections of the budget, not of its own limit."""
        demand, holder = node.demands.get(server), self._holder(node, server)
        return bool(demand and demand.queued) and holder.wanted > holder.commitment.current

    def _owed(self, server: str) -> int:
        """The sum of the nodes' liabilities on a server."""
        return sum(node.commitment(server).liability for node in self._nodes.values())

    async def save_fallen(self) -> None:
        """Store liabilities that have fallen, now and then."""
        now = self._clock()
        if now - self._fallen_saved_at < _SAVE_INTERVAL:
            return
        self._fallen_saved_at = now
        async with self.lock:
            await self._stored.save(
                {
                    (node.name, server): commitment.liability
                    for node in self._nodes.values()
                    for server, commitment in node.commitments.items()
                    if commitment.liability < self._stored.of(node.name, server)
                }
            )
