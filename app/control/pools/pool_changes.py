"""Changes of the desired state of pools: planned, and recorded with audit events.

A change and its event are one transaction; then `PoolConvergence` brings the pool to that state. A
pause also works while the catalog is unreachable, see `UnsavedChanges`.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

from app.catalog.catalog import Catalog
from app.catalog.desired_pools import AppliedRecommendation
from app.control import audit_events
from app.control.keyed_locks import KeyedLocks
from app.control.operation import Expectation, PlanFor, any_version
from app.control.pools.convergence import plan_convergence
from app.control.pools.unsaved_changes import UnsavedChanges
from app.domain.audit import Actor, AuditEvent
from app.domain.desired_pool import DesiredPool, Pause, PoolChange
from app.domain.errors import BudgetExceeded, CatalogUnavailable, ServerUnavailable
from app.domain.plan import Plan, plan_record, warn_if_shared
from app.domain.pool import PoolSize
from app.domain.tenant import TenantSpec
from app.pools.manager import TenantPoolManager
from app.pools.pool import Pool
from app.pools.tenant_state import TenantState

_BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
_SERVER_AWAY = "The server is unreachable: connections open when it is back."


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """One pool's desired state before and after a change, and the event that records it.

    Attributes:
        state: a tenant of the pool.
        expected_generation: that of the desired state before; None: any.
    """

    state: TenantState
    pool: Pool | None
    before: DesiredPool | None
    size_before: PoolSize
    desired: DesiredPool
    event: AuditEvent
    expected_generation: int | None = None


class PoolChanges:
    """Changes of the desired state of pools, in the catalog and in memory."""

    def __init__(
        self,
        catalog: Catalog,
        manager: TenantPoolManager,
        unsaved: UnsavedChanges,
        locks: KeyedLocks,
    ) -> None:
        self._catalog = catalog
        self._manager = manager
        self._unsaved = unsaved
        self._locks = locks
        # The min_size of each pool whose change is being stored.
        self._reserved: dict[str, int] = {}

    async def load(self) -> None:
        """Load what the catalog has; at start.

        Raises:
            CatalogUnavailable
        """
        for desired in await self._catalog.pools.load():
            self._manager.desired.put(desired)

    async def read_in_doubt(self) -> None:
        """Take over changes whose response was lost; nobody may be changing the pool now.

        Raises:
            CatalogUnavailable
        """
        for pool_id in self._catalog.pools.in_doubt:
            async with self._locks.hold_if_free(pool_id) as is_free:
                found = await self._catalog.pools.read(pool_id) if is_free else None
                if found is not None and pool_id not in self._unsaved:
                    self._manager.desired.put(found)

    def generation(self, state: TenantState) -> int | None:
        """The version of the tenant's pool; 0 for an open, unchanged pool; None without a pool."""
        pool_id = state.tenant.spec.pool_id
        desired = self._manager.desired.get(pool_id)
        if desired is not None:
            return desired.generation
        return None if self._manager.find(pool_id) is None else 0

    # -- planning ----------------------------------------------------------------------------

    def plan(
        self,
        state: TenantState,
        change: PoolChange,
        actor: Actor,
        *,
        open_now: bool = False,
        whole_pool: bool,
        reason: str | None = None,
        expect: Expectation[int] = any_version,
    ) -> PlanFor[Transition]:
        expected = expect(self.generation(state))
        transition = self._transition(state, change, actor, reason)
        transition = replace(transition, expected_generation=expected)
        self._check_budget(state, transition)
        spec, event, desired = state.tenant.spec, transition.event, transition.desired
        parts = [
            plan_record(f"pool {desired.pool_id}", event),
            plan_convergence(desired, transition.pool, open_now=open_now),
        ]
        # A request about one tenant must not reveal others, and changes none of them.
        if whole_pool:
            parts.append(warn_if_shared(spec, self._manager.tenants.count(desired.pool_id)))
        server = self._manager.servers.get(spec.server)
        if not desired.paused and (server is None or not server.is_available):
            parts.append(Plan(warnings=(_SERVER_AWAY,)))
        most, before = desired.size.max_size, transition.size_before.max_size
        if server is not None and server.limits is not None and most > max(before, server.limit):
            warning = (
                f"max_size {most} is never reached: all pools of server {server.name} and its "
                f"nodes have {server.limit} connections together."
            )
            parts.append(Plan(warnings=(warning,)))
        return PlanFor.of(transition, *parts)

    def _transition(
        self, state: TenantState, change: PoolChange, actor: Actor, reason: str | None
    ) -> Transition:
        spec = state.tenant.spec
        before = self._manager.desired.get(spec.pool_id)
        size = self._manager.desired.size(spec.pool_id, spec.strategy)
        now = datetime.now(UTC)
        pause = before.pause if before else None
        if change.paused is not None and change.paused is not bool(pause):
            pause = Pause(since=now, by=actor.name) if change.paused else None
        desired = DesiredPool(
            pool_id=spec.pool_id,
            size=change.apply_to(size),
            pause=pause,
            recycles=_recycles(before, now, again=change.recycle_on_nodes),
            generation=before.generation if before else 0,
            updated_at=now,
        )
        return Transition(
            state=state,
            pool=self._manager.find(spec.pool_id),
            before=before,
            size_before=size,
            desired=desired,
            event=audit_events.desired_pool_changed(
                before, desired, actor, size_before=size, reason=reason
            ),
        )

    def _check_budget(self, state: TenantState, transition: Transition) -> None:
        """Refuse a larger min_size that the budget has no room for, beside those of other pools.

        Nodes give up connections for it, except those that they keep.

        Raises:
            BudgetExceeded
            ServerUnavailable: the server was never reached, so its budget is unknown.
        """
        desired, before = transition.desired, transition.before
        if desired.size.min_size <= (before.size.min_size if before else 0):
            return
        server = self._manager.server(state.tenant.spec.server)
        if server.limits is None:
            raise ServerUnavailable(server.unavailable_detail)
        kept = {pool_id: each.size.min_size for pool_id, each in self._manager.desired.items()}
        others = sum(
            min_size
            for pool_id, min_size in (kept | self._reserved).items()
            if pool_id != desired.pool_id
            and self._manager.tenants.server_of_pool(pool_id) == server.name
        )
        on_nodes = min(server.reservation.kept, server.divisible)
        if others + desired.size.min_size > server.divisible - on_nodes:
            nodes = (
                f", and nodes keep {on_nodes}: one each, and all that a silent one may have"
                if on_nodes
                else ""
            )
            raise BudgetExceeded(
                f"min_size {desired.size.min_size} does not fit: other pools keep {others} of the "
                f"server's {server.divisible} connections already{nodes}. Lower the min_size of "
                f"other pools, or raise the server's budget."
            )

    # -- recording ---------------------------------------------------------------------------

    async def recycle_on_nodes(self, state: TenantState, actor: Actor) -> None:
        """Let nodes replace a tenant's connections, unreachable ones when they are back.

        Raises:
            TenantDeleting, NotProvisioned
            Unavailable: another change of the pool is in progress.
        """
        async with self._locks.hold(state.tenant.spec.pool_id):
            present = self._manager.tenants.present(state)
            present.tenant.check_usable()
            change = PoolChange(recycle_on_nodes=True)
            transition = self._transition(present, change, actor, reason=None)
            await self.record_or_keep(transition)

    async def record(
        self,
        transition: Transition,
        *,
        applied: AppliedRecommendation | None = None,
    ) -> tuple[DesiredPool, bool]:
        """Store a change with its event; return whether it is the pool's first."""
        desired, event = transition.desired, transition.event
        pool_id = desired.pool_id
        # The catalog has not seen the previous change; to it, this one may look like none.
        follows_unsaved = pool_id in self._unsaved
        self._reserved[pool_id] = desired.size.min_size
        try:
            stored, created = await self._catalog.pools.save(
                pool_id,
                desired.size,
                pause=desired.pause,
                recycles=desired.recycles,
                event=None if follows_unsaved else event,
                expected_generation=transition.expected_generation,
                applied=applied,
            )
            self._manager.desired.put(stored)
        finally:
            del self._reserved[pool_id]
        if follows_unsaved:
            self._unsaved.saved(pool_id, event)
        return stored, created

    async def record_or_keep(self, transition: Transition) -> tuple[DesiredPool, bool]:
        """Store a change; while the catalog is unreachable, keep it in memory."""
        try:
            return await self.record(transition)
        except CatalogUnavailable:
            self._unsaved.keep(transition.desired, transition.event)
            return transition.desired, False

    def lock(self, spec: TenantSpec) -> Callable[[], AbstractAsyncContextManager[None]]:
        return partial(self._locks.hold, spec.pool_id)


def _recycles(before: DesiredPool | None, now: datetime, *, again: bool) -> int:
    """The number of its recycling, the next one if *again*.

    It is at least the seconds since 2026 began: an instance that could not store them may have
    given nodes the numbers that follow the stored one.
    """
    stored = before.recycles if before else 0
    return max(stored + 1, int((now - _BEGINNING).total_seconds())) if again else stored
