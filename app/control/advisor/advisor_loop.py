"""Advice about every open pool: judged at the rule's own interval, told, and obeyed if so wished.

The rules are `app.domain.advisor`'s, what they are shown is `observing.py`'s, the lives of
recommendations are `advice_book.py`'s, and who may resize is `obeying.py`'s.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any
from uuid import uuid4

import structlog

from app.catalog.catalog import Catalog
from app.control.advisor.observer import Observer
from app.control.advisor.placement import PlacementAdvisor
from app.control.advisor.recommendation_applier import (
    RecommendationApplier,
    changes_size,
    clamped,
    log_fields,
)
from app.control.advisor.recommendation_store import RecommendationStore
from app.control.audit import audit_events
from app.control.background.yield_to_loop import yield_to_loop
from app.control.locks import KeyedLocks
from app.domain.advisor import (
    PlacementSuggestion,
    PoolSizingRecommendation,
    ReasonCode,
    ScalingAction,
    ServerAdvisor,
)
from app.domain.advisor_mode import AdvisorMode
from app.domain.audit import Actor
from app.domain.desired_state import AdvisorRule, AdvisorSettings
from app.domain.recommendation import MAX_LIFETIME, Recommendation, RecommendationStatus
from app.pools.manager import TenantPoolManager
from app.pools.pool import Pool
from app.pools.tenant_state import TenantState

# A recommendation that is not repeated for this many intervals, or this long, is out of date.
_INTERVALS_TO_LIVE = 10
_SHORTEST_LIFE = timedelta(minutes=5)
_SETTINGS = "the settings"
# After so many pools the loop gets a turn.
_SLICE = 50
# Polls are not exactly as far apart as they should be.
_EARLY = 0.1
# New recommendations of one tick, so that writing them down does not hold up the poll.
_MOST_AT_A_TIME = 100
_TIERING_EVERY = 60.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class PoolAdvice:
    """The last word about a pool.

    Attributes:
        at: when it was said.
        advice: the size, and why; `stable` has its reason, too.
        held: why it was not told or obeyed, as the end of a sentence; None if nothing held it.
    """

    at: datetime
    advice: PoolSizingRecommendation
    blocked_by: str | None = None


class AdvisorLoop:
    """The service's advisor: one rule, one ServerAdvisor per server, a mode per pool."""

    def __init__(
        self,
        catalog: Catalog,
        manager: TenantPoolManager,
        settings: AdvisorSettings,
        *,
        observing: Observer,
        book: RecommendationStore,
        obeying: RecommendationApplier,
    ) -> None:
        """Advise on *manager*'s pools; *settings* hold until others are stored."""
        self._catalog = catalog
        self._manager = manager
        self._observing = observing
        self._book = book
        self._obeying = obeying
        self._settings = settings
        self._tiering = PlacementAdvisor(manager)
        self._advisors: dict[str, ServerAdvisor[Any]] = {}
        self._verdicts: dict[str, PoolAdvice] = {}
        self._due = self._tiering_due = 0.0
        self._room = _MOST_AT_A_TIME
        # Connections of pools on each server that it does not advise on.
        self._taken: Counter[str] = Counter()
        self._changing = KeyedLocks()
        self.adjustments_total = 0

    @property
    def settings(self) -> AdvisorSettings:
        """How it works now."""
        return self._settings

    @property
    def open_recommendations(self) -> Mapping[str, Recommendation]:
        """What it recommends now; known even while the catalog is away."""
        return self._book.open

    @property
    def latest_advice(self) -> Mapping[str, PoolAdvice]:
        """The last word about every open pool."""
        return self._verdicts

    async def load(self) -> None:
        """Learn what the catalog remembers; at start."""
        self._settings = await self._catalog.advisor.load() or self._settings
        await self._book.load()
        await self._obeying.load()

    async def put_settings(
        self, settings: AdvisorSettings, actor: Actor, *, expected_generation: int | None = None
    ) -> AdvisorSettings:
        """Store and follow other settings; every pool is judged as if never seen before.

        Raises:
            StaleVersion, CatalogUnavailable
        """
        async with self._changing.hold(_SETTINGS):
            event = audit_events.advisor_saved(self._settings, settings, actor)
            self._settings = await self._catalog.advisor.save(
                settings, event=event, expected_generation=expected_generation
            )
            if event.before != event.after:
                audit_events.log(event)
            self._advisors.clear()
            self._due = 0.0
            return self._settings

    def mode_of(self, pool: Pool) -> AdvisorMode:
        """What becomes of advice about a pool: as its only tenant has it, else the service."""
        account = self._manager.tenant_states.get(pool.pool_id)
        own = account.tenant.spec.advisor_mode if account else None
        return own or self._settings.mode

    async def tick(self) -> int:
        """Judge every open pool if it is time to; how many recommendations that made.

        Raises:
            CatalogUnavailable: not all that was to be said could be written down.
        """
        await self._book.expire()
        now = monotonic()
        if now < self._due:
            return 0
        self._due = now + self._settings.interval * (1 - _EARLY)
        await self._judge(now)
        self._room = _MOST_AT_A_TIME
        made = 0
        for server, advisor in list(self._advisors.items()):
            settled = advisor.allocate(self._budget(server))
            for count, (pool_id, advice) in enumerate(settled, start=1):
                if count % _SLICE == 0:
                    await yield_to_loop()
                pool = self._manager.find(pool_id)
                if pool is not None:
                    made += await self._conclude(pool, advice)
        return made + await self._suggest_moves(now)

    async def _judge(self, began: float) -> None:
        """Show every pool whose mode is not off to the advisor of its server."""
        self._observing.begin_round(began)
        self._taken.clear()
        watched: set[str] = set()
        for count, pool in enumerate(list(self._manager.pools()), start=1):
            if count % _SLICE == 0:
                await yield_to_loop()
            if pool.is_closing or self.mode_of(pool) is AdvisorMode.OFF:
                pool.set_idle_timeout(None)
                self._taken[pool.server.name] += pool.metrics.total_connections
                continue
            watched.add(pool.pool_id)
            now = monotonic()
            seen = self._observing.observe(pool, now)
            if seen is None and self._settings.rule is AdvisorRule.HYSTERESIS:
                seen = self._observing.observe_gauges(pool, now)
            if seen is not None:
                self._advisor(pool.server.name).evaluate(pool.pool_id, seen)
        for gone in self._observing.retain(watched):
            self._verdicts.pop(gone, None)
            for advisor in self._advisors.values():
                advisor.forget(gone)

    def _advisor(self, server: str) -> ServerAdvisor[Any]:
        advisor = self._advisors.get(server)
        if advisor is None:
            advisor = self._advisors[server] = self._settings.advisor()
        return advisor

    def _budget(self, name: str) -> int | None:
        """What the pools it advises on may have together; None while nobody knows."""
        server = self._manager.servers.get(name)
        if server is None or server.limits is None:
            return None
        return max(0, server.budget.limit - self._taken[name])

    async def _conclude(self, pool: Pool, advice: PoolSizingRecommendation) -> int:
        """Say what became of the advice about a pool; how many recommendations that made."""
        advice = clamped(advice, pool.size.min_size, pool.server)
        made, held = 0, None
        is_followed = self.mode_of(pool) is AdvisorMode.APPLY
        pool.set_idle_timeout(advice.idle_seconds if is_followed else None)
        if changes_size(advice, pool.size):
            self.adjustments_total += 1
            if self._book.find_dismissed(pool.pool_id, advice, pool.size.max_size):
                held = "somebody dismissed this a short while ago"
            elif not is_followed and self._can_wait(pool, advice):
                held = "callers come in time without it; in mode `apply` it would be done"
            else:
                made, held = await self._recommend(pool, advice)
        self._verdicts[pool.pool_id] = PoolAdvice(datetime.now(UTC), advice, held)
        return made

    def _can_wait(self, pool: Pool, advice: PoolSizingRecommendation) -> bool:
        """Whether no person need be told: only room for bursts is meant, and none was late.

        Every pool in use is advised that room, so a person would see nothing else.
        """
        if advice.reason_code is not ReasonCode.ROOM_FOR_BURSTS:
            return False
        aim = self._settings.demand
        return pool.recorder.late_share(aim.patience_seconds, monotonic()) <= aim.late_share

    async def _recommend(
        self, pool: Pool, advice: PoolSizingRecommendation
    ) -> tuple[int, str | None]:
        """Write the advice down unless that is done, and obey it if the mode says so."""
        made = 0
        standing = self._book.find_open(pool.pool_id, advice, pool.size.max_size)
        if standing is None and not self._room:
            return 0, "many others came first; the next tick tells it"
        if standing is None:
            self._room -= 1
            standing = self._new(pool, advice)
            if not await self._book.add(standing):
                return 0, "another recommendation is being applied; the next tick goes on"
            made = 1
        if self.mode_of(pool) is AdvisorMode.APPLY:
            return made, await self._obeying.auto_apply(standing, pool.server.name)
        if made:
            _log.warning("resize recommended", **log_fields(standing))
        return made, None

    def _new(self, pool: Pool, advice: PoolSizingRecommendation) -> Recommendation:
        now = datetime.now(UTC)
        interval = timedelta(seconds=self._settings.interval)
        life = max(_SHORTEST_LIFE, interval * _INTERVALS_TO_LIVE)
        return Recommendation(
            id=uuid4(),
            pool_id=pool.pool_id,
            tenant=pool.pool_id if pool.pool_id in self._manager.tenant_states else None,
            rule=self._settings.rule,
            advice=advice,
            max_size=pool.size.max_size,
            metrics=pool.metrics,
            status=RecommendationStatus.OPEN,
            created_at=now,
            expires_at=now + min(life, MAX_LIFETIME),
        )

    async def _suggest_moves(self, now: float) -> int:
        """Recommend to some tenants another kind of pool, if it is time to."""
        if now < self._tiering_due:
            return 0
        self._tiering_due = now + _TIERING_EVERY
        self._tiering.take_marks(now)
        made = 0
        for count, (account, found) in enumerate(self._tiering.suggestions(now), start=1):
            if count % _SLICE == 0:
                await yield_to_loop()
            pool = self._manager.find(account.tenant.spec.pool_id)
            mode = account.tenant.spec.advisor_mode or self._settings.mode
            if pool is None or mode is AdvisorMode.OFF or not self._room:
                continue
            move = self._new_move(account, pool, found)
            size = pool.size.max_size
            if self._book.find_open(move.subject, move.advice, size) is None and (
                self._book.find_dismissed(move.subject, move.advice, size) is None
            ):
                self._room -= 1
                made += await self._book.add(move)
        return made

    def _new_move(
        self, account: TenantState, pool: Pool, found: PlacementSuggestion
    ) -> Recommendation:
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
            tenant=account.tenant.spec.id,
            rule="tiering",
            advice=advice,
            max_size=size,
            metrics=self._manager.tenant_metrics(account),
            status=RecommendationStatus.OPEN,
            created_at=now,
            expires_at=now + MAX_LIFETIME,
            placement=found.placement,
        )
