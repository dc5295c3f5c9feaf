"""Obeying: giving a pool the recommended size, for a person or for the advisor itself.

Through the Keeper, like any change. The advisor itself must not resize too often, nor what a
person sized a short while ago.
"""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from time import monotonic
from uuid import UUID

import structlog

from app.catalog.catalog import Catalog
from app.control.advisor.recommendation_store import RecommendationStore
from app.control.pools.changes import PoolChanges
from app.domain.advisor import PoolSizingRecommendation, ScalingAction
from app.domain.audit import ADVISOR, Actor
from app.domain.errors import (
    CatalogUnavailable,
    PoolkeeperError,
    RecommendationClosed,
    RecommendationIsPlacement,
    RecommendationNotFound,
)
from app.domain.pool import PoolSize
from app.domain.recommendation import Recommendation, RecommendationStatus
from app.pools.manager import TenantPoolManager
from app.pools.server import Server
from app.pools.tenant_state import TenantState

_MINUTE = 60.0
_MOST_REMEMBERED = 1000

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoApplyLimits:
    """How careful the advisor is when it resizes by itself.

    Attributes:
        resizes_per_minute: most of one server.
        cooldown: seconds for which it leaves alone what a person sized.
    """

    resizes_per_minute: int = 60
    cooldown_seconds: float = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyDecision:
    """What applying a recommendation comes to.

    Attributes:
        account: a tenant of its pool.
        new_size: the max_size it would get.
        reason: what the audit trail would say.
        is_resized: the pool has that size already.
        outdated: why it can be applied no more; None if it can.
    """

    account: TenantState
    new_size: int
    reason: str
    already_applied: bool
    outdated_reason: str | None


