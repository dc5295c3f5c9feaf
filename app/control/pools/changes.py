"""Changes of a pool's desired state: its size, and whether it is paused."""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic

from app.control.operation import Operation, PlanFor
from app.control.pools.desired_state import DesiredPoolState, Transition
from app.domain.audit import Actor
from app.domain.desired_state import DesiredPool, PoolChange
from app.domain.errors import PoolDraining
from app.pools.manager import TenantPoolManager
from app.pools.pool import Pool
from app.pools.tenant_state import TenantState

_WARM_DEADLINE = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOutcome:
    """A pool after a change; *created*: it was the first change of its desired state."""

    pool: Pool | None
    desired: DesiredPool
    created: bool


ChangePool = Operation[Transition, PoolOutcome]


class PoolChanges:
    """Operations that change the desired state of a pool."""

    def __init__(self, manager: TenantPoolManager, desired: DesiredPoolState) -> None:
        self._manager = manager
        self._desired = desired
        # In monotonic seconds.
        self._resized_by_hand_at: dict[str, float] = {}

    def put(
        self,
        state: TenantState,
        change: PoolChange,
        actor: Actor,
        *,
        whole_pool: bool = False,
        expected_generation: int | None = None,
    ) -> ChangePool:
        """Open the tenant's pool with this size, or resize it, and wait until it is warm.

        Raises:
            TenantDeleting, NotProvisioned, InvalidInput, PoolIsShared, BudgetExceeded,
            StaleVersion, CatalogUnavailable, PoolLimitReached, PoolDraining
        """
        spec = state.tenant.spec

        async def plan() -> PlanFor[Transition]:
            state.tenant.check_usable()
            plan = self._desired.plan(state, change, actor, open_now=True, whole_pool=whole_pool)
            transition = plan.subject
            if transition.pool is not None and transition.pool.is_closing:
                raise PoolDraining(f"Pool {spec.pool_id} is draining; it opens again afterwards.")
            if transition.desired.size != transition.size_before:
                spec.check_scope(whole_pool=whole_pool)
            return plan

        async def execute(plan: PlanFor[Transition]) -> PoolOutcome:
            desired, created = await self._desired.record(plan.subject, expected_generation)
            if change.max_size is not None:
                self.note_resize_by_hand(spec.pool_id, monotonic())
            pool = await self._desired.apply(state, plan.subject, desired, open_now=True)
            if pool is not None and pool.server.is_available:
                await pool.wait_until_warm(_WARM_DEADLINE)
            return PoolOutcome(pool=pool, desired=desired, created=created)

        return Operation(
            plan=plan, execute=execute, lock=self._desired.lock(spec), needs_catalog=True
        )

    def pause(
        self, state: TenantState, actor: Actor, *, paused: bool, whole_pool: bool = False
    ) -> ChangePool:
        """Pause the tenant's pool, or resume it; works while the catalog is unreachable.

        Raises:
            TenantDeleting, NotProvisioned, PoolIsShared
        """
        spec = state.tenant.spec

        async def plan() -> PlanFor[Transition]:
            spec.check_scope(whole_pool=whole_pool)
            state.tenant.check_usable()
            return self._desired.plan(
                state, PoolChange(paused=paused), actor, whole_pool=whole_pool
            )

        async def execute(plan: PlanFor[Transition]) -> PoolOutcome:
            desired, created = await self._desired.record_or_keep(plan.subject)
            pool = await self._desired.apply(state, plan.subject, desired)
            return PoolOutcome(pool=pool, desired=desired, created=created)

        return Operation(plan=plan, execute=execute, lock=self._desired.lock(spec))

    def note_resize_by_hand(self, pool_id: str, at: float) -> None:
        """Remember that a person set this pool's max_size at the monotonic time *at*."""
        self._resized_by_hand_at[pool_id] = at
        if len(self._resized_by_hand_at) > len(self._manager.desired):
            for gone in self._resized_by_hand_at.keys() - self._manager.desired.keys():
                del self._resized_by_hand_at[gone]

    def resized_by_hand_at(self, pool_id: str) -> float | None:
        """When a person last set this pool's max_size, in monotonic seconds."""
        return self._resized_by_hand_at.get(pool_id)
