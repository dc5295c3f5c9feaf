"""Recommends another kind of pool, from each tenant's usage over hours.

It measures; `app.domain.advisor.placement` decides. A person carries out the recommendation.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from uuid import uuid4

from app.domain.advisor import (
    PlacementConfig,
    PlacementSuggestion,
    PoolSizingRecommendation,
    ScalingAction,
    TenantUsage,
    suggest_placement,
)
from app.domain.pool import PoolState
from app.domain.recommendation import MAX_LIFETIME, Recommendation, RecommendationStatus
from app.domain.tenant import AdvisorMode
from app.pools.manager import TenantPoolManager
from app.pools.tenant_state import TenantState

SHARED_PATIENCE_SECONDS = 0.1
"""A caller that waits longer in the shared pool is late."""

_INTERVAL = 60.0


class PlacementAdvisor:
    """Keeps two marks of every tenant's hold times; usage is measured since the older mark."""

    def __init__(
        self,
        manager: TenantPoolManager,
        config: PlacementConfig | None = None,
        *,
        is_on_nodes: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """Suggest nothing about tenants *on nodes*, because each needs its own role there."""
        self._manager = manager
        self._is_on_nodes = is_on_nodes
        self._config = config or PlacementConfig()
        self._older: dict[str, tuple[float, float]] = {}
        self._newer: dict[str, tuple[float, float]] = {}
        self._marked_at: float | None = None
        self._due = 0.0

    def suggest(self, now: float, default_mode: AdvisorMode) -> Iterator[Recommendation | None]:
        """Yield a recommendation or None for each tenant, once a minute, in short steps.

        None if its mode is off.
        """
        if now < self._due:
            return
        self._due = now + _INTERVAL
        yield from self._mark(now)
        for state in self._tenants():
            if state is None:
                yield None
                continue
            mode = state.tenant.spec.advisor_mode or default_mode
            found = None if mode is AdvisorMode.OFF else self._suggestion(state, now)
            yield self._recommendation(state, found) if found else None

    def _mark(self, now: float) -> Iterator[None]:
        is_due = self._marked_at is None or now - self._marked_at >= self._config.min_seconds
        if is_due:
            self._older, self._newer, self._marked_at = self._newer, {}, now
        for name, state in list(self._manager.tenants.items()):
            if name not in self._newer and (is_due or name not in self._older):
                self._newer[name] = (now, state.recorder.hold_seconds)
            yield

    def _tenants(self) -> Iterator[TenantState | None]:
        """Tenants whose own pool is open, and those that recently used a shared one.

        None for each other one.
        """
        for pool in list(self._manager.pools()):
            state = self._manager.tenants.get(pool.pool_id)
            if state is not None:
                yield state
        for active in self._manager.recently_active_tenants():
            yield active if active and active.tenant.spec.is_shared else None

    def _suggestion(self, state: TenantState, now: float) -> PlacementSuggestion | None:
        name, held = state.tenant.spec.id, state.recorder.hold_seconds
        mark = self._older.get(name) or self._newer.get(name)
        if self._is_on_nodes(name):
            return None
        if mark is None or now - mark[0] < self._config.min_seconds or held < mark[1]:
            return None
        seconds = now - mark[0]
        usage = TenantUsage(
            strategy=state.tenant.spec.strategy,
            seconds=seconds,
            offered_load=(held - mark[1]) / seconds,
            late_share=self._late_share(state, now),
        )
        return suggest_placement(self._config, usage)

    def _late_share(self, state: TenantState, now: float) -> float:
        """The share of its callers that waited for long, and not for the end of an interruption."""
        pool, recorder = self._manager.find(state.tenant.spec.pool_id), state.recorder
        if pool is None or pool.state is PoolState.PAUSED or not pool.server.is_available:
            return 0.0
        if now < pool.interrupted_until + recorder.window:
            return 0.0
        return recorder.late_share(SHARED_PATIENCE_SECONDS, now)

    def _recommendation(
        self, state: TenantState, found: PlacementSuggestion
    ) -> Recommendation | None:
        pool = self._manager.find(state.tenant.spec.pool_id)
        if pool is None:
            return None
        now, size = datetime.now(UTC), pool.size.max_size
        advice = PoolSizingRecommendation(
            action=ScalingAction.STABLE,
            current_size=size,
            new_size=size,
            reason_code=found.reason_code,
            reason=found.reason,
            evidence=found.evidence,
        )
        return Recommendation(
            id=uuid4(),
            pool_id=pool.pool_id,
            tenant=state.tenant.spec.id,
            rule="placement",
            advice=advice,
            max_size=size,
            metrics=self._manager.tenant_metrics(state),
            status=RecommendationStatus.OPEN,
            created_at=now,
            expires_at=now + MAX_LIFETIME,
            placement=found.placement,
        )
