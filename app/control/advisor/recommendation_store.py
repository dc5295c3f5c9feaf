"""AdviceBook: every recommendation's life, in the catalog and, while it matters, in memory.

Keeps what is open and what was dismissed, so that the same is not said again and again. What
is said, and whether it is obeyed, is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime

from app.catalog.catalog import Catalog
from app.control.audit import audit_events
from app.control.locks import KeyedLocks
from app.domain.advisor import PoolSizingRecommendation, ReasonCode
from app.domain.audit import Actor
from app.domain.recommendation import Recommendation, RecommendationStatus
from app.pools.manager import TenantPoolManager

# A proposal that differs by no more than this share from one made before is the same.
_SAME = 0.1
# Whoever dismissed a size dismissed those near it.
_NEAR = 0.25
_DECISION = "the advice"


class RecommendationStore:
    """Recommendations: written down, looked up, closed."""

    def __init__(self, catalog: Catalog, manager: TenantPoolManager) -> None:
        """Write into *catalog*; what *manager* has no tenant for any more is over."""
        self._catalog = catalog
        self._manager = manager
        self._open: dict[str, Recommendation] = {}
        self._dismissed: dict[str, Recommendation] = {}
        self._locks = KeyedLocks()

    @property
    def open(self) -> Mapping[str, Recommendation]:
        """What is open, by subject; known even while the catalog is away."""
        return self._open

    async def load(self) -> None:
        """Learn what the catalog remembers; at start."""
        stored = self._catalog.recommendations
        page = await stored.page(status=RecommendationStatus.OPEN, limit=10_000)
        self._open = {each.subject: each for each in page}
        dismissed = await stored.dismissed(datetime.now(UTC))
        self._dismissed = {each.subject: each for each in dismissed}

    def lock_decisions(self) -> AbstractAsyncContextManager[None]:
        """Apply or dismiss a recommendation in this block, one at a time.

        Raises:
            Unavailable: another decision took too long.
        """
        return self._locks.hold(_DECISION)

    async def add(self, recommendation: Recommendation) -> bool:
        """Write down a new one, which supersedes the open one of its subject.

        False if one is being applied or dismissed now: it must not be superseded meanwhile, and
        the next tick sees what came of it.
        """
        if self._locks.is_held(_DECISION):
            return False
        async with self._locks.hold(_DECISION):
            await self._catalog.recommendations.add(recommendation)
            self._open[recommendation.subject] = recommendation
        return True

    def find_open(
        self, subject: str, advice: PoolSizingRecommendation, max_size: int
    ) -> Recommendation | None:
        """The open one that says as much as *advice* about a pool of *max_size*."""
        found = self._open.get(subject)
        return found if found and _says(found, advice, max_size, _SAME) else None

    def find_dismissed(
        self, subject: str, advice: PoolSizingRecommendation, max_size: int
    ) -> Recommendation | None:
        """The dismissed one, not out of date yet, that said about as much as *advice*."""
        found = self._dismissed.get(subject)
        return found if found and _says(found, advice, max_size, _NEAR) else None

    async def close(
        self, found: Recommendation, status: RecommendationStatus, actor: Actor
    ) -> Recommendation:
        """Note what became of it.

        Raises:
            RecommendationNotFound, RecommendationClosed, CatalogUnavailable
        """
        event = audit_events.recommendation_closed(found, status, actor)
        takes_back = found.advice.reason_code is ReasonCode.GROWTH_UNDONE
        closed = await self._catalog.recommendations.close(
            found.id,
            status,
            at=event.at,
            closed_by=actor.name,
            event=event,
            undoes_growth=takes_back and status is RecommendationStatus.APPLIED,
        )
        audit_events.log(event)
        if status is RecommendationStatus.DISMISSED:
            self._dismissed[found.subject] = closed
        standing = self._open.get(found.subject)
        if standing is not None and standing.id == found.id:
            del self._open[found.subject]
        return closed

    async def expire(self) -> None:
        """Close what is out of date.

        Raises:
            CatalogUnavailable: the catalog was not told; it is the next time.
        """
        now = datetime.now(UTC)
        for subject, each in list(self._dismissed.items()):
            if not self._stands(each, now):
                del self._dismissed[subject]
        if all(self._stands(each, now) for each in self._open.values()):
            return
        await self._catalog.recommendations.expire(now)
        self._open = {
            subject: each for subject, each in self._open.items() if self._stands(each, now)
        }

    def _stands(self, recommendation: Recommendation, now: datetime) -> bool:
        # The catalog forgets a tenant's advice together with the tenant.
        tenant = recommendation.tenant
        is_used = tenant is None or tenant in self._manager.tenant_states
        return is_used and recommendation.expires_at > now


def _says(
    made: Recommendation, advice: PoolSizingRecommendation, max_size: int, tolerance: float
) -> bool:
    """Whether *made* proposed the same, give or take a share of it, for the same size."""
    if made.advice.reason_code is ReasonCode.GROWTH_UNDONE is not advice.reason_code:
        return False
    difference = abs(made.advice.new_size - advice.new_size)
    return (
        made.max_size == max_size
        and made.advice.action is advice.action
        and difference <= tolerance * made.advice.new_size
    )
