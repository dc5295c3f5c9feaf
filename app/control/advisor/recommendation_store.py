"""Stores recommendations in the catalog; keeps open and recently dismissed ones in memory.

The memory keeps the advisor from repeating itself, and is available while the catalog is
unreachable.
"""

from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from app.catalog.catalog import Catalog
from app.domain.advisor import PoolSizingRecommendation, ReasonCode, ScalingAction
from app.domain.audit import ADVISOR, Actor
from app.domain.errors import RecommendationClosed, RecommendationNotFound
from app.domain.recommendation import MAX_LIFETIME, Recommendation, RecommendationStatus
from app.domain.tenant import TenantId
from app.pools.manager import TenantPoolManager

# Sizes are similar if they differ by no more than this share, or by one connection.
_SIMILAR = 0.25
# Following an open recommendation must not leave a pool smaller than advised now by more than this
# share, or one connection.
_TOO_SMALL = 0.1
# Maximum number of expired recommendations closed in one transaction; each has an event, and a line
# in the log.
_EXPIRED_AT_ONCE = 100


class RecommendationStore:
    """Stores, finds and closes recommendations.

    Attributes:
        open: the open ones by subject; available while the catalog is unreachable, too.
    """

    def __init__(self, catalog: Catalog, manager: TenantPoolManager) -> None:
        self._catalog = catalog
        self._manager = manager
        self.open: dict[str, Recommendation] = {}
        self._dismissed: dict[str, Recommendation] = {}

    async def load(self) -> None:
        """Load recommendations from the catalog, at start."""
        stored = self._catalog.recommendations
        page = await stored.page(status=RecommendationStatus.OPEN, limit=10_000)
        self.open = {each.subject: each for each in page}
        dismissed = await stored.dismissed(datetime.now(UTC))
        self._dismissed = {each.subject: each for each in dismissed}

    async def get_open(self, recommendation_id: UUID) -> Recommendation:
        """Return the open recommendation with this id.

        Raises:
            RecommendationNotFound, RecommendationClosed, CatalogUnavailable
        """
        found = await self._catalog.recommendations.get(recommendation_id)
        if found.status is not RecommendationStatus.OPEN:
            raise RecommendationClosed(f"The recommendation is already {found.status}.")
        return found

    async def add(self, recommendation: Recommendation) -> None:
        """Store a new recommendation; it supersedes the open one of its subject."""
        await self._catalog.recommendations.add(recommendation)
        self.open[recommendation.subject] = recommendation

    def find_open(
        self, subject: str, advice: PoolSizingRecommendation, max_size: int
    ) -> Recommendation | None:
        """Find an open recommendation that *advice* about a pool of *max_size* does not supersede.

        Following it must not give the pool much less than is advised now. More does no harm: if
        advice goes up and down, the largest recommended size stays open.
        """
        found = self.open.get(subject)
        if found is None or not _is_same_change(found, advice, max_size):
            return None
        is_growth = advice.action is ScalingAction.SCALE_UP
        margin = _margin(found.advice, _SIMILAR if is_growth else _TOO_SMALL)
        return found if advice.new_size <= found.advice.new_size + margin else None

    def find_dismissed(
        self, subject: str, advice: PoolSizingRecommendation, max_size: int
    ) -> Recommendation | None:
        """Find a dismissed, unexpired recommendation that is similar to *advice*."""
        found = self._dismissed.get(subject)
        if found is None or not _is_same_change(found, advice, max_size):
            return None
        return found if _is_similar(found.advice, advice) else None

    def knows(self, recommendation: Recommendation) -> bool:
        """Whether the same recommendation is open or was recently dismissed."""
        subject, size = recommendation.subject, recommendation.max_size
        find = (self.find_open, self.find_dismissed)
        return any(each(subject, recommendation.advice, size) for each in find)

    async def close(
        self, found: Recommendation, status: RecommendationStatus, actor: Actor
    ) -> Recommendation:
        """Close an open recommendation without applying it.

        Raises:
            RecommendationNotFound, RecommendationClosed, CatalogUnavailable
        """
        closed = found.closed(status, actor.name, datetime.now(UTC))
        await self._catalog.recommendations.close(closed, event=closed.closing_event(actor))
        if status is RecommendationStatus.DISMISSED:
            self._dismissed[found.subject] = closed
        self.drop(found)
        return closed

    async def renew(
        self, found: Recommendation, advice: PoolSizingRecommendation, lifetime: timedelta
    ) -> None:
        """Extend *found*, if it is still open, by *lifetime*, because *advice* repeats it.

        It is stored once in half of that time. It still expires after a day.

        Raises:
            CatalogUnavailable
        """
        is_repeated = _is_similar(found.advice, advice)
        expires_at = min(datetime.now(UTC) + lifetime, found.created_at + MAX_LIFETIME)
        if not is_repeated or expires_at - found.expires_at < lifetime / 2:
            return
        if self.open.get(found.subject) is found:
            renewed = replace(found, expires_at=expires_at)
            await self._catalog.recommendations.extend(renewed)
            # A person may have closed it in the meantime.
            if self.open.get(found.subject) is found:
                self.open[found.subject] = renewed

    async def withdraw(self, found: Recommendation) -> None:
        """Close an open recommendation that the advisor no longer supports.

        Raises:
            CatalogUnavailable
        """
        with suppress(RecommendationNotFound, RecommendationClosed):
            await self.close(found, RecommendationStatus.SUPERSEDED, ADVISOR)
        self.drop(found)

    def drop(self, closed: Recommendation) -> None:
        """Forget a recommendation that is no longer open."""
        found = self.open.get(closed.subject)
        if found is not None and found.id == closed.id:
            del self.open[closed.subject]

    def forget(self, tenant: TenantId) -> None:
        """Drop those about a deleted tenant: a later one may have its id."""
        for kept in (self.open, self._dismissed):
            for subject in [each for each, one in kept.items() if one.tenant == tenant]:
                del kept[subject]

    async def expire(self) -> None:
        """Close expired recommendations.

        Raises:
            CatalogUnavailable: the next call tries again.
        """
        now = datetime.now(UTC)
        for subject, each in list(self._dismissed.items()):
            if not self._is_current(each, now):
                del self._dismissed[subject]
        if all(self._is_current(each, now) for each in self.open.values()):
            return
        while await self._catalog.recommendations.expire(now, limit=_EXPIRED_AT_ONCE):
            pass
        self.open = {
            subject: each for subject, each in self.open.items() if self._is_current(each, now)
        }

    def _is_current(self, recommendation: Recommendation, now: datetime) -> bool:
        # Deleting a tenant deletes its recommendations in the catalog.
        tenant = recommendation.tenant
        is_used = tenant is None or tenant in self._manager.tenants
        return is_used and recommendation.expires_at > now


def _is_same_change(made: Recommendation, advice: PoolSizingRecommendation, max_size: int) -> bool:
    """Whether *made* and *advice* recommend about the same size, in the same direction."""
    if made.advice.reason_code is ReasonCode.GROWTH_UNDONE is not advice.reason_code:
        return False
    return made.max_size == max_size and made.advice.action is advice.action


def _is_similar(made: PoolSizingRecommendation, advice: PoolSizingRecommendation) -> bool:
    return abs(made.new_size - advice.new_size) <= _margin(made, _SIMILAR)


def _margin(made: PoolSizingRecommendation, share: float) -> float:
    return max(1, share * made.new_size)
