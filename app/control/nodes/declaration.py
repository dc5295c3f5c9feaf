"""Declarations of nodes: created, changed, paused, drained and deleted in the catalog."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Literal

from app.catalog.catalog import Catalog
from app.control import audit_events
from app.control.background import BackgroundTasks
from app.control.keyed_locks import KeyedLocks
from app.control.nodes.feed import NodeFeed
from app.control.nodes.fleet import Fleet
from app.control.nodes.tracked_node import TrackedNode
from app.control.operation import Expectation, Operation, PlanFor, any_version
from app.control.pools.role_limits import RoleLimits
from app.control.time_slices import in_slices
from app.domain.audit import Actor, AuditEvent
from app.domain.errors import NodeInUse, ServerNotFound, StaleVersion
from app.domain.nodes.declaration import DeclaredNode, NodeSpec
from app.domain.plan import PlanAction, plan_record, plan_step
from app.domain.tenant import TenantSpec
from app.pools.manager import TenantPoolManager

NodeSwitch = Literal["paused", "draining", "resumed"]

_SWITCHES: Mapping[NodeSwitch, Mapping[str, bool]] = {
    "paused": {"paused": True},
    "draining": {"draining": True},
    "resumed": {"paused": False, "draining": False},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeChange:
    """The change to store for a node, its event, and the generation that it changes; None: any."""

    spec: NodeSpec
    paused: bool
    draining: bool
    event: AuditEvent
    expected_generation: int | None = None


class NodeDeclarations:
    def __init__(
        self,
        catalog: Catalog,
        manager: TenantPoolManager,
        fleet: Fleet,
        feed: NodeFeed,
        *,
        limits: RoleLimits,
        locks: KeyedLocks,
    ) -> None:
        self._catalog = catalog
        self._manager = manager
        self._fleet = fleet
        self._feed = feed
        self._limits = limits
        self._locks = locks
        self._background = BackgroundTasks()
        fleet.sizes.notify_shrunk(self._lower_limit)

    def put(
        self, spec: NodeSpec, actor: Actor, *, expect: Expectation[DeclaredNode] = any_version
    ) -> Operation[NodeChange, tuple[TrackedNode, bool]]:
        """Create or change a node; returns whether it was created.

        Raises:
            ServerNotFound: a limit names a server that is not declared.
            StaleVersion, CatalogUnavailable
        """

        async def plan() -> PlanFor[NodeChange]:
            before = self._before(spec.name)
            expected = expect(before)
            if unknown := sorted(spec.limits.keys() - self._manager.servers.keys()):
                raise ServerNotFound(f"No server {unknown[0]} is declared.")
            event = audit_events.node_saved(before, spec, actor)
            change = NodeChange(
                spec=spec,
                paused=before is not None and before.paused,
                draining=before is not None and before.draining,
                event=event,
                expected_generation=expected,
            )
            return PlanFor.of(change, plan_record(_target(spec.name), event))

        return self._operation(spec.name, plan)

    def switch(
        self, node: TrackedNode, action: NodeSwitch, actor: Actor
    ) -> Operation[NodeChange, tuple[TrackedNode, bool]]:
        """Pause a node, drain it, or end both.

        Clients of a paused node can connect, and get no connection to Postgres. No more clients can
        connect to a draining node; once all have left, it returns its connections.
        """
        name, switches = node.name, _SWITCHES[action]

        async def plan() -> PlanFor[NodeChange]:
            before = self._fleet.node(name).declared
            event = audit_events.node_switched(action, before, switches, actor)
            change = NodeChange(
                spec=before.spec,
                paused=switches.get("paused", before.paused),
                draining=switches.get("draining", before.draining),
                event=event,
            )
            return PlanFor.of(change, plan_record(_target(name), event))

        return self._operation(name, plan)

    def delete(
        self, node: TrackedNode, actor: Actor, *, expect: Expectation[DeclaredNode] = any_version
    ) -> Operation[TrackedNode, TrackedNode]:
        """Delete a node.

        Raises:
            NodeInUse: it may have connections.
            NodeNotFound, StaleVersion, CatalogUnavailable
        """

        async def plan() -> PlanFor[TrackedNode]:
            current = self._fleet.node(node.name)
            if expect(current.declared) not in {None, current.declared.generation}:
                raise StaleVersion
            current.check_unused()
            return PlanFor.of(current, plan_step(PlanAction.FORGET, _target(node.name)))

        async def execute(plan: PlanFor[TrackedNode]) -> TrackedNode:
            event = audit_events.node_deleted(plan.subject.declared, actor)
            async with self._fleet.removal(plan.subject):
                await self._catalog.nodes.delete(node.name, event=event)
            self._update_limits(plan.subject.declared.spec, None)
            return plan.subject

        lock = partial(self._locks.hold, _target(node.name))
        return Operation(plan=plan, execute=execute, lock=lock, needs_catalog=True)

    def _operation(
        self, name: str, plan: Callable[[], Awaitable[PlanFor[NodeChange]]]
    ) -> Operation[NodeChange, tuple[TrackedNode, bool]]:
        async def execute(plan: PlanFor[NodeChange]) -> tuple[TrackedNode, bool]:
            change = plan.subject
            declared, created = await self._catalog.nodes.save(
                change.spec,
                paused=change.paused,
                draining=change.draining,
                event=change.event,
                expected_generation=change.expected_generation,
            )
            return await self._put(declared), created

        lock = partial(self._locks.hold, _target(name))
        return Operation(plan=plan, execute=execute, lock=lock, needs_catalog=True)

    async def read_in_doubt(self) -> None:
        """Take over changes whose response was lost; nobody may be changing the node now.

        Raises:
            CatalogUnavailable
        """
        for name in self._catalog.nodes.in_doubt:
            async with self._locks.hold_if_free(_target(name)) as is_free:
                if not is_free:
                    continue
                found = await self._catalog.nodes.read(name)
                if found is not None:
                    await self._put(found)
                elif name in self._fleet.nodes:
                    # If it is in use again, it stays until somebody deletes it again.
                    gone = self._fleet.nodes[name]
                    with suppress(NodeInUse):
                        async with self._fleet.removal(gone):
                            pass
                        self._update_limits(gone.declared.spec, None)

    async def _put(self, declared: DeclaredNode) -> TrackedNode:
        before = self._before(declared.spec.name)
        node = self._fleet.put(declared)
        self._update_limits(before.spec if before else None, declared.spec)
        await self._feed.refresh()
        return node

    async def close(self, deadline: float) -> None:
        """Wait up to *deadline* seconds for background work. Safe to call twice."""
        await self._background.close(deadline)

    def _update_limits(self, before: NodeSpec | None, after: NodeSpec | None) -> None:
        """Set the limits of roles that the node newly serves, or no longer serves."""
        self._background.start("node: role limits", self._apply_limits(before, after))

    async def _apply_limits(self, before: NodeSpec | None, after: NodeSpec | None) -> None:
        async for state in in_slices(list(self._manager.tenants.values())):
            spec = state.tenant.spec
            if _serves(before, spec) is _serves(after, spec) or not state.tenant.is_usable:
                continue
            # On a server that is away, each would wait for it; the isolation audit sets them later.
            server = self._manager.servers.get(spec.server)
            if server is not None and server.is_available:
                await self._limits.apply(state)

    def _lower_limit(self, tenant: str) -> None:
        """Lower the limit of a tenant's role after its size shrank, once no place has more."""
        state = self._manager.tenants.get(tenant)
        if state is not None and state.tenant.is_usable:
            self._background.start(f"tenant {tenant}: role limit", self._limits.apply(state))

    def _before(self, name: str) -> DeclaredNode | None:
        node = self._fleet.nodes.get(name)
        return node.declared if node else None


def _serves(node: NodeSpec | None, tenant: TenantSpec) -> bool:
    return node is not None and node.serves(tenant)


def _target(name: str) -> str:
    return f"node {name}"
