"""Operations on pools: open and resize, pause and resume, evict, drain, recycle, check.

All but open and resize work while the catalog is unreachable: `UnsavedChanges` keeps a pause, and
the outbox keeps events, until the catalog is back.

To nodes, evict, drain and recycle are the same: they close their idle connections of the tenant at
once, the others after their transaction, and open new ones on demand.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from time import monotonic

from app.control import audit_events
from app.control.audit_outbox import AuditOutbox
from app.control.background import BackgroundTasks
from app.control.operation import Expectation, Operation, PlanFor, any_version
from app.control.pools.convergence import PoolConvergence
from app.control.pools.pool_changes import PoolChanges, Transition
from app.control.time_slices import in_slices
from app.domain.audit import Actor
from app.domain.desired_pool import DesiredPool, PoolChange
from app.domain.errors import PoolDraining, PoolNotFound
from app.domain.eviction import Eviction, EvictionReason
from app.domain.plan import Plan, PlanAction, plan_close, plan_recycle, plan_step, warn_if_shared
from app.domain.pool import PoolState
from app.domain.tenant import TenantSpec
from app.pools.manager import TenantPoolManager
from app.pools.pool import Pool
from app.pools.tenant_state import TenantState

_WARM_DEADLINE = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOutcome:
    """A pool after a change; *created*: this was the first change of its desired state.

    *state* is the tenant whose pool was changed.
    """

    state: TenantState
    pool: Pool | None
    desired: DesiredPool
    created: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RecycleReport:
    """The number of connections that the pool replaces; and whether each node does, by name."""

    connections: int
    nodes: Mapping[str, bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvictionReport:
    """The eviction of the pool; and whether each node closes its connections, by name."""

    eviction: Eviction
    nodes: Mapping[str, bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """The number of tested idle connections, and of those that failed and were closed."""

    tested: int
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepReport:
    """The pools that a sweep closed, and why it left others open, by pool."""

    evicted: tuple[Eviction, ...]
    skipped: Mapping[str, str]


class PoolOperations:
    """Operations on pools, each with its audit event.

    Plans raise PoolIsShared if the pool serves other tenants and *whole_pool* is not set. All
    except `put` and `pause` raise PoolNotFound if the pool is not open; `evict`, `drain` and
    `recycle` only if no node serves the tenant either.
    """

    def __init__(
        self,
        manager: TenantPoolManager,
        changes: PoolChanges,
        convergence: PoolConvergence,
        outbox: AuditOutbox,
        *,
        wait_recycled: Callable[[TenantSpec], Awaitable[Mapping[str, bool]]],
    ) -> None:
        """*wait_recycled*: wait until nodes replace a tenant's connections; return which do."""
        self._wait_recycled = wait_recycled
        self._manager = manager
        self._changes = changes
        self._convergence = convergence
        self._outbox = outbox
        self._background = BackgroundTasks()
        # In monotonic seconds.
        self._resized_by_hand_at: dict[str, float] = {}

    def put(
        self,
        state: TenantState,
        change: PoolChange,
        actor: Actor,
        *,
        whole_pool: bool = False,
        expect: Expectation[int] = any_version,
    ) -> Operation[Transition, PoolOutcome]:
        """Open the tenant's pool with this size, or resize it, and wait until it is warm.

        Raises:
            TenantDeleting, NotProvisioned, InvalidInput, PoolIsShared, BudgetExceeded,
            StaleVersion, CatalogUnavailable, PoolLimitReached, PoolDraining
        """
        spec = state.tenant.spec

        async def plan() -> PlanFor[Transition]:
            present = self._manager.tenants.present(state)
            present.tenant.check_usable()
            plan = self._changes.plan(
                present, change, actor, open_now=True, whole_pool=whole_pool, expect=expect
            )
            transition = plan.subject
            if transition.pool is not None and transition.pool.is_closing:
                raise PoolDraining(f"Pool {spec.pool_id} is draining; it opens again afterwards.")
            if transition.desired.size != transition.size_before:
                spec.check_scope(whole_pool=whole_pool)
            return plan

        async def execute(plan: PlanFor[Transition]) -> PoolOutcome:
            state, size_before = plan.subject.state, plan.subject.size_before
            desired, created = await self._changes.record(plan.subject)
            if change.max_size is not None:
                self.note_resize_by_hand(spec.pool_id, monotonic())
            pool = await self._convergence.apply(
                state, desired, size_before=size_before, open_now=True
            )
            if pool is not None and pool.server.is_available:
                await pool.wait_until_warm(_WARM_DEADLINE)
            return PoolOutcome(state=state, pool=pool, desired=desired, created=created)

        return Operation(
            plan=plan, execute=execute, lock=self._changes.lock(spec), needs_catalog=True
        )

    def pause(
        self, state: TenantState, actor: Actor, *, paused: bool, whole_pool: bool = False
    ) -> Operation[Transition, PoolOutcome]:
        """Pause or resume the tenant's pool; this works while the catalog is unreachable.

        A tenant may be paused before it is provisioned: it serves nobody until it is resumed.

        Raises:
            TenantDeleting, PoolIsShared
        """
        spec = state.tenant.spec

        async def plan() -> PlanFor[Transition]:
            spec.check_scope(whole_pool=whole_pool)
            present = self._manager.tenants.present(state)
            present.tenant.check_not_deleting()
            return self._changes.plan(
                present, PoolChange(paused=paused), actor, whole_pool=whole_pool
            )

        async def execute(plan: PlanFor[Transition]) -> PoolOutcome:
            state, size_before = plan.subject.state, plan.subject.size_before
            desired, created = await self._changes.record_or_keep(plan.subject)
            pool = await self._convergence.apply(state, desired, size_before=size_before)
            return PoolOutcome(state=state, pool=pool, desired=desired, created=created)

        return Operation(plan=plan, execute=execute, lock=self._changes.lock(spec))

    def evict(
        self, state: TenantState, actor: Actor, *, deadline: float, whole_pool: bool = False
    ) -> Operation[Pool | None, EvictionReport]:
        """Close the pool: leases get *deadline* seconds to end, then they are cut; 0 cuts at once.

        The pool keeps its desired size, and opens again at its next use.
        """
        reason = EvictionReason.REQUESTED if deadline else EvictionReason.FORCED
        plan = self._plan_here_and_on_nodes(
            state, partial(_closing, deadline), whole_pool=whole_pool
        )

        async def execute(plan: PlanFor[Pool | None]) -> EvictionReport:
            pool = plan.subject
            closing = None if pool is None else self._close(pool, reason, deadline, actor)
            nodes = await self._recycle_on_nodes(state, actor)
            if closing is None:
                eviction = Eviction(pool_id=state.tenant.spec.pool_id, reason=reason)
            else:
                # Shielded: the eviction and its audit event continue if the caller gives up.
                eviction = await asyncio.shield(closing)
                await self._outbox.flush()
            return EvictionReport(eviction=eviction, nodes=nodes)

        return Operation(plan=plan, execute=execute)

    def drain(
        self, state: TenantState, actor: Actor, *, deadline: float, whole_pool: bool = False
    ) -> Operation[Pool | None, PoolState]:
        """Start closing the pool and return its state; from now on it refuses new leases."""
        plan = self._plan_here_and_on_nodes(
            state, partial(_closing, deadline), whole_pool=whole_pool
        )

        async def execute(plan: PlanFor[Pool | None]) -> PoolState:
            pool = plan.subject
            if pool is not None:
                self._close(pool, EvictionReason.DRAINED, deadline, actor)
                await self._record("draining", pool, actor, deadline_seconds=deadline)
            if self._manager.desired.is_on_nodes(state.tenant):
                await self._changes.recycle_on_nodes(state, actor)
            return PoolState.CLOSED if pool is None else pool.state

        return Operation(plan=plan, execute=execute)

    def recycle(
        self, state: TenantState, actor: Actor, *, whole_pool: bool = False
    ) -> Operation[Pool | None, RecycleReport]:
        """Replace every connection without failing a borrower."""
        plan = self._plan_here_and_on_nodes(state, _recycling, whole_pool=whole_pool)

        async def execute(plan: PlanFor[Pool | None]) -> RecycleReport:
            pool, count = plan.subject, 0
            if pool is not None:
                count = pool.recycle()
                await self._record("recycled", pool, actor, connections=count)
            nodes = await self._recycle_on_nodes(state, actor)
            return RecycleReport(connections=count, nodes=nodes)

        return Operation(plan=plan, execute=execute)

    def check(
        self, state: TenantState, actor: Actor, *, whole_pool: bool = False
    ) -> Operation[Pool, CheckReport]:
        """Test every idle connection now; close those that fail."""
        plan = self._plan_on_open_pool(state, _testing, whole_pool=whole_pool)

        async def execute(plan: PlanFor[Pool]) -> CheckReport:
            tested, failed = await plan.subject.connections.check(not_since=monotonic())
            await self._record("checked", plan.subject, actor, tested=tested, failed=failed)
            return CheckReport(tested=tested, failed=failed)

        return Operation(plan=plan, execute=execute)

    def evict_expired(self, actor: Actor) -> Operation[None, SweepReport]:
        """Close every pool unused for longer than its idle timeout."""

        async def plan() -> PlanFor[None]:
            expired = self._manager.expired()
            return PlanFor.of(None, *(_closing(0.0, pool) for pool in expired))

        async def execute(_: PlanFor[None]) -> SweepReport:
            evicted: list[Eviction] = []
            async for eviction in in_slices(self._manager.evict_expired()):
                self._outbox.enqueue(audit_events.pool_evicted(eviction, actor))
                evicted.append(eviction)
            await self._outbox.flush()
            still_open = in_slices(list(self._manager.pools()))
            skipped = {pool.pool_id: _why_open(pool) async for pool in still_open}
            return SweepReport(evicted=tuple(evicted), skipped=skipped)

        return Operation(plan=plan, execute=execute)

    def note_resize_by_hand(self, pool_id: str, at: float) -> None:
        """Note that a person set this pool's max_size at the monotonic time *at*."""
        self._resized_by_hand_at[pool_id] = at
        if len(self._resized_by_hand_at) > len(self._manager.desired):
            for gone in self._resized_by_hand_at.keys() - self._manager.desired.keys():
                del self._resized_by_hand_at[gone]

    def resized_by_hand_at(self, pool_id: str) -> float | None:
        """When a person last set this pool's max_size, in monotonic seconds."""
        return self._resized_by_hand_at.get(pool_id)

    async def close(self, deadline: float) -> None:
        """Wait up to *deadline* seconds until evictions have ended and are recorded.

        Safe to call twice.
        """
        await self._background.close(deadline)

    def _plan_on_open_pool(
        self, state: TenantState, step: Callable[[Pool], Plan], *, whole_pool: bool
    ) -> Callable[[], Awaitable[PlanFor[Pool]]]:
        spec = state.tenant.spec

        async def plan() -> PlanFor[Pool]:
            spec.check_scope(whole_pool=whole_pool)
            pool = self._manager.find(spec.pool_id)
            if pool is None:
                raise PoolNotFound(f"The pool of tenant {spec.id} is not open.")
            shared = warn_if_shared(spec, self._manager.tenants.count(spec.pool_id))
            return PlanFor.of(pool, step(pool), shared)

        return plan

    def _plan_here_and_on_nodes(
        self, state: TenantState, step: Callable[[Pool], Plan], *, whole_pool: bool
    ) -> Callable[[], Awaitable[PlanFor[Pool | None]]]:
        spec = state.tenant.spec
        plan_here = self._plan_on_open_pool(state, step, whole_pool=whole_pool)

        async def plan() -> PlanFor[Pool | None]:
            on_nodes = Plan()
            if self._manager.desired.is_on_nodes(state.tenant):
                on_nodes = plan_step(PlanAction.RECYCLE, f"pool {spec.pool_id} on nodes")
                if self._manager.find(spec.pool_id) is None:
                    return PlanFor[Pool | None].of(None, on_nodes)
            here = await plan_here()
            return PlanFor[Pool | None].of(here.subject, here, on_nodes)

        return plan

    async def _recycle_on_nodes(self, state: TenantState, actor: Actor) -> Mapping[str, bool]:
        if not self._manager.desired.is_on_nodes(state.tenant):
            return {}
        await self._changes.recycle_on_nodes(state, actor)
        return await self._wait_recycled(state.tenant.spec)

    async def _record(self, action: str, pool: Pool, actor: Actor, **after: float) -> None:
        event = audit_events.pool_operated(action, pool.pool_id, actor, after)
        await self._outbox.record(event)

    def _close(
        self, pool: Pool, reason: EvictionReason, deadline: float, actor: Actor
    ) -> asyncio.Task[Eviction]:
        self._convergence.keep_closed(pool.pool_id)

        async def close_and_record() -> Eviction:
            eviction = await self._manager.evict(pool, reason, deadline)
            self._outbox.enqueue(audit_events.pool_evicted(eviction, actor))
            return eviction

        return self._background.start(f"pool {pool.pool_id}: evict and record", close_and_record())


def _closing(deadline: float, pool: Pool) -> Plan:
    return plan_close(pool.pool_id, pool.metrics, deadline)


def _recycling(pool: Pool) -> Plan:
    return plan_recycle(pool.pool_id, pool.size, pool.metrics)


def _testing(pool: Pool) -> Plan:
    tested = {"connections": pool.metrics.idle_connections}
    return plan_step(PlanAction.CHECK, f"pool {pool.pool_id}", after=tested)


def _why_open(pool: Pool) -> str:
    if pool.is_busy:
        return "busy"
    return "min_size" if pool.size.min_size else "not_expired"
