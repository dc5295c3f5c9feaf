"""Operations on open pools that leave their desired state as it is: evict, drain, recycle, check.

All of them work while the catalog is unreachable; the outbox keeps their events until it is back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from time import monotonic

from app.control.audit import audit_events
from app.control.audit.outbox import AuditOutbox
from app.control.background.tasks import BackgroundTasks
from app.control.operation import Operation, PlanFor
from app.control.pools.desired_state import DesiredPoolState
from app.domain.audit import POLLER, Actor
from app.domain.errors import PoolNotFound
from app.domain.plan import Plan, PlanAction, plan_close, plan_recycle, plan_step, warn_if_shared
from app.pools.eviction import Eviction, EvictionReason, SkippedEviction
from app.pools.manager import TenantPoolManager
from app.pools.pool import Pool
from app.pools.tenant_state import TenantState


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """How many idle connections were tested, and how many of them failed and were closed."""

    tested: int
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepReport:
    """Which pools a sweep closed, and which it left open and why."""

    evicted: tuple[Eviction, ...]
    skipped: tuple[SkippedEviction, ...]


class PoolOperations:
    """Operations on open pools, each with its audit event.

    Each plan about a tenant's pool raises PoolNotFound when it is not open, and PoolIsShared
    when it serves other tenants and *whole_pool* does not include them.
    """

    def __init__(
        self, manager: TenantPoolManager, desired: DesiredPoolState, outbox: AuditOutbox
    ) -> None:
        self._manager = manager
        self._desired = desired
        self._outbox = outbox
        self._background = BackgroundTasks()

    def evict(
        self, state: TenantState, actor: Actor, *, deadline: float, whole_pool: bool = False
    ) -> Operation[Pool, Eviction]:
        """Close the pool: leases get *deadline* seconds, then they are cut; 0 cuts at once.

        It keeps its desired size, and opens again at its next use.
        """
        reason = EvictionReason.REQUESTED if deadline else EvictionReason.FORCED

        async def plan() -> PlanFor[Pool]:
            pool = self._open_pool(state, whole_pool=whole_pool)
            closing = plan_close(pool.pool_id, pool.metrics, deadline)
            return PlanFor.of(pool, closing, self._shared(state))

        async def execute(plan: PlanFor[Pool]) -> Eviction:
            # Shielded: the eviction and its audit event outlive a caller that gives up.
            eviction = await asyncio.shield(self._close(plan.subject, reason, deadline, actor))
            await self._outbox.flush()
            return eviction

        return Operation(plan=plan, execute=execute)

    def drain(
        self, state: TenantState, actor: Actor, *, deadline: float, whole_pool: bool = False
    ) -> Operation[Pool, Pool]:
        """Begin to close the pool and return at once; it refuses new leases from now on."""

        async def plan() -> PlanFor[Pool]:
            pool = self._open_pool(state, whole_pool=whole_pool)
            closing = plan_close(pool.pool_id, pool.metrics, deadline)
            return PlanFor.of(pool, closing, self._shared(state))

        async def execute(plan: PlanFor[Pool]) -> Pool:
            pool = plan.subject
            self._close(pool, EvictionReason.DRAINED, deadline, actor)
            await self._record("draining", pool, actor, deadline_seconds=deadline)
            return pool

        return Operation(plan=plan, execute=execute)

    def recycle(
        self, state: TenantState, actor: Actor, *, whole_pool: bool = False
    ) -> Operation[Pool, int]:
        """Replace every connection without failing a borrower; how many that will be."""

        async def plan() -> PlanFor[Pool]:
            pool = self._open_pool(state, whole_pool=whole_pool)
            recycling = plan_recycle(pool.pool_id, pool.size, pool.metrics)
            return PlanFor.of(pool, recycling, self._shared(state))

        async def execute(plan: PlanFor[Pool]) -> int:
            count = plan.subject.recycle()
            await self._record("recycled", plan.subject, actor, connections=count)
            return count

        return Operation(plan=plan, execute=execute)

    def check(
        self, state: TenantState, actor: Actor, *, whole_pool: bool = False
    ) -> Operation[Pool, CheckReport]:
        """Test every idle connection now; those that fail are closed."""

        async def plan() -> PlanFor[Pool]:
            pool = self._open_pool(state, whole_pool=whole_pool)
            tested = {"connections": pool.metrics.idle_connections}
            testing = plan_step(PlanAction.CHECK, f"pool {pool.pool_id}", after=tested)
            return PlanFor.of(pool, testing, self._shared(state))

        async def execute(plan: PlanFor[Pool]) -> CheckReport:
            tested, failed = await plan.subject.check(not_since=monotonic())
            await self._record("checked", plan.subject, actor, tested=tested, failed=failed)
            return CheckReport(tested=tested, failed=failed)

        return Operation(plan=plan, execute=execute)

    def evict_expired(self, actor: Actor) -> Operation[None, SweepReport]:
        """Close every pool unused for longer than its idle timeout."""

        async def plan() -> PlanFor[None]:
            expired = self._manager.expired()
            return PlanFor.of(
                None, *(plan_close(pool.pool_id, pool.metrics, 0.0) for pool in expired)
            )

        async def execute(_: PlanFor[None]) -> SweepReport:
            earlier = self._manager.take_evictions()
            self._manager.evict_expired()
            evicted = self._manager.take_evictions()
            await self._outbox.record(
                *(audit_events.pool_evicted(eviction, POLLER) for eviction in earlier),
                *(audit_events.pool_evicted(eviction, actor) for eviction in evicted),
            )
            skipped = tuple(_left_open(self._manager.pools()))
            return SweepReport(evicted=tuple(evicted), skipped=skipped)

        return Operation(plan=plan, execute=execute)

    async def close(self, deadline: float) -> None:
        """Wait at most *deadline* seconds for evictions to end and be recorded. Safe twice."""
        await self._background.close(deadline)

    def _open_pool(self, state: TenantState, *, whole_pool: bool) -> Pool:
        spec = state.tenant.spec
        spec.check_scope(whole_pool=whole_pool)
        pool = self._manager.find(spec.pool_id)
        if pool is None:
            raise PoolNotFound(f"The pool of tenant {spec.id} is not open.")
        return pool

    def _shared(self, state: TenantState) -> Plan:
        spec = state.tenant.spec
        return warn_if_shared(spec, self._manager.tenant_count(spec.pool_id))

    async def _record(self, action: str, pool: Pool, actor: Actor, **after: float) -> None:
        event = audit_events.pool_operated(action, pool.pool_id, actor, after)
        await self._outbox.record(event)

    def _close(
        self, pool: Pool, reason: EvictionReason, deadline: float, actor: Actor
    ) -> asyncio.Task[Eviction]:
        self._desired.keep_closed(pool.pool_id)

        async def close_and_record() -> Eviction:
            eviction = await self._manager.evict(pool, reason, deadline)
            self._outbox.enqueue(audit_events.pool_evicted(eviction, actor))
            return eviction

        return self._background.start(f"pool {pool.pool_id}: evict and record", close_and_record())


def _left_open(pools: Iterable[Pool]) -> Iterable[SkippedEviction]:
    for pool in pools:
        if pool.is_busy:
            reason = "busy"
        elif pool.size.min_size:
            reason = "min_size"
        else:
            reason = "not_expired"
        yield SkippedEviction(pool_id=pool.pool_id, reason=reason)
