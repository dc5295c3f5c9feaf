"""Applies a recommendation, for a person or for the advisor, or dismisses it.

The change of the pool and the applied recommendation are one transaction.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

from app.control.advisor.recommendation_store import RecommendationStore
from app.control.operation import Operation, PlanFor
from app.control.pools.convergence import PoolConvergence
from app.control.pools.pool_changes import PoolChanges, Transition
from app.domain.advisor import PoolSizingRecommendation, ScalingAction
from app.domain.audit import ADVISOR, Actor
from app.domain.desired_pool import PoolChange
from app.domain.errors import (
    RecommendationClosed,
    RecommendationIsPlacement,
    RecommendationNotFound,
)
from app.domain.plan import Plan, plan_record
from app.domain.pool import MAX_POOL_SIZE, PoolSize
from app.domain.recommendation import Recommendation, RecommendationStatus
from app.pools.manager import TenantPoolManager
from app.pools.tenant_state import TenantState


class RecommendationApplier:
    """Applies recommendations, or dismisses them."""

    def __init__(
        self,
        manager: TenantPoolManager,
        changes: PoolChanges,
        convergence: PoolConvergence,
        store: RecommendationStore,
    ) -> None:
        self._manager = manager
        self._changes = changes
        self._convergence = convergence
        self._store = store

    async def apply(
        self, recommendation_id: UUID, actor: Actor
    ) -> Operation[Transition, Recommendation]:
        """Give the pool the recommended size.

        Raises:
            RecommendationNotFound, RecommendationClosed, RecommendationIsPlacement, BudgetExceeded,
            InvalidInput, TenantDeleting, NotProvisioned, ServerUnavailable, CatalogUnavailable
        """
        found = await self._store.get_open(recommendation_id)
        if found.placement is not None:
            raise RecommendationIsPlacement
        state = self._manager.tenants.of_pool(found.pool_id)
        if state is None:
            raise RecommendationNotFound("No tenant uses the recommendation's pool any more.")
        spec = state.tenant.spec

        async def plan() -> PlanFor[Transition]:
            if not spec.is_shared and self._manager.tenants.get(spec.id) is not state:
                raise RecommendationNotFound("The recommendation's tenant was deleted.")
            size = self._manager.desired.size(spec.pool_id, spec.strategy)
            # Until a server has been reached, its budget is unknown.
            server = self._manager.server(spec.server)
            limit = server.limit if server.limits else MAX_POOL_SIZE
            advice = clamped(found.advice, size.min_size, limit)
            if size.max_size != found.max_size or not changes_size(advice, size):
                raise RecommendationClosed(
                    f"The recommendation is outdated: it was made for max_size {found.max_size} "
                    f"and other limits; max_size is now {size.max_size}."
                )
            change = self._plan(state, advice, actor)
            closing = _plan_close(found, RecommendationStatus.APPLIED, actor)
            return PlanFor.of(change.subject, change, closing)

        async def execute(plan: PlanFor[Transition]) -> Recommendation:
            applied = await self._record(found, plan.subject, actor)
            change = plan.subject
            await self._convergence.apply(state, change.desired, size_before=change.size_before)
            return applied

        @asynccontextmanager
        async def lock() -> AsyncIterator[None]:
            async with self._changes.lock(spec)():
                try:
                    yield
                except RecommendationClosed:
                    await self._store.close(found, RecommendationStatus.SUPERSEDED, actor)
                    raise

        return Operation(plan=plan, execute=execute, lock=lock)

    async def auto_apply(self, recommendation: Recommendation, state: TenantState) -> None:
        """Set the recommended size on behalf of the advisor; the pool follows later.

        It waits for the catalog, but not for the pool's server. The advice must fit the pool's
        present state.

        Raises:
            BudgetExceeded, InvalidInput, TenantDeleting, NotProvisioned, ServerUnavailable,
            RecommendationClosed, CatalogUnavailable
        """
        async with self._changes.lock(state.tenant.spec)():
            transition = self._plan(state, recommendation.advice, ADVISOR).subject
            await self._record(recommendation, transition, ADVISOR)
        self._convergence.apply_in_background(state, transition.size_before)

    async def dismiss(
        self, recommendation_id: UUID, actor: Actor
    ) -> Operation[Recommendation, Recommendation]:
        """Close a recommendation without changing anything else.

        Raises:
            RecommendationNotFound, RecommendationClosed, CatalogUnavailable
        """
        found = await self._store.get_open(recommendation_id)

        async def plan() -> PlanFor[Recommendation]:
            return PlanFor.of(found, _plan_close(found, RecommendationStatus.DISMISSED, actor))

        async def execute(plan: PlanFor[Recommendation]) -> Recommendation:
            return await self._store.close(plan.subject, RecommendationStatus.DISMISSED, actor)

        return Operation(plan=plan, execute=execute)

    def _plan(
        self, state: TenantState, advice: PoolSizingRecommendation, actor: Actor
    ) -> PlanFor[Transition]:
        if not state.tenant.spec.is_shared:
            state.tenant.check_usable()
        change = PoolChange(max_size=advice.new_size)
        return self._changes.plan(state, change, actor, whole_pool=True, reason=advice.reason)

    async def _record(
        self, recommendation: Recommendation, transition: Transition, actor: Actor
    ) -> Recommendation:
        applied = recommendation.closed(RecommendationStatus.APPLIED, actor.name, datetime.now(UTC))
        await self._changes.record(transition, applied=(applied, applied.closing_event(actor)))
        self._store.drop(applied)
        return applied


def _plan_close(found: Recommendation, status: RecommendationStatus, actor: Actor) -> Plan:
    event = found.closed(status, actor.name, datetime.now(UTC)).closing_event(actor)
    return plan_record(f"recommendation {found.id}", event)


def clamped(
    advice: PoolSizingRecommendation, min_size: int, limit: int
) -> PoolSizingRecommendation:
    """Limit *advice* to min_size at least and *limit*, the server's budget or less, at most."""
    new_size = max(min(advice.new_size, limit), min_size)
    if advice.action is ScalingAction.STABLE or new_size == advice.new_size:
        return advice
    limited = advice.held_at(new_size)
    limits = "min_size, max_leases or the server's budget"
    return replace(limited, reason=f"{advice.reason}; limited to {new_size} by {limits}")


def changes_size(advice: PoolSizingRecommendation, size: PoolSize) -> bool:
    """Whether applying *advice* moves max_size in the intended direction.

    A rule may start from the open connections; a pool that could open more is not too small.
    """
    match advice.action:
        case ScalingAction.SCALE_UP:
            return advice.new_size > size.max_size
        case ScalingAction.SCALE_DOWN:
            return advice.new_size < size.max_size
        case ScalingAction.STABLE:
            return False
