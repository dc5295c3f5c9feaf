"""Advice about every open pool: sampled, remembered, applied or dismissed.

The rule is `app.domain.advisor`'s. Here it is fed at its own interval, its recommendations
get a life in the catalog, and those that are obeyed go through the Keeper like any change.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from time import monotonic
from uuid import UUID, uuid4

import structlog

from app.catalog.catalog import Catalog
from app.control import told
from app.control.keeper import Keeper
from app.control.locks import KeyedLocks
from app.domain.advisor import Action, PoolSizingAdvisor, PoolSizingRecommendation
from app.domain.desired import AdvisorMode, AdvisorSettings
from app.domain.errors import (
    CatalogUnavailable,
    PoolkeeperError,
    RecommendationClosed,
    RecommendationNotFound,
)
from app.domain.event import Actor
from app.domain.pool import PoolSize
from app.domain.recommendation import Recommendation, RecommendationStatus
from app.pools.manager import TenantPoolManager
from app.pools.pool import TenantPool
from app.pools.server import Server

ADVISOR = Actor(name="advisor")
# A recommendation that is not repeated for this many intervals, or this long, is out of date.
_INTERVALS_TO_LIVE = 10
_SHORTEST_LIFE = timedelta(minutes=5)
_ADVICE = "the advice"
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
        self._changing = KeyedLocks()
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
        async with self._changing.hold(_ADVICE):
            event = told.advisor_saved(self._settings, settings, actor)
            self._settings = await self._catalog.advisor.save(
                settings, event=event, expected_generation=expected_generation
            )
            if event.before != event.after:
                told.log(event)
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
            advice = _within(advisor.evaluate(metrics), pool.size.min_size, pool.server)
            if _moves(advice, pool.size):
                self.adjustments_total += 1
                made += await self._recommend(pool, advice)
        return made

    async def apply(self, recommendation_id: UUID, actor: Actor) -> Recommendation:
        """Give the pool the recommended size.

        Raises:
            RecommendationNotFound, RecommendationClosed, BudgetExceeded, InvalidInput,
            TenantDeleting, NotProvisioned, ServerUnavailable, CatalogUnavailable
        """
        async with self._changing.hold(_ADVICE):
            found = await self._catalog.recommendations.get(recommendation_id)
            if found.status is not RecommendationStatus.OPEN:
                raise RecommendationClosed(f"The recommendation is {found.status} already.")
            account = self._manager.account_for_pool(found.pool_id)
            if account is None:
                raise RecommendationNotFound("Nobody uses the recommendation's pool any more.")
            size = self._manager.desired_size(found.pool_id, account.tenant.spec.strategy)
            server = self._manager.server(account.tenant.spec.server)
            advice = _within(found.advice, size.min_size, server)
            # A former call may have got no further than the resize.
            is_resized = size.max_size == advice.new_size != found.max_size
            if not is_resized:
                if size.max_size != found.max_size or not _moves(advice, size):
                    await self._close(found, RecommendationStatus.SUPERSEDED, actor)
                    raise RecommendationClosed(
                        f"It was made for a max_size of {found.max_size} and for other limits; "
                        f"by now max_size is {size.max_size}."
                    )
                await self._keeper.resize_pool(
                    account, advice.new_size, actor, reason=advice.reason
                )
            return await self._close_applied(found, actor)

    async def dismiss(self, recommendation_id: UUID, actor: Actor) -> Recommendation:
        """Leave the pool as it is.

        Raises:
            RecommendationNotFound, RecommendationClosed, CatalogUnavailable
        """
        async with self._changing.hold(_ADVICE):
            found = await self._catalog.recommendations.get(recommendation_id)
            return await self._close(found, RecommendationStatus.DISMISSED, actor)

    async def _recommend(self, pool: TenantPool, advice: PoolSizingRecommendation) -> int:
        standing = self._open.get(pool.pool_id)
        must_apply = self._settings.mode is AdvisorMode.APPLY
        if standing is not None and _repeats(standing, advice, pool):
            if must_apply:
                await self._obey(standing)
            return 0
        recommendation = self._new(pool, advice)
        await self._catalog.recommendations.add(recommendation)
        self._open[pool.pool_id] = recommendation
        if must_apply:
            await self._obey(recommendation)
        else:
            _log.warning("resize recommended", **_facts(recommendation))
        return 1

    async def _obey(self, recommendation: Recommendation) -> None:
        facts = _facts(recommendation)
        try:
            await self.apply(recommendation.id, ADVISOR)
        except CatalogUnavailable:
            raise
        except PoolkeeperError as error:
            _log.warning("recommendation not applied", **facts, why=error.detail)
        else:
            _log.info("recommendation applied", **facts)

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

    async def _close_applied(self, found: Recommendation, actor: Actor) -> Recommendation:
        try:
            return await self._close(found, RecommendationStatus.APPLIED, actor)
        except CatalogUnavailable as error:
            raise CatalogUnavailable(
                "The pool is resized, but the catalog could not be told that the recommendation "
                "was applied; apply it again to finish."
            ) from error

    async def _close(
        self, found: Recommendation, status: RecommendationStatus, actor: Actor
    ) -> Recommendation:
        event = told.recommendation_closed(found, status, actor)
        closed = await self._catalog.recommendations.close(
            found.id, status, at=event.at, closed_by=actor.name, event=event
        )
        told.log(event)
        if found.pool_id in self._open and self._open[found.pool_id].id == found.id:
            del self._open[found.pool_id]
        return closed

    async def _expire(self) -> None:
        now = datetime.now(UTC)
        if all(self._stands(recommendation, now) for recommendation in self._open.values()):
            return
        await self._catalog.recommendations.expire(now)
        self._open = {
            pool_id: recommendation
            for pool_id, recommendation in self._open.items()
            if self._stands(recommendation, now)
        }

    def _stands(self, recommendation: Recommendation, now: datetime) -> bool:
        # The catalog forgets a tenant's advice together with the tenant.
        tenant = recommendation.tenant
        is_used = tenant is None or tenant in self._manager.accounts
        return is_used and recommendation.expires_at > now


def _within(
    advice: PoolSizingRecommendation, min_size: int, server: Server
) -> PoolSizingRecommendation:
    """*advice* that neither takes min_size down nor exceeds what the server can hold."""
    # A server never reached yet has a budget that is not known.
    limit = server.budget.limit if server.limits else advice.new_size
    new_size = max(min(advice.new_size, limit), min_size)
    if advice.action is Action.STABLE or new_size == advice.new_size:
        return advice
    reason = f"{advice.reason}; held at {new_size} by min_size or the server's budget"
    return replace(advice, new_size=new_size, reason=reason)


def _repeats(standing: Recommendation, advice: PoolSizingRecommendation, pool: TenantPool) -> bool:
    told_before = (standing.advice.new_size, standing.max_size)
    return told_before == (advice.new_size, pool.size.max_size)


def _facts(recommendation: Recommendation) -> dict[str, object]:
    return {
        "pool": recommendation.pool_id,
        "new_size": recommendation.advice.new_size,
        "max_size": recommendation.max_size,
        "reason": recommendation.advice.reason,
    }


def _moves(advice: PoolSizingRecommendation, size: PoolSize) -> bool:
    """Whether obeying would move the limit in force the way the advice means.

    The rule sees open connections; a pool that has yet to open what it may is not too small.
    """
    match advice.action:
        case Action.SCALE_UP:
            return advice.new_size > size.max_size
        case Action.SCALE_DOWN:
            return advice.new_size < size.max_size
        case Action.STABLE:
            return False
