"""The feed: builds each node's configuration again when something changed; agents wait for it.

Configurations contain passwords of tenants' roles. Nothing here logs or stores them.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from time import monotonic

from app.control.nodes.fleet import NUMBERS_OF_EPOCH, Fleet
from app.control.nodes.tracked_node import TrackedNode
from app.control.tenants.application_credentials import ApplicationCredentials
from app.control.time_slices import in_slices
from app.domain.nodes.configuration import NodeConfiguration, NodeEntry, NodeLogin, NodeServer
from app.domain.nodes.declaration import DeclaredNode, NodeSpec
from app.domain.tenant import TenantSpec
from app.pools.manager import TenantPoolManager
from app.pools.tenant_state import TenantState

# Seconds within which nodes report that a tenant is closed.
_CLOSE_DEADLINE = 5.0
# The same, while a client waits for the response to a pause.
_PAUSE_DEADLINE = 2.0
# Seconds within which nodes report that they have recycled, while a client waits for the response.
_RECYCLE_DEADLINE = 3.0
# Seconds within which nodes report that a change is in force.
_SETTLE_DEADLINE = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _MadeEntry:
    """An entry and the values that it was built from; while these are the same, so is the entry."""

    inputs: tuple[object, ...]
    entry: NodeEntry
    tenant: TenantSpec


class NodeFeed:
    def __init__(
        self,
        fleet: Fleet,
        manager: TenantPoolManager,
        credentials: ApplicationCredentials,
        servers: Mapping[str, NodeServer],
        *,
        epoch: int,
    ) -> None:
        """Give nodes *servers*, with their own allotments.

        Versions grow from each *epoch* of leadership to the next.
        """
        self._fleet = fleet
        self._manager = manager
        self._credentials = credentials
        self._servers = servers
        self._version = epoch * NUMBERS_OF_EPOCH
        # By tenant, in this order.
        self._entries: dict[str, _MadeEntry] = {}
        # The other inputs of each node's configuration.
        self._offered: Mapping[str, tuple[object, ...]] = {}
        # The nodes as they were when tenants were last matched with them.
        self._nodes: Mapping[str, NodeSpec] = {}
        # By tenant, the number of changes under way during which no node must log in.
        self._held: Counter[str] = Counter()
        self._lock = asyncio.Lock()
        self._is_closed = False

    async def refresh(self) -> None:
        """Rebuild every configuration that is out of date."""
        if not self._fleet.nodes:
            return
        async with self._lock:
            made: dict[str, _MadeEntry] = {}
            nodes = {name: node.declared.spec for name, node in self._fleet.nodes.items()}
            states = sorted(self._manager.tenants.items())
            async for name, state in in_slices(states):
                if (one := self._made(state)) is not None:
                    made[name] = one
                    if nodes != self._nodes or one is not self._entries.get(name):
                        self._declare(one, nodes.values())
            for name in self._entries.keys() - made.keys():
                self._fleet.sizes.withdraw(name)
            await self._fleet.sizes.decide()
            is_same = made.keys() == self._entries.keys() and all(
                one.entry is known.entry and one.tenant is known.tenant
                for one, known in zip(made.values(), self._entries.values(), strict=True)
            )
            servers = self._servers_as_known()
            offered: dict[str, tuple[object, ...]] = {}
            for node in list(self._fleet.nodes.values()):
                liable = {name for name, each in node.commitments.items() if each.liability}
                shares = self._fleet.sizes.versions[node.name]
                inputs = offered[node.name] = (node.declared, liable, shares, servers)
                is_known = node.configuration is not None and not node.sizes.need_version
                if not (is_same and is_known and self._offered.get(node.name) == inputs):
                    await self._offer(node, made.values(), liable, servers)
            self._entries, self._offered, self._nodes = made, offered, nodes

    @asynccontextmanager
    async def without_logins(self, tenant: TenantSpec) -> AsyncIterator[None]:
        """Keep all reachable nodes from logging in as *tenant* inside the block.

        Its clients there wait, and continue once their node has the change.
        """
        self._held[tenant.id] += 1
        try:
            await self.refresh()
            await self._until_closed(tenant, _CLOSE_DEADLINE)
            yield
        finally:
            self._held[tenant.id] -= 1
            if not self._held[tenant.id]:
                del self._held[tenant.id]
            await self.refresh()

    async def wait_paused(self, tenant: TenantSpec) -> None:
        """Wait, but not long, until no node starts transactions of *tenant*, which is paused.

        An unreachable node continues until it can be reached.
        """
        await self.refresh()
        await self._until_closed(tenant, _PAUSE_DEADLINE)

    async def _until_closed(self, tenant: TenantSpec, deadline: float) -> None:
        """Wait up to *deadline* seconds until no reachable node has *tenant* open."""
        began = monotonic()
        with suppress(TimeoutError):
            async with asyncio.timeout(deadline):
                for node in list(self._fleet.nodes.values()):
                    while node.may_log_in(tenant.id, since=began):
                        await node.heard.wait()

    async def settle(
        self, tenant: TenantSpec, *, seconds: float = _SETTLE_DEADLINE
    ) -> Mapping[str, bool]:
        """Wait up to *seconds* until the reachable nodes of *tenant* have its latest changes.

        Return whether each node that serves it has them.
        """
        await self.refresh()
        nodes = [each for each in self._fleet.nodes.values() if each.declared.spec.serves(tenant)]
        offered = {node: node.version for node in nodes}
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                for node, version in offered.items():
                    while node.lacks(version):
                        await node.heard.wait()
        return {node.name: node.has(version) for node, version in offered.items()}

    async def wait_recycled(self, tenant: TenantSpec) -> Mapping[str, bool]:
        """Wait, but not long, until nodes replace connections; return which of them do."""
        settled = await self.settle(tenant, seconds=_RECYCLE_DEADLINE)
        able = {node.name for node in self._fleet.nodes.values() if node.can_recycle}
        return {name: has_it and name in able for name, has_it in settled.items()}

    def latest(self, node: TrackedNode) -> NodeConfiguration | None:
        """The present configuration of *node*; None until it has been built."""
        found = node.configuration
        return None if found is None else found.with_allotments(node.allotments())

    async def wait(self, node: TrackedNode, version: int, seconds: float) -> None:
        """Wait until *node* has another version or is called, at most *seconds*.

        It also returns when the service stops.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not (self._is_closed or node.is_called or node.version != version):
                    await node.changed.wait()
        # A response with a new configuration does not ask for a report; the next response does.
        if node.version == version:
            node.called()

    def close(self) -> None:
        """End all waits."""
        self._is_closed = True
        for node in self._fleet.nodes.values():
            node.changed.set()

    def _made(self, state: TenantState) -> _MadeEntry | None:
        """The entry of a tenant on any node that serves it; None if no node can."""
        tenant, spec = state.tenant, state.tenant.spec
        server = self._manager.servers.get(spec.server)
        if spec.is_shared or not tenant.is_usable or server is None:
            return None
        isolation = self._manager.isolations[spec.strategy]
        desired = self._manager.desired.get(spec.pool_id)
        credentials = self._credentials
        valid = [each for each in credentials.of(spec.id) if credentials.find(each.user) is each]
        version = isolation.password_version(server, spec)
        is_held = self._held[spec.id] > 0
        inputs = (tenant, desired, version, valid, is_held)
        known = self._entries.get(spec.id)
        if known is not None and known.inputs == inputs:
            return known
        login = isolation.login(server, spec)
        entry = NodeEntry(
            name=spec.id,
            server=spec.server,
            database=login.database,
            role=login.user,
            password=login.password,
            # On nodes, each connection counts as a lease.
            size=spec.usable(self._manager.desired.size(spec.pool_id, spec.strategy).max_size),
            weight=spec.weight,
            paused=is_held or (desired is not None and desired.paused),
            recycles=desired.recycles if desired is not None else 0,
            logins=tuple(NodeLogin(user=each.user, verifier=each.verifier) for each in valid),
        )
        if known is not None and known.entry == entry:
            entry = known.entry
        return _MadeEntry(inputs=inputs, entry=entry, tenant=spec)

    async def _offer(
        self,
        node: TrackedNode,
        made: Iterable[_MadeEntry],
        liable: Collection[str],
        known_servers: Mapping[str, NodeServer],
    ) -> None:
        """Build the configuration of *node*, which may have connections to the servers *liable*."""
        declared = node.declared
        entries = tuple(
            [
                self._on_node(one.entry, declared)
                async for one in in_slices(made)
                if declared.spec.serves(one.tenant)
            ]
        )
        names = {*liable, *(entry.server for entry in entries)}
        servers = {name: known_servers[name] for name in sorted(names & known_servers.keys())}
        known = node.configuration
        is_same = known is not None and (known.entries, known.servers) == (entries, servers)
        if not is_same or node.sizes.need_version:
            self._version += 1
            node.offer(NodeConfiguration(version=self._version, servers=servers, entries=entries))

    def _servers_as_known(self) -> Mapping[str, NodeServer]:
        """The servers, with what they have said about themselves by now."""
        found = dict(self._servers)
        for name, server in self._manager.servers.items():
            if name in found and server.limits is not None:
                reports = server.limits.reports_search_path
                found[name] = replace(found[name], reports_search_path=reports)
        return found

    def _declare(self, made: _MadeEntry, nodes: Iterable[NodeSpec]) -> None:
        """Let the tenant's size be split over the nodes where somebody can use it."""
        entry = made.entry
        serving = [node.name for node in nodes if node.serves(made.tenant)] if entry.logins else []
        self._fleet.sizes.declare(entry.name, entry.server, entry.size, serving)

    def _on_node(self, entry: NodeEntry, node: DeclaredNode) -> NodeEntry:
        """The entry as this node should have it now."""
        share = self._fleet.sizes.share_on(node.spec.name, entry.name)
        size = entry.size if share is None else share
        if size == entry.size and not (node.paused or node.draining):
            return entry
        paused = entry.paused or node.paused
        return replace(entry, size=size, paused=paused, draining=node.draining)
