"""The loads that nodes have reported for all tenants.

The advisor, samples and the API read them.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from time import monotonic

from app.control.nodes.tenant_load import NodeTenantLoad
from app.domain.nodes.load_reading import LoadReading
from app.domain.nodes.node import STALE_AFTER
from app.domain.nodes.report import EntryReport


class NodeLoads:
    """The load of each tenant on nodes.

    Attributes:
        transactions, held_seconds: sums over all tenants since this service started.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._tenants: dict[str, NodeTenantLoad] = {}
        self._heard_at: dict[str, float] = {}
        # Tenants with clients that wait on any node.
        self._awaited: set[str] = set()
        # Sums over all tenants, including those that are gone.
        self.transactions = 0
        self.held_seconds = 0.0

    def hear(self, node: str, changed: Iterable[EntryReport], gone: Collection[str]) -> None:
        """Take in a report of *node*: *changed* entries, and those that are *gone*."""
        now = self.now
        since = self._heard_at.get(node, now)
        self._heard_at[node] = now
        if now - since >= STALE_AFTER:
            for known in self._tenants.values():
                known.skip(node, now)
        for entry in changed:
            load = self._tenants.get(entry.name)
            if load is None:
                load = self._tenants[entry.name] = NodeTenantLoad()
            added = load.hear(node, entry, since=since, at=now)
            self.transactions += added.transactions
            self.held_seconds += added.held_seconds
            self._note_waiting(entry.name, load)
        for name in gone:
            self._drop(name, node)

    def forget(self, node: str) -> None:
        self._heard_at.pop(node, None)
        for name in list(self._tenants):
            self._drop(name, node)

    @property
    def now(self) -> float:
        """The present time, in monotonic seconds."""
        return self._clock()

    @property
    def is_empty(self) -> bool:
        return not self._heard_at

    def find(self, tenant: str) -> NodeTenantLoad | None:
        """The load of *tenant*; None while no node has reported it."""
        return self._tenants.get(tenant)

    def reading(self, tenant: str) -> LoadReading | None:
        """The present reading of a tenant; None while no node has reported it."""
        load = self._tenants.get(tenant)
        if load is None:
            return None
        now = self.now
        return load.reading(now, self._reachable(now))

    def waiting(self) -> dict[str, int]:
        """Clients that wait on reachable nodes, by tenant; tenants without any are left out."""
        reachable = self._reachable(self.now)
        counts = ((name, self._tenants[name].waiting(reachable)) for name in self._awaited)
        return {name: count for name, count in counts if count}

    def waiting_of(self, tenant: str) -> int:
        """Clients of *tenant* that wait on reachable nodes."""
        load = self._tenants.get(tenant)
        return load.waiting(self._reachable(self.now)) if load else 0

    def active(self, since: float) -> Iterator[tuple[str, NodeTenantLoad]]:
        """Tenants that changed *since* then, or that have connections or clients."""
        for name, load in list(self._tenants.items()):
            if load.is_active(since):
                yield name, load

    def _reachable(self, now: float) -> dict[str, float]:
        return {node: at for node, at in self._heard_at.items() if now - at < STALE_AFTER}

    def _drop(self, name: str, node: str) -> None:
        load = self._tenants.get(name)
        if load is None:
            return
        if load.drop(node):
            del self._tenants[name]
        self._note_waiting(name, load)

    def _note_waiting(self, name: str, load: NodeTenantLoad) -> None:
        if load.waiting(self._heard_at):
            self._awaited.add(name)
        else:
            self._awaited.discard(name)
