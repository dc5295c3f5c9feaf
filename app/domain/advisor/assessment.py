"""What one observation, together with those before it, says about a pool's load.

This part of the demand rule estimates; `demand` decides.
"""

from dataclasses import dataclass, field
from math import ceil, sqrt

from app.domain.advisor.demand_config import LATE_MEMORY, DemandConfig
from app.domain.advisor.erlang import OfferedLoad, late_share, smallest_size
from app.domain.advisor.forecast import Forecast
from app.domain.advisor.growth_blockers import (
    GrowthBlocker,
    may_be_contended,
    unreliable_observation,
)
from app.domain.advisor.lateness import Lateness
from app.domain.advisor.observation import PoolObservation
from app.domain.advisor.sizing_recommendation import Confidence, ReasonCode
from app.domain.advisor.trial import TrialState, TrialVerdict, is_saturated
from app.domain.advisor.window import Slice, Window

# Callers that waited in such an interval would have waited at any size, and may have come again.
_COULD_NOT_LEND = frozenset({ReasonCode.NOT_READY, ReasonCode.CONNECTS_FAILING})


@dataclass(frozen=True, slots=True, kw_only=True)
class DemandMemory:
    """What the demand rule remembers of one pool.

    Attributes:
        forecast: the forecast of its load.
        window: what it needed recently.
        trial: the state of its trials of growth.
        late_ticks: for each recent tick at this size, whether too many callers were late.
    """

    forecast: Forecast = field(default_factory=Forecast)
    window: Window = field(default_factory=Window)
    trial: TrialState = field(default_factory=TrialState)
    late_ticks: tuple[bool, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """One observation with its estimates.

    Attributes:
        load: the load expected next.
        lateness: the callers that waited too long in the interval, if the pool could lend in it.
        needed: the least size that carries the load; `max_allowed` + 1 if no allowed size does.
        desired: the same, or more if callers are late although the size should do.
        allowance: connections beyond these, reserved for bursts.
        is_late: whether too many callers waited too long, beyond chance, because the size was too
            small. Callers that wait for a login wait at any size.
        max_allowed: the largest size allowed.
        blocker: why the observation says nothing about the size; None when it does.
        events: callers seen in the window.
        memory: the memory for the next observation.
    """

    config: DemandConfig
    observation: PoolObservation
    load: OfferedLoad
    lateness: Lateness
    needed: int
    desired: int
    allowance: int
    is_late: bool
    max_allowed: int
    blocker: GrowthBlocker | None
    events: int
    memory: DemandMemory

    def late_share(self, size: int) -> float:
        """The share of callers that would wait too long for one of *size* connections."""
        usable = self.observation.usable(size)
        return late_share(self.load, usable, self.config.patience_seconds)

    @property
    def is_idle(self) -> bool:
        """Whether nobody used the pool or waited for it in the whole interval."""
        seen, now = self.observation, self.observation.metrics
        return not (
            seen.arrivals or now.active_connections or now.waiting_requests or seen.mean_active
        )

    @property
    def floor(self) -> int:
        """The least size to shrink to: connections in use, usually busy plus one, min_size."""
        in_use = self.observation.metrics.active_connections
        busy = ceil(self.memory.window.median_busy) + 1
        return max(self.observation.min_size, max(in_use, busy) + self.observation.idle_places)

    @property
    def required(self) -> int:
        """The size that the whole window required."""
        return max(self.memory.window.needed, self.floor)

    @property
    def shrink_target(self) -> int:
        """The size above which it shrinks: the required size plus the allowance."""
        return min(self.required + self.allowance, max(self.required, self.max_allowed))

    @property
    def ceiling(self) -> int | None:
        """The size above which growth recently did not help; None if there is none."""
        return self.memory.trial.ceiling(self.observation.at)

    @property
    def growth_limit(self) -> int:
        """The largest size it may grow to: the allowed maximum, limited by the ceiling."""
        return self.max_allowed if self.ceiling is None else min(self.max_allowed, self.ceiling)

    @property
    def confidence(self) -> Confidence:
        """How sure the assessment is, by the number of callers seen."""
        if self.blocker is not None or self.events < self.config.min_events:
            return Confidence.LOW
        return Confidence.HIGH if self.events >= self.config.enough_events else Confidence.MEDIUM

    @property
    def warm_size(self) -> int:
        """Connections to keep open when idle: what the load needs, with its margin."""
        return min(self.needed, self.max_allowed)

    @property
    def is_inflated(self) -> bool:
        """Whether leases last so much longer than under light load that the pool may cause it."""
        return self.memory.forecast.is_inflated(self.config)

    def size_at_knee(self) -> int | None:
        """The size at which throughput peaks, if the pool is well beyond it; else None.

        By Gunther's universal scalability law without contention, a lease among c takes
        1 + k c (c - 1) times as long as alone, and throughput peaks at 1 / sqrt(k) connections,
        where that is 2. The size is known only if leases are known to be shorter under light load,
        and if the database may be the cause of longer ones.
        """
        seen, trial = self.observation, self.memory.trial
        size = seen.usable(seen.max_size)
        base, throughput = self.memory.forecast.base_hold, trial.current.throughput
        if not (self.is_degraded and trial.can_compare(self.config.trial) and base and throughput):
            return None
        is_base_known = self.memory.forecast.base_leases >= self.config.min_events
        if not (is_base_known and may_be_contended(self.config, seen)):
            return None
        longer = size / (throughput * base) - 1.0
        if longer <= 1.0:
            return None
        knee = max(round(size / sqrt(longer)), seen.min_size - seen.idle_places, 1)
        if knee * self.config.trial.min_growth > size:
            return None
        return knee + seen.idle_places

    @property
    def is_degraded(self) -> bool:
        """Whether the pool is saturated and leases last suspiciously long.

        Then more connections may only slow each other down, and growth needs a trial. Otherwise
        each additional connection carries its share.
        """
        return self.is_saturated and self.is_inflated

    @property
    def is_saturated(self) -> bool:
        """Whether nearly all connections were busy and callers waited."""
        return is_saturated(self.config.trial, self.observation)


def assess(config: DemandConfig, memory: DemandMemory, seen: PoolObservation) -> Assessment:
    """Update the estimates with *seen*, and derive the size that the load needs."""
    is_resized = seen.max_size != memory.trial.current.size
    blocker = unreliable_observation(config, seen, is_resized=is_resized)
    could_lend = blocker is None or blocker.reason_code not in _COULD_NOT_LEND
    trial, verdict = memory.trial.updated(
        config.trial, seen, is_inflated=memory.forecast.is_inflated(config)
    )
    forecast = memory.forecast
    if could_lend:
        forecast = forecast.updated(config, seen)
    if verdict is TrialVerdict.COMMIT:
        forecast = forecast.rebased()
    load, max_allowed = forecast.load(config), max(seen.max_allowed, seen.min_size, 1)
    needed = _needed(config, load, seen, max_allowed)
    lateness = Lateness.of(seen, config.patience_seconds) if could_lend else Lateness()
    is_late = (
        blocker is None
        and seen.is_open
        and LATE_MEMORY * lateness.callers >= config.min_events
        and lateness.bound > config.late_share
    )
    # Waits before a resize say nothing about the new size.
    late_ticks = (is_late,) if is_resized else (*memory.late_ticks, is_late)[-LATE_MEMORY:]
    desired = needed
    if sum(late_ticks) >= config.late_ticks and is_late:
        desired = max(needed, min(max_allowed + 1, seen.max_size + _late_step(config, seen)))
    window = memory.window.with_slice(_slice(seen, desired, lateness), config.window_seconds)
    return Assessment(
        config=config,
        observation=seen,
        load=load,
        lateness=lateness,
        needed=needed,
        desired=desired,
        allowance=max(config.burst_allowance, ceil(config.burst_share * window.needed)),
        is_late=is_late,
        max_allowed=max_allowed,
        blocker=blocker,
        events=window.events,
        memory=DemandMemory(
            forecast=forecast,
            window=window,
            trial=trial,
            late_ticks=late_ticks,
        ),
    )


def _needed(
    config: DemandConfig, load: OfferedLoad, seen: PoolObservation, max_allowed: int
) -> int:
    """The size by feed-forward, at least the connections that Little's law counts as busy."""
    smallest = smallest_size(load, config.patience_seconds, config.late_share, max_allowed + 1)
    busy = min(ceil(seen.mean_active), max_allowed)
    return min(max_allowed + 1, max(smallest, busy) + seen.idle_places)


def _late_step(config: DemandConfig, seen: PoolObservation) -> int:
    """Grow by a share of the size, but never beyond the callers that could use the connections."""
    backlog = max(ceil(2.0 * seen.mean_waiting), seen.metrics.waiting_requests)
    return max(1, min(ceil(config.late_growth * seen.max_size), backlog))


def _slice(seen: PoolObservation, desired: int, lateness: Lateness) -> Slice:
    return Slice(
        start=seen.at - seen.seconds,
        needed=desired,
        size=seen.max_size,
        busy=seen.mean_active * seen.seconds,
        seconds=seen.seconds,
        events=seen.arrivals,
        lateness=lateness,
    )
