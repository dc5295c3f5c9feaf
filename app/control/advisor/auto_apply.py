"""Mode `apply`: the advisor resizes pools itself, within limits.

It must not resize too often, or overrule a size that a person set recently.
"""

from collections import defaultdict, deque
from datetime import UTC, datetime, timedelta
from time import monotonic

import structlog

from app.catalog.catalog import Catalog
from app.control.advisor.recommendation_applier import RecommendationApplier
from app.control.pools.operations import PoolOperations
from app.domain.audit import ADVISOR
from app.domain.errors import CatalogUnavailable, PoolkeeperError
from app.domain.recommendation import Recommendation
from app.pools.tenant_state import TenantState

_MINUTE = 60.0
_MAX_EVENTS = 1000

_log = structlog.get_logger(__name__)


class AutoApply:
    """Applies recommendations in the advisor's name."""

    def __init__(
        self,
        catalog: Catalog,
        operations: PoolOperations,
        applier: RecommendationApplier,
        *,
        resizes_per_minute: int,
        cooldown_seconds: float,
    ) -> None:
        """Resize pools of one server *resizes_per_minute* times at most.

        Leave alone for *cooldown_seconds* what a person sized.
        """
        self._catalog = catalog
        self._operations = operations
        self._applier = applier
        self._resizes_per_minute = resizes_per_minute
        self._cooldown = cooldown_seconds
        # When pools of each server were resized in the last minute.
        self._resized_at: defaultdict[str, deque[float]] = defaultdict(deque)

    async def load(self) -> None:
        """Find in the audit trail which pools a person sized recently; at start."""
        now = datetime.now(UTC)
        since = now - timedelta(seconds=self._cooldown)
        for action in ("pool.declared", "pool.resized"):
            page = await self._catalog.audit_log.page(action=action, since=since, limit=_MAX_EVENTS)
            for event in reversed(page):
                # A change with a reason comes from a recommendation, also if a person applied it.
                is_by_hand = event.actor.name != ADVISOR.name and event.reason is None
                before, after = event.before or {}, event.after or {}
                if is_by_hand and event.pool and before.get("max_size") != after.get("max_size"):
                    # The clock that wrote it may be ahead.
                    age = max(0.0, (now - event.at).total_seconds())
                    self._operations.note_resize_by_hand(event.pool, monotonic() - age)

    async def apply(self, recommendation: Recommendation, state: TenantState) -> str | None:
        """Apply *recommendation* unless something blocks it; return the reason, or None if applied.

        Raises:
            CatalogUnavailable
        """
        server = state.tenant.spec.server
        blocked_by = self.blocker(recommendation.pool_id, server)
        if blocked_by is not None:
            return blocked_by
        facts = log_fields(recommendation)
        try:
            await self._applier.auto_apply(recommendation, state)
        except CatalogUnavailable:
            raise
        except PoolkeeperError as error:
            _log.warning("recommendation not applied", **facts, why=error.detail)
            return error.detail
        self._resized_at[server].append(monotonic())
        _log.info("recommendation applied", **facts)
        return None

    def blocker(self, pool_id: str, server: str) -> str | None:
        """Why it must not resize a pool of *server* now; None if it may."""
        now = monotonic()
        by_hand = self._operations.resized_by_hand_at(pool_id)
        if by_hand is not None and now - by_hand < self._cooldown:
            return f"a person set this size {_duration(now - by_hand)} ago"
        resized_at = self._resized_at[server]
        while resized_at and now - resized_at[0] > _MINUTE:
            resized_at.popleft()
        if len(resized_at) >= self._resizes_per_minute:
            return (
                f"the limit of {self._resizes_per_minute} automatic resizes a minute on this "
                "server is reached"
            )
        return None


def log_fields(recommendation: Recommendation) -> dict[str, object]:
    return {
        "pool": recommendation.pool_id,
        "new_size": recommendation.advice.new_size,
        "max_size": recommendation.max_size,
        "reason": recommendation.advice.reason,
    }


def _duration(seconds: float) -> str:
    return f"{seconds / _MINUTE:.0f} min" if seconds >= _MINUTE else f"{seconds:.0f} s"