class RecommendationApplier:
    """Applies recommendations, or dismisses them."""

    def __init__(
        self,
        catalog: Catalog,
        manager: TenantPoolManager,
        changes: PoolChanges,
        book: RecommendationStore,
        caution: AutoApplyLimits,
    ) -> None:
        """Resize *manager*'s pools through *changes*; what became of advice goes into *book*."""
        self._catalog = catalog
        self._manager = manager
        self._changes = changes
        self._book = book
        self._caution = caution
        self._resized: defaultdict[str, deque[float]] = defaultdict(deque)

    async def load(self) -> None:
        """Learn from the audit trail which pools people sized a short while ago; at start."""
        now = datetime.now(UTC)
        since = now - timedelta(seconds=self._caution.cooldown_seconds)
        for action in ("pool.declared", "pool.resized"):
            page = await self._catalog.audit_log.page(
                action=action, since=since, limit=_MOST_REMEMBERED
            )
            for event in reversed(page):
                # A change with a reason is a recommendation's, whoever applied it.
                is_theirs = event.actor.name != ADVISOR.name and event.reason is None
                before, after = event.before or {}, event.after or {}
                if is_theirs and event.pool and before.get("max_size") != after.get("max_size"):
                    age = (now - event.at).total_seconds()
                    self._changes.note_resize_by_hand(event.pool, monotonic() - age)

    async def apply(self, recommendation_id: UUID, actor: Actor) -> Recommendation:
        """Give the pool the recommended size.

        Raises:
            RecommendationNotFound, RecommendationClosed, RecommendationIsPlacement, BudgetExceeded,
            InvalidInput, TenantDeleting, NotProvisioned, ServerUnavailable, CatalogUnavailable
        """
        async with self._book.lock_decisions():
            found = await self.get_open(recommendation_id)
            judgement = self.decide(found)
            if judgement.outdated_reason:
                await self._book.close(found, RecommendationStatus.SUPERSEDED, actor)
                raise RecommendationClosed(judgement.outdated_reason)
            if not judgement.already_applied:
                await self._changes.resize(
                    judgement.account, judgement.new_size, actor, reason=judgement.reason
                )
            return await self._close_applied(found, actor)

    async def get_open(self, recommendation_id: UUID) -> Recommendation:
        """One of which nothing became yet.

        Raises:
            RecommendationNotFound, RecommendationClosed, CatalogUnavailable
        """
        found = await self._catalog.recommendations.get(recommendation_id)
        if found.status is not RecommendationStatus.OPEN:
            raise RecommendationClosed(f"The recommendation is {found.status} already.")
        return found

    def decide(self, found: Recommendation) -> ApplyDecision:
        """What applying it would come to now.

        Raises:
            RecommendationIsPlacement: it is no resize.
            RecommendationNotFound: nobody uses its pool any more.
            ServerUnavailable: its server is not declared any more.
        """
        if found.placement is not None:
            raise RecommendationIsPlacement
        account = self._manager.tenant_state_for_pool(found.pool_id)
        if account is None:
            raise RecommendationNotFound("Nobody uses the recommendation's pool any more.")
        size = self._manager.desired_size(found.pool_id, account.tenant.spec.strategy)
        server = self._manager.server(account.tenant.spec.server)
        advice = clamped(found.advice, size.min_size, server)
        # A former call may have got no further than the resize.
        is_resized = size.max_size == advice.new_size != found.max_size
        fits = size.max_size == found.max_size and changes_size(advice, size)
        outdated = (
            None
            if is_resized or fits
            else f"It was made for a max_size of {found.max_size} and for other limits; "
            f"by now max_size is {size.max_size}."
        )
        return ApplyDecision(
            account=account,
            new_size=advice.new_size,
            reason=advice.reason,
            already_applied=is_resized,
            outdated_reason=outdated,
        )

    async def dismiss(self, recommendation_id: UUID, actor: Actor) -> Recommendation:
        """Leave everything as it is.

        Raises:
            RecommendationNotFound, RecommendationClosed, CatalogUnavailable
        """
        async with self._book.lock_decisions():
            found = await self.get_open(recommendation_id)
            return await self._book.close(found, RecommendationStatus.DISMISSED, actor)

    def auto_apply_blocker(self, pool_id: str, server: str) -> str | None:
        """Why the advisor must not resize a pool by itself now; None if it may."""
        now = monotonic()
        by_hand = self._changes.resized_by_hand_at(pool_id)
        if by_hand is not None and now - by_hand < self._caution.cooldown_seconds:
            return f"a person set this size {_ago(now - by_hand)} ago"
        resized = self._resized[server]
        while resized and now - resized[0] > _MINUTE:
            resized.popleft()
        if len(resized) >= self._caution.resizes_per_minute:
            return f"{len(resized)} pools of the server were resized within the last minute"
        return None

    async def auto_apply(self, recommendation: Recommendation, server: str) -> str | None:
        """Apply it in the advisor's name, if nothing stands in the way; else what does.

        Raises:
            CatalogUnavailable
        """
        obstacle = self.auto_apply_blocker(recommendation.pool_id, server)
        if obstacle is not None:
            return obstacle
        facts = log_fields(recommendation)
        try:
            await self.apply(recommendation.id, ADVISOR)
        except CatalogUnavailable:
            raise
        except PoolkeeperError as error:
            _log.warning("recommendation not applied", **facts, why=error.detail)
            return error.detail
        self._resized[server].append(monotonic())
        _log.info("recommendation applied", **facts)
        return None

    async def _close_applied(self, found: Recommendation, actor: Actor) -> Recommendation:
        try:
            return await self._book.close(found, RecommendationStatus.APPLIED, actor)
        except CatalogUnavailable as error:
            raise CatalogUnavailable(
                "The pool is resized, but the catalog could not be told that the recommendation "
                "was applied; apply it again to finish."
            ) from error


def clamped(
    advice: PoolSizingRecommendation, min_size: int, server: Server
) -> PoolSizingRecommendation:
    """*advice* that neither takes min_size down nor exceeds what the server can hold."""
    # A server never reached yet has a budget that is not known.
    limit = server.budget.limit if server.limits else advice.new_size
    new_size = max(min(advice.new_size, limit), min_size)
    if advice.action is ScalingAction.STABLE or new_size == advice.new_size:
        return advice
    reason = f"{advice.reason}; held at {new_size} by min_size or the server's budget"
    expected = advice.expected
    if expected is not None:
        expected = replace(expected, late_share_after=None, connections_after=new_size)
    return replace(advice, new_size=new_size, reason=reason, expected=expected)


def changes_size(advice: PoolSizingRecommendation, size: PoolSize) -> bool:
    """Whether obeying would move the limit in force the way the advice means.

    A rule may see open connections; a pool that has yet to open what it may is not too small.
    """
    match advice.action:
        case ScalingAction.SCALE_UP:
            return advice.new_size > size.max_size
        case ScalingAction.SCALE_DOWN:
            return advice.new_size < size.max_size
        case ScalingAction.STABLE:
            return False


def log_fields(recommendation: Recommendation) -> dict[str, object]:
    """What the log tells of it."""
    return {
        "pool": recommendation.pool_id,
        "new_size": recommendation.advice.new_size,
        "max_size": recommendation.max_size,
        "reason": recommendation.advice.reason,
    }


def _ago(seconds: float) -> str:
    return f"{seconds / _MINUTE:.0f} min" if seconds >= _MINUTE else f"{seconds:.0f} s"
