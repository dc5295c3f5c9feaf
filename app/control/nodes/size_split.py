"""Splits the size of each tenant that can be used on nodes over these and this process.

Tenants without a credential for nodes are not part of it: their pools have their whole size. A
node's share is in its next configuration. This process applies its share at once.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

from app.control.nodes.split_tenant import PROCESS, SplitTenant
from app.control.nodes.tracked_node import TrackedNode
from app.control.time_slices import TimeSlices, in_slices
from app.domain.nodes.report import EntryReport
from app.domain.nodes.size_split import Place, split
from app.pools.manager import TenantPoolManager

# The weight of an idle place, where a connection of load counts 1: unneeded connections are on
# nodes.
_IDLE_PROCESS, _IDLE_NODE = 0.1, 1.0
# Connections that this process gives up are free at once; the last pass sees the others' changes.
_PASSES = 3


class SizeSplit:
    """The shares of all places.

    Attributes:
        versions: number of changes of a node's shares, by node.
    """

    def __init__(
        self,
        manager: TenantPoolManager,
        nodes: Mapping[str, TrackedNode],
        clock: Callable[[], float],
    ) -> None:
        self._manager = manager
        self._nodes = nodes
        self._clock = clock
        self._tenants: dict[str, SplitTenant] = {}
        # Tenants to decide about, in the order of their changes.
        self._due: dict[str, None] = {}
        # The last known state of each node, as far as it concerns all its tenants.
        self._contacts: dict[str, tuple[bool, ...]] = {}
        self.versions: Counter[str] = Counter()
        self._on_shrunk: Callable[[str], None] = lambda _: None

    def notify_shrunk(self, callback: Callable[[str], None]) -> None:
        """Call *callback* with a tenant once all places have applied a smaller size."""
        self._on_shrunk = callback

    # -- what it is asked ------------------------------------------------------------------------

    def here(self, tenant: str) -> int | None:
        """The most connections of a tenant's pool in this process; None: its whole size."""
        found = self._tenants.get(tenant)
        return None if found is None else self._most_here(found)

    def size_in_force(self, tenant: str) -> int:
        """The largest size of a tenant that may be in force in some place; 0: it is not split."""
        found = self._tenants.get(tenant)
        return 0 if found is None else found.size_in_force

    def share_on(self, node: str, tenant: str) -> int | None:
        """Connections that a node may have for a tenant; None: nobody can use the tenant there."""
        found = self._tenants.get(tenant)
        if found is None:
            return None
        place = found.places.get(node)
        return 0 if place is None else place.share

    def idle_places(self, tenant: str) -> int:
        """Connections of a tenant in places without callers, one each.

        A single place is never idle.
        """
        found, now = self._tenants.get(tenant), self._clock()
        if found is None:
            return 0
        having = [place for place in found.places.values() if place.share > 0]
        idle = sum([place.load.at(now) == 0 for place in having])
        return max(0, min(idle, len(having) - 1))

    # -- what happens ----------------------------------------------------------------------------

    def declare(self, tenant: str, server: str, size: int, nodes: Iterable[str]) -> None:
        """A tenant may have *size* connections to *server*, and can be used on these nodes."""
        claims = frozenset(nodes)
        known = self._tenants.get(tenant)
        if known is None:
            if not claims:
                return
            known = self._tenants[tenant] = SplitTenant(tenant, server, size)
        known.declare(server, size, claims)
        self._due[tenant] = None

    def withdraw(self, tenant: str) -> None:
        """A tenant can no longer be used on any node."""
        if (known := self._tenants.get(tenant)) is not None:
            known.withdraw()
            self._due[tenant] = None

    def hear(self, node: TrackedNode, changed: Iterable[EntryReport]) -> None:
        """Take in a report of *node*: the *changed* entries."""
        now = self._clock()
        for entry in changed:
            tenant = self._tenants.get(entry.name)
            if tenant is None or (place := tenant.places.get(node.name)) is None:
                continue
            # Callers that wait because a person paused the node need nothing elsewhere either.
            load = 0 if node.declared.paused else entry.in_use + entry.waiting
            place.load.note(load, now)
            if load > place.share or not tenant.is_settled:
                self._due[entry.name] = None

    def release(self, node: str) -> None:
        """Note that *node* is gone and has no connections."""
        for tenant in self._tenants.values():
            if node in tenant.places:
                self._give(tenant, {node: 0})
                self._due[tenant.name] = None

    def forget(self, node: str) -> None:
        """Note that *node* was deleted and has no connections."""
        for tenant in self._tenants.values():
            if tenant.forget(node):
                self._due[tenant.name] = None

    async def run_once(self) -> None:
        """Check the pools of this process and the nodes, and decide; once a second."""
        contacts = {name: _contact(node) for name, node in self._nodes.items()}
        others = {name for name in contacts if contacts[name] != self._contacts.get(name)}
        self._contacts = contacts
        async for tenant in in_slices(list(self._tenants.values())):
            load = self._note_own_load(tenant)
            # It has more than its size only while its callers need that.
            is_settled = tenant.is_settled and tenant.most == tenant.size
            is_same = is_settled and others.isdisjoint(tenant.places)
            if load > tenant.places[PROCESS].share or not is_same:
                self._due[tenant.name] = None
        await self.decide()

    # -- what is done ----------------------------------------------------------------------------

    async def decide(self) -> None:
        """Split the sizes of tenants for which something has changed."""
        slices = TimeSlices()
        while self._due:
            name = next(iter(self._due))
            del self._due[name]
            if (tenant := self._tenants.get(name)) is not None:
                self._split(tenant)
                await slices.end_step()

    def _split(self, tenant: SplitTenant) -> None:
        for _ in range(_PASSES):
            places = list(self._places(tenant))
            tenant.allow_for(places)
            changes = split(tenant.most, places)
            if changes:
                self._give(tenant, changes)
            self._obey(tenant)
            if not changes:
                break
        if tenant.settle(places):
            self._on_shrunk(tenant.name)
        if not (tenant.claims or any(each.share or each.liability for each in places[1:])):
            del self._tenants[tenant.name]
            self._obey(tenant)

    def _give(self, tenant: SplitTenant, shares: Mapping[str, int]) -> None:
        for name, share in shares.items():
            if tenant.give(name, share) and name != PROCESS:
                self.versions[name] += 1

    def _obey(self, tenant: SplitTenant) -> None:
        pool = self._manager.find(tenant.name)
        if pool is not None:
            pool.limit_to(self.here(tenant.name))

    def _note_own_load(self, tenant: SplitTenant) -> int:
        """Note what callers in this process could use now, and return it."""
        pool = self._manager.find(tenant.name)
        load = pool.demand if pool is not None else 0
        tenant.places[PROCESS].load.note(load, self._clock())
        return load

    def _most_here(self, tenant: SplitTenant) -> int:
        """The share of this process, but never more than nodes leave of all."""
        others = sum(self._liability(tenant, name) for name in tenant.nodes)
        return max(0, min(tenant.places[PROCESS].share, tenant.most - others))

    def _liability(self, tenant: SplitTenant, name: str) -> int:
        """The most connections of the tenant that a node can have."""
        node, share = self._nodes.get(name), tenant.places[name].share
        if node is None:
            return share
        return max(share, node.most_of(tenant.name, tenant.server, tenant.size))

    def _places(self, tenant: SplitTenant) -> Iterator[Place]:
        """The places; this process comes first."""
        now = self._clock()
        pool, own = self._manager.find(tenant.name), tenant.places[PROCESS]
        self._note_own_load(tenant)
        yield Place(
            name=PROCESS,
            share=own.share,
            liability=max(own.share, pool.connections.open if pool else 0),
            load=own.load.at(now),
            idle_weight=_IDLE_PROCESS,
        )
        for name in tenant.nodes:
            node, place = self._nodes.get(name), tenant.places[name]
            limit = node.declared.spec.limits.get(tenant.server) if node is not None else None
            can_serve = node is not None and limit != 0 and not node.is_drained
            yield Place(
                name=name,
                share=place.share,
                liability=self._liability(tenant, name),
                load=place.load.at(now),
                idle_weight=_IDLE_NODE,
                claims=name in tenant.claims and can_serve,
                limit=limit,
                reachable=node is not None and node.takes_sizes,
            )


def _contact(node: TrackedNode) -> tuple[bool, ...]:
    return node.takes_sizes, node.sizes.are_known, node.is_drained
