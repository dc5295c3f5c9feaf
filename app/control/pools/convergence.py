"""Brings pools to their desired state: opens, resizes, pauses and resumes them.

This happens at once after a change; if a crash or an outage interrupts it, the Reconciler finishes
it.
"""

import asyncio

import structlog

from app.control.background import BackgroundTasks
from app.control.keyed_locks import KeyedLocks
from app.control.pools.role_limits import RoleLimits
from app.domain.desired_pool import DesiredPool
from app.domain.errors import PoolkeeperError
from app.domain.plan import ActualPool, Plan, PlanAction, plan_pool
from app.domain.pool import PoolSize, PoolState
from app.pools.manager import TenantPoolManager
from app.pools.pool import Pool
from app.pools.tenant_state import TenantState

_OPEN_DEADLINE = 5.0
_BACKGROUND_DEADLINE = 15.0

_log = structlog.get_logger(__name__)


class PoolConvergence:
    """Brings pools to their desired state."""

    def __init__(self, manager: TenantPoolManager, limits: RoleLimits, locks: KeyedLocks) -> None:
        self._manager = manager
        self._limits = limits
        self._locks = locks
        self._background = BackgroundTasks()
        # Pools that a person closed; each opens again at its next use.
        self._kept_closed: set[str] = set()

    def keep_closed(self, pool_id: str) -> None:
        """Do not open an evicted pool because of its min_size; its next use opens it."""
        self._kept_closed.add(pool_id)

    async def converge(self, state: TenantState, desired: DesiredPool) -> int:
        """Bring a pool to its desired state at once; return the number of steps.

        It does not wait for a slot, nor for another change of the pool.

        Raises:
            PoolLimitReached: no slot is free to open the pool.
        """
        pool = self._manager.find(desired.pool_id)
        if pool is not None and not pool.is_closing:
            self._kept_closed.discard(pool.pool_id)
        elif desired.pool_id in self._kept_closed:
            return 0
        if not plan_convergence(desired, pool).steps:
            return 0
        async with self._locks.hold_if_free(desired.pool_id) as is_free:
            if not is_free:
                return 0
            _, steps = await self._follow_plan(state, desired, open_deadline=0.0)
            return steps

    async def apply(
        self,
        state: TenantState,
        desired: DesiredPool,
        *,
        size_before: PoolSize,
        open_now: bool = False,
    ) -> Pool | None:
        """Bring the pool to *desired*; the role's limit grows before, and shrinks after.

        Raises:
            PoolLimitReached: no slot was free to open the pool.
        """
        growth = desired.size.max_size - size_before.max_size
        if growth > 0:
            await self._limits.apply(state)
        pool, _ = await self._follow_plan(state, desired, open_now=open_now)
        if growth < 0:
            await self._limits.apply(state)
        return pool

    def apply_in_background(self, state: TenantState, size_before: PoolSize) -> None:
        """`apply` the recorded state, for a caller that must not wait for the pool's server."""
        name = f"pool {state.tenant.spec.pool_id}: apply desired state"
        self._background.start(name, self._apply_later(state, size_before))

    async def _apply_later(self, state: TenantState, size_before: PoolSize) -> None:
        pool_id = state.tenant.spec.pool_id
        try:
            async with asyncio.timeout(_BACKGROUND_DEADLINE), self._locks.hold(pool_id):
                desired = self._manager.desired.get(pool_id)
                if desired is not None:  # else the tenant was deleted in the meantime
                    await self.apply(state, desired, size_before=size_before)
        except (PoolkeeperError, TimeoutError) as error:
            _log.warning("pool not converged", pool=pool_id, reason=str(error) or "timeout")

    async def close(self, deadline: float) -> None:
        """Wait up to *deadline* seconds for background changes. Safe to call twice."""
        await self._background.close(deadline)

    async def _follow_plan(
        self,
        state: TenantState,
        desired: DesiredPool,
        *,
        open_now: bool = False,
        open_deadline: float = _OPEN_DEADLINE,
    ) -> tuple[Pool | None, int]:
        """Plan from the pool's present state and follow the plan.

        Return the pool and the number of steps.
        """
        pool = self._manager.find(desired.pool_id)
        steps = plan_convergence(desired, pool, open_now=open_now).steps
        for step in steps:
            match step.action:
                case PlanAction.OPEN:
                    pool = await self._manager.open_pool(state, open_deadline)
                case PlanAction.RESIZE if pool is not None:
                    self._manager.resize(pool, desired.size)
                case PlanAction.PAUSE if pool is not None:
                    pool.pause()
                case PlanAction.RESUME if pool is not None:
                    pool.resume()
        return pool, len(steps)


def plan_convergence(desired: DesiredPool, pool: Pool | None, *, open_now: bool = False) -> Plan:
    """Like `plan_pool`, but with no steps while *pool* closes."""
    if pool is None:
        return plan_pool(desired, None, open_now=open_now)
    if pool.is_closing:
        return Plan()
    actual = ActualPool(size=pool.size, paused=pool.state is PoolState.PAUSED, metrics=pool.metrics)
    return plan_pool(desired, actual)
