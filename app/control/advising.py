"""Advice about every open pool: sampled, remembered, applied or dismissed.

The rule is `app.domain.advisor`'s. Here it is fed at its own interval, its recommendations
get a life in the catalog, and those that are obeyed go through the Keeper like any change.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from time import monotonic
from uuid import UUID, uuid4

import structlog

from app.catalog.catalog import Catalog
from app.control import told
from app.control.keeper import Keeper
from app.domain.advisor import Action, PoolSizingAdvisor, PoolSizingRecommendation
from app.domain.desired import AdvisorMode, AdvisorSettings
from app.domain.errors import (
    CatalogUnavailable,
    PoolkeeperError,
    RecommendationClosed,
    RecommendationNotFound,
)
from app.domain.event import Actor
from app.domain.recommendation import Recommendation, RecommendationStatus
from app.pools.manager import TenantPoolManager
from app.pools.pool import TenantPool

ADVISOR = Actor(name="advisor")
# A recommendation that is not repeated for this many intervals, or this long, is out of date.
_INTERVALS_TO_LIVE = 10
_SHORTEST_LIFE = timedelta(minutes=5)
# After so many pools the loop gets a turn.
_SLICE = 500

_log = structlog.get_logger(__name__)


class Advising:
    """The service's advisor: one rule, one memory per pool, one mode."""

    def __init__(
        self,
        catalog: Catalog,
        manager: TenantPoolManager,
        keeper: Keeper,
        settings: AdvisorSettings,
    ) -> None:
        """Advise on *manager*'s pools; *settings* hold until others are stored."""
        self._catalog = catalog
        self._manager = manager
        self._keeper = keeper
        self._settings = settings
        self._advisors: dict[str, PoolSizingAdvisor] = {}
        self._open: dict[str, Recommendation] = {}
        self._due = 0.0
        self._changing = asyncio.Lock()
        self.adjustments_total = 0

    @property
    def settings(self) -> AdvisorSettings:
        """How it works now."""
        return self._settings

    @property
    def open(self) -> Mapping[str, Recommendation]:
        """What it recommends now, by pool; known even while the catalog is away."""
        return self._open

    async def load(self) -> None:
        """Learn what the catalog remembers; at start."""
        self._settings = await self._catalog.advisor.load() or self._settings
        page = await self._catalog.recommendations.page(
            status=RecommendationStatus.OPEN, limit=10_000
        )
        self._open = {recommendation.pool_id: recommendation for recommendation in page}

    async def put_settings(
        self, settings: AdvisorSettings, actor: Actor, *, expected_generation: int | None = None
    ) -> AdvisorSettings:
        """Store and follow other settings; every pool's samples are counted anew.

        Raises:
            StaleVersion, CatalogUnavailable
        """
        async with self._changing:
            self._settings = await self._catalog.advisor.save(
                settings,
                event=told.advisor_saved(self._settings, settings, actor),
                expected_generation=expected_generation,
            )
            self._advisors.clear()
            self._due = 0.0
            return self._settings

    async def tick(self) -> int:
        """Sample every open pool if it is time to; how many recommendations that made."""
        await self._expire()
        now = monotonic()
        if self._settings.mode is AdvisorMode.OFF or now < self._due:
            return 0
        self._due = now + self._settings.config.tuning_interval_ms / 1000
        pools = {pool.pool_id: pool for pool in self._manager.pools() if not pool.is_closing}
        for gone in self._advisors.keys() - pools.keys():
            del self._advisors[gone]
        made = 0
        for count, (pool_id, pool) in enumerate(pools.items(), start=1):
            if count % _SLICE == 0:
                await asyncio.sleep(0)
            advisor = self._advisors.setdefault(pool_id, PoolSizingAdvisor(self._settings.config))
            metrics = pool.metrics
            advice = advisor.evaluate(metrics)
            if _would_change(advice, pool):
                self.adjustments_total += 1
                made += await self._recommend(pool, advice)
        return made

    async def apply(self, recommendation_id: UUID, actor: Actor) -> Recommendation:
        """Give the pool the recommended size.

        Raises:
            RecommendationNotFound, RecommendationClosed, BudgetExceeded, InvalidInput,
            CatalogUnavailable
        """
        async with self._changing:
            found = await self._catalog.recommendations.get(recommendation_id)
            if found.status is not RecommendationStatus.OPEN:
                raise RecommendationClosed(f"The recommendation is {found.status} already.")
            account = self._manager.account_for_pool(found.pool_id)
            if account is None:
                raise RecommendationNotFound("Nobody uses the recommendation's pool any more.")
            now = self._manager.desired_size(found.pool_id, account.tenant.spec.strategy).max_size
            if (
                now != found.max_size
            ):  # somebody resized it meanwhile: the advice is beside the point
                await self._close(found, RecommendationStatus.SUPERSEDED, actor)
                raise RecommendationClosed(
                    f"It was made for a max_size of {found.max_size}; by now that is {now}."
                )
            await self._keeper.resize_pool(
                account, found.advice.new_size, actor, reason=found.advice.reason
            )
            return await self._close(found, RecommendationStatus.APPLIED, actor)

    async def dismiss(self, recommendation_id: UUID, actor: Actor) -> Recommendation:
        """Leave the pool as it is.

        Raises:
            RecommendationNotFound, RecommendationClosed, CatalogUnavailable
        """
        async with self._changing:
            found = await self._catalog.recommendations.get(recommendation_id)
            return await self._close(found, RecommendationStatus.DISMISSED, actor)

    async def _recommend(self, pool: TenantPool, advice: PoolSizingRecommendation) -> int:
        standing = self._open.get(pool.pool_id)
        if standing is not None and standing.advice.new_size == advice.new_size:
            return 0
        recommendation = self._new(pool, advice)
        try:
            await self._catalog.recommendations.add(recommendation)
        except CatalogUnavailable:
            return 0
        self._open[pool.pool_id] = recommendation
        facts = {
            "pool": pool.pool_id,
            "new_size": advice.new_size,
            "max_size": pool.size.max_size,
            "reason": advice.reason,
        }
        if self._settings.mode is not AdvisorMode.APPLY:
            _log.warning("resize recommended", **facts)
            return 1
        try:
            await self.apply(recommendation.id, ADVISOR)
        except PoolkeeperError as error:
            _log.warning("recommendation not applied", **facts, why=error.detail)
        else:
            _log.info("recommendation applied", **facts)
        return 1

    def _new(self, pool: TenantPool, advice: PoolSizingRecommendation) -> Recommendation:
        interval = timedelta(milliseconds=self._settings.config.tuning_interval_ms)
        now = datetime.now(UTC)
        return Recommendation(
            id=uuid4(),
            pool_id=pool.pool_id,
            tenant=pool.pool_id if pool.pool_id in self._manager.accounts else None,
            rule=self._settings.rule,
            advice=advice,
            max_size=pool.size.max_size,
            metrics=pool.metrics,
            status=RecommendationStatus.OPEN,
            created_at=now,
            expires_at=now + max(_SHORTEST_LIFE, interval * _INTERVALS_TO_LIVE),
        )

    async def _close(
        self, found: Recommendation, status: RecommendationStatus, actor: Actor
    ) -> Recommendation:
        closed = await self._catalog.recommendations.close(
            found.id,
            status,
            at=datetime.now(UTC),
            closed_by=actor.name,
            event=told.recommendation_closed(found, status, actor),
        )
        if found.pool_id in self._open and self._open[found.pool_id].id == found.id:
            del self._open[found.pool_id]
        return closed

    async def _expire(self) -> None:
        now = datetime.now(UTC)
        if all(recommendation.expires_at > now for recommendation in self._open.values()):
            return
        for expired in await self._catalog.recommendations.expire(now):
            if expired.pool_id in self._open and self._open[expired.pool_id].id == expired.id:
                del self._open[expired.pool_id]


def _would_change(advice: PoolSizingRecommendation, pool: TenantPool) -> bool:
    """Whether obeying would move the limit in force the way the advice means.

    The rule sees open connections; a pool that has yet to open what it may is not too small.
    """
    match advice.action:
        case Action.SCALE_UP:
            return advice.new_size > pool.size.max_size
        case Action.SCALE_DOWN:
            return max(advice.new_size, pool.size.min_size) < pool.size.max_size
        case Action.STABLE:
            return False
