"""The service's advisor: observes every pool, evaluates, allocates budgets, recommends or applies.

A tenant has one size for this process and all nodes.

The rules are in `app.domain.advisor`. Nothing here waits for a tenant's server.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any
from uuid import uuid4

import structlog

from app.catalog.catalog import Catalog
from app.control import audit_events
from app.control.advisor.advised_pools import AdvisedPool, AdvisedPools
from app.control.advisor.auto_apply import AutoApply, log_fields
from app.control.advisor.observer import Observer
from app.control.advisor.placement_advisor import PlacementAdvisor
from app.control.advisor.recommendation_applier import changes_size, clamped
from app.control.advisor.recommendation_store import RecommendationStore
from app.control.keyed_locks import KeyedLocks
from app.control.operation import Expectation, Operation, PlanFor, any_version
from app.control.time_slices import TimeSlices
from app.domain.advisor import (
    PoolSizingRecommendation,
    ReasonCode,
    ScalingAction,
    ServerAdvisor,
    grown_within,
)
from app.domain.advisor_settings import AdvisorRule, AdvisorSettings
from app.domain.audit import Actor, AuditEvent
from app.domain.plan import plan_record
from app.domain.recommendation import MAX_LIFETIME, Recommendation, RecommendationStatus
from app.domain.tenant import AdvisorMode
from app.pools.manager import TenantPoolManager

# A recommendation that is not repeated for this many intervals, and at least this long, expires.
_INTERVALS_TO_LIVE = 10
_MIN_LIFETIME = timedelta(minutes=5)
_SETTINGS = "the settings"
# Reasons to grow before callers lack connections; SERVER_BUDGET stands for one of the other two.
_FORESIGHT = frozenset(
    {ReasonCode.DEMAND_ABOVE_SIZE, ReasonCode.ROOM_FOR_BURSTS, ReasonCode.SERVER_BUDGET}
)
_CAN_WAIT = "callers are served in time without it; mode `apply` would apply it"
_REFUSED = "a moment ago a larger size would not have helped"
# The time between two polls varies a little.
_EARLY = 0.1
# After advice that refused growth, this many evaluations must advise growth before it is
# recommended.
_AFTER_REFUSAL = 3
# The most recommendations made or withdrawn in one tick, so that storing them does not delay the
# poll.
_MAX_NEW = 100

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class PoolAdvice:
    """The latest advice about a pool.

    Attributes:
        at: when it was given.
        advice: the size and the reason; `stable` has a reason, too.
        max_size: the pool's maximum at that time.
        blocked_by: why it was neither recommended nor applied, as the end of a sentence; None if
            nothing blocked it.
    """

    at: datetime
    advice: PoolSizingRecommendation
    max_size: int
    blocked_by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsChange:
    """The settings to store, their event, and the generation that they replace; None: any."""

    settings: AdvisorSettings
    event: AuditEvent
    expected_generation: int | None


class AdvisorLoop:
    """One rule for all pools, a `ServerAdvisor` for each server, and a mode for each pool.

    Attributes:
        settings: the settings in force.
        latest_advice: the latest advice about every pool that is open or has load on nodes.
    """

    def __init__(
        self,
        catalog: Catalog,
        manager: TenantPoolManager,
        settings: AdvisorSettings,
        *,
        pools: AdvisedPools,
        observer: Observer,
        store: RecommendationStore,
        auto_apply: AutoApply,
        is_changing: Callable[[str], bool],
    ) -> None:
        """*settings* are in force until others are stored; *is_changing*: whether a pool is now."""
        self._catalog = catalog
        self._manager = manager
        self._pools = pools
        self._observer = observer
        self._store = store
        self._auto_apply = auto_apply
        self._is_changing = is_changing
        self.settings = settings
        self._placement = PlacementAdvisor(manager, is_on_nodes=pools.is_on_nodes)
        self._advisors: dict[str, ServerAdvisor[Any]] = {}
        self.latest_advice: dict[str, PoolAdvice] = {}
        self._due = 0.0
        self._new_left = _MAX_NEW
        # How many more evaluations must advise a pool's growth before it is recommended.
        self._refused: dict[str, int] = {}
        # Connections of the pools on each server that it does not advise.
        self._unadvised: Counter[str] = Counter()
        self._locks = KeyedLocks()
        self.adjustments_total = 0

    @property
    def open_recommendations(self) -> Mapping[str, Recommendation]:
        """The open recommendations by subject; available while the catalog is unreachable, too."""
        return self._store.open

    async def load(self) -> None:
        """Load recommendations and settings from the catalog, at start."""
        for stored in await self._catalog.advisor.load():
            self.settings = stored
        await self._store.load()
        await self._auto_apply.load()

    def put_settings(
        self,
        change: Callable[[AdvisorSettings], AdvisorSettings],
        actor: Actor,
        *,
        expect: Expectation[AdvisorSettings] = any_version,
    ) -> Operation[SettingsChange, AdvisorSettings]:
        """Store the present settings with a *change*; earlier observations no longer count.

        Raises:
            StaleVersion, CatalogUnavailable
        """

        async def plan() -> PlanFor[SettingsChange]:
            expected, settings = expect(self.settings), change(self.settings)
            event = audit_events.advisor_saved(self.settings, settings, actor)
            changed = SettingsChange(settings=settings, event=event, expected_generation=expected)
            return PlanFor.of(changed, plan_record("advisor", event))

        async def execute(plan: PlanFor[SettingsChange]) -> AdvisorSettings:
            changed = plan.subject
            saved = await self._catalog.advisor.save(
                changed.settings,
                event=changed.event,
                expected_generation=changed.expected_generation,
            )
            self._follow(saved)
            return saved

        return Operation(
            plan=plan,
            execute=execute,
            lock=lambda: self._locks.hold(_SETTINGS),
            needs_catalog=True,
        )

    async def read_in_doubt(self) -> None:
        """Take over settings whose response was lost; nobody may be changing them now.

        If they were not stored after all, observations continue to count.

        Raises:
            CatalogUnavailable
        """
        async with self._locks.hold_if_free(_SETTINGS) as is_free:
            for key in self._catalog.advisor.in_doubt if is_free else ():
                found = await self._catalog.advisor.read(key)
                if found is not None and found != self.settings:
                    self._follow(found)

    def _follow(self, settings: AdvisorSettings) -> None:
        self.settings = settings
        self._advisors.clear()
        self._refused.clear()
        self._due = 0.0

    def mode_of(self, pool_id: str) -> AdvisorMode:
        """The mode of a pool's tenant if it has only one, else the service's."""
        state = self._manager.tenants.get(pool_id)
        own = state.tenant.spec.advisor_mode if state else None
        return own or self.settings.mode

    async def tick(self) -> int:
        """Advise on every pool if the interval is over; return the number of new recommendations.

        Raises:
            CatalogUnavailable: not all recommendations could be stored.
        """
        await self._store.expire()
        now = monotonic()
        if now < self._due:
            return 0
        self._due = now + self.settings.interval * (1 - _EARLY)
        await self._evaluate(now)
        self._new_left, made, slices = _MAX_NEW, 0, TimeSlices()
        for server, advisor in list(self._advisors.items()):
            budget = self._budget(server)
            share = None if budget is None else self._used_up_share(server, advisor, budget)
            await slices.end_step()
            for pool_id, advice in advisor.allocate(budget):
                advised = self._pools.find(pool_id)
                if advised is not None:
                    made += await self._conclude(advised, advice, share)
                await slices.end_step()
        await slices.end()
        return made + await self._suggest_placements(now)

    async def _evaluate(self, now: float) -> None:
        """Show every pool whose mode is not off to the advisor of its server."""
        self._observer.begin_round(now)
        self._unadvised.clear()
        retained: set[str] = set()
        slices = TimeSlices()
        for advised in self._pools:
            await slices.end_step()
            if advised.is_closing or self.mode_of(advised.pool_id) is AdvisorMode.OFF:
                advised.note_warm_size(None, 0)
                self._unadvised[advised.server.name] += advised.metrics.total_connections
                continue
            retained.add(advised.pool_id)
            at = monotonic()
            seen = self._observer.observe(advised, at)
            if seen is None and self.settings.rule is AdvisorRule.HYSTERESIS:
                seen = self._observer.observe_gauges(advised, at)
            if seen is not None:
                self._advisor(advised.server.name).evaluate(advised.pool_id, seen)
        await slices.end()
        for gone in self._observer.retain(retained):
            self.latest_advice.pop(gone, None)
            self._refused.pop(gone, None)
            for advisor in self._advisors.values():
                advisor.forget(gone)
            await slices.end_step()

    def _advisor(self, server: str) -> ServerAdvisor[Any]:
        advisor = self._advisors.get(server)
        if advisor is None:
            advisor = self._advisors[server] = self.settings.advisor()
        return advisor

    def _used_up_share(self, name: str, advisor: ServerAdvisor[Any], budget: int) -> float | None:
        """The connections per weight that pools can have of a used-up budget; else None."""
        server = self._manager.servers.get(name)
        nodes_lack = server is not None and server.reservation.lack
        return advisor.used_up_share(budget, nodes_lack=nodes_lack)

    def _budget(self, name: str) -> int | None:
        """The connections that the advised pools may have together; None while unknown."""
        server = self._manager.servers.get(name)
        if server is None or server.limits is None:
            return None
        return max(0, server.limit - self._unadvised[name])

    async def _conclude(
        self, pool: AdvisedPool, advice: PoolSizingRecommendation, share: float | None
    ) -> int:
        """Recommend or apply the advice about a pool; return the number of new recommendations.

        *share*: connections per weight of the server's budget if it is used up. What the advisor
        applies follows the rule without it: its next evaluations see the effect.
        """
        limit = self._observer.max_allowed(pool.pool_id, pool.server)
        advice = clamped(advice, pool.size.min_size, limit)
        mode, made, blocked_by = self.mode_of(pool.pool_id), 0, None
        if share is not None and self._asks_person(pool, mode):
            own_share = share * self._observer.weight(pool.pool_id)
            advice = grown_within(advice, own_share, self._budget(pool.server.name) or 0)
        if advice.refuses_growth:
            self._refused[pool.pool_id] = _AFTER_REFUSAL
        elif advice.action is ScalingAction.SCALE_UP:
            self._refused[pool.pool_id] = max(0, self._refused.get(pool.pool_id, 0) - 1)
        surplus_age = advice.idle_seconds if mode is AdvisorMode.APPLY else None
        pool.note_warm_size(surplus_age, advice.warm_size)
        if changes_size(advice, pool.size):
            made, blocked_by = await self._recommend(pool, advice, mode)
            self.adjustments_total += made
        self.latest_advice[pool.pool_id] = PoolAdvice(
            datetime.now(UTC), advice, pool.size.max_size, blocked_by
        )
        await self._withdraw_outdated(pool, advice, limit)
        return made

    def _asks_person(self, pool: AdvisedPool, mode: AdvisorMode) -> bool:
        """Whether advice about a pool is a recommendation, not applied at once."""
        if mode is not AdvisorMode.APPLY:
            return True
        return self._auto_apply.blocker(pool.pool_id, pool.server.name) is not None

    async def _withdraw_outdated(
        self, pool: AdvisedPool, advice: PoolSizingRecommendation, limit: int
    ) -> None:
        """Close an open recommendation that is now impossible or contradicts *advice*."""
        found = self._store.open.get(pool.pool_id)
        if found is None or not self._new_left or self._is_changing(pool.pool_id):
            return
        is_growth = found.advice.action is ScalingAction.SCALE_UP
        if (is_growth and found.advice.new_size > limit) or advice.contradicts(found.advice):
            self._new_left -= 1
            await self._store.withdraw(found)

    async def _recommend(
        self, pool: AdvisedPool, advice: PoolSizingRecommendation, mode: AdvisorMode
    ) -> tuple[int, str | None]:
        """Apply the advice if the mode says so; else store it, unless it is already open."""
        state = self._manager.tenants.of_pool(pool.pool_id)
        if state is None or self._is_changing(pool.pool_id):
            return 0, "another change of the pool is in progress"
        if self._store.find_dismissed(pool.pool_id, advice, pool.size.max_size):
            return 0, "it was dismissed recently"
        is_refused = advice.action is ScalingAction.SCALE_UP and bool(self._refused[pool.pool_id])
        if mode is not AdvisorMode.APPLY and (is_refused or self._can_wait(advice)):
            return 0, _REFUSED if is_refused else _CAN_WAIT
        found = self._store.find_open(pool.pool_id, advice, pool.size.max_size)
        if found is None and not self._new_left:
            return 0, "this tick made too many recommendations; the next one continues"
        recommendation = self._recommendation(pool, advice, found)
        blocked_by = None
        if mode is AdvisorMode.APPLY:
            blocked_by = await self._auto_apply.apply(recommendation, state)
        if found is not None:
            await self._store.renew(found, advice, self._lifetime)
        else:
            self._new_left -= 1
            if mode is not AdvisorMode.APPLY or (blocked_by is not None and not is_refused):
                await self._store.add(recommendation)
            if mode is not AdvisorMode.APPLY:
                _log.info("resize recommended", **log_fields(recommendation))
        return int(found is None), blocked_by

    def _can_wait(self, advice: PoolSizingRecommendation) -> bool:
        """Whether a person need not decide: callers lack nothing, the advice is only a precaution.

        Every pool in use gets advice to make room for bursts, so a person would see nothing else.
        Callers that were late while half of the size was not needed waited for something else, such
        as a login.
        """
        if advice.action is not ScalingAction.SCALE_UP or advice.reason_code not in _FORESIGHT:
            return False
        peak = advice.evidence.get("window_peak_size")
        is_room = advice.reason_code is not ReasonCode.DEMAND_ABOVE_SIZE
        if is_room and peak is not None and 2 * peak <= advice.current_size:
            return True
        return (advice.evidence.get("late_share") or 0.0) <= self.settings.demand.late_share

    def _recommendation(
        self, pool: AdvisedPool, advice: PoolSizingRecommendation, found: Recommendation | None
    ) -> Recommendation:
        """Create a recommendation, or update the open one, *found*, with the present advice."""
        if found is not None:
            return replace(found, advice=advice, metrics=pool.metrics)
        now = datetime.now(UTC)
        return Recommendation(
            id=uuid4(),
            pool_id=pool.pool_id,
            tenant=pool.pool_id if pool.pool_id in self._manager.tenants else None,
            rule=self.settings.rule,
            advice=advice,
            max_size=pool.size.max_size,
            metrics=pool.metrics,
            status=RecommendationStatus.OPEN,
            created_at=now,
            expires_at=now + self._lifetime,
        )

    @property
    def _lifetime(self) -> timedelta:
        """How long a recommendation stays open unless it is repeated."""
        interval = timedelta(seconds=self.settings.interval)
        return min(max(_MIN_LIFETIME, interval * _INTERVALS_TO_LIVE), MAX_LIFETIME)

    async def _suggest_placements(self, now: float) -> int:
        """Recommend another kind of pool to some tenants; return how many."""
        made, slices = 0, TimeSlices()
        for found in self._placement.suggest(now, self.settings.mode):
            await slices.end_step()
            if found is not None and self._new_left and not self._store.knows(found):
                self._new_left -= 1
                await self._store.add(found)
                self.adjustments_total += 1
                made += 1
        return made
