"""Assessment: what one observation, and all before it, say about a pool's load.

The part of the demand rule that learns and reckons; `demand` decides by it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil

from app.domain.advisor.demand_config import LATE_MEMORY, DemandConfig
from app.domain.advisor.erlang import OfferedLoad, smallest_size
from app.domain.advisor.forecast import Forecast
from app.domain.advisor.growth_blockers import GrowthBlocker, unreliable_observation
from app.domain.advisor.lateness import Lateness
from app.domain.advisor.observation import PoolObservation
from app.domain.advisor.sizing_recommendation import Confidence
from app.domain.advisor.trial import TrialState, TrialVerdict, is_saturated
from app.domain.advisor.window import Slice, Window
from app.domain.pool import PoolState

# Of the patience: whoever waits for a connect may wait a little for its turn as well.
_QUICK = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class DemandMemory:
    """What the demand rule remembers of one pool.

    Attributes:
        forecast: of its load.
        window: what it needed lately.
        guard: its growths on trial.
        late: of the last ticks at this size, whether too many callers were late.
        connect: seconds that opening a connection took lately; None before any was opened.
    """

    forecast: Forecast = field(default_factory=Forecast)
    window: Window = field(default_factory=Window)
    trial: TrialState = field(default_factory=TrialState)
    late_ticks: tuple[bool, ...] = ()
    connect_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """One observation, understood.

    Attributes:
        seen: the observation.
        load: what the pool is expected to have to carry.
        lateness: who waited too long in the interval.
        needed: the least size that carries the load; `top` + 1 if more than it may become.
        desired: the same, or more if callers are late nevertheless.
        allowance: connections above these that a burst may open.
        top: the most the size may become.
        gate: why the observation says nothing about the size; None when it does.
        events: callers seen in the window.
        memory: what to remember for the next one.
    """

    observation: PoolObservation
    load: OfferedLoad
    lateness: Lateness
    needed: int
    desired: int
    allowance: int
    max_allowed: int
    blocker: GrowthBlocker | None
    events: int
    memory: DemandMemory

    @property
    def in_use(self) -> int:
        """Connections leased now."""
        return self.observation.metrics.active_connections

    @property
    def is_idle(self) -> bool:
        """Whether nobody used, wanted or waited for the pool in the whole interval."""
        seen, now = self.observation, self.observation.metrics
        return not (
            seen.arrivals or now.active_connections or now.waiting_requests or seen.mean_active
        )

    @property
    def floor(self) -> int:
        """The size below which it must not shrink: in use, usually busy plus one, min_size."""
        busy = ceil(self.memory.window.median_busy) + 1
        return max(self.observation.min_size, self.in_use, busy, 1)

    @property
    def required(self) -> int:
        """The size that the whole window asked for."""
        return max(self.memory.window.needed, self.floor)

    @property
    def shrink_target(self) -> int:
        """The size above which it shrinks: what was asked for, and the allowance."""
        return min(self.required + self.allowance, max(self.required, self.max_allowed))

    def confidence(self, config: DemandConfig) -> Confidence:
        """By how many callers were seen."""
        if self.blocker is not None or self.events < config.least_events:
            return Confidence.LOW
        return Confidence.HIGH if self.events >= config.enough_events else Confidence.MEDIUM

    def idle_seconds(self, config: DemandConfig) -> float | None:
        """How long an unused connection is worth keeping; None: as the pool is configured.

        Not long, if opening another one when it is needed again makes nobody late.
        """
        connect = self.memory.connect_seconds
        if self.blocker is not None or connect is None:
            return None
        return config.idle_seconds if connect <= _QUICK * config.patience_seconds else None

    def is_strained(self, config: DemandConfig) -> bool:
        """Whether the pool is saturated while leases last suspiciously long.

        Then more connections may only make each of them slower; otherwise each one more
        carries its share, and growing needs no trial.
        """
        return self.is_saturated(config) and self.memory.forecast.is_inflated(config)

    def is_saturated(self, config: DemandConfig) -> bool:
        """Whether nearly all connections were busy and callers waited."""
        return is_saturated(config.trial, self.observation)


def assess(config: DemandConfig, memory: DemandMemory, seen: PoolObservation) -> Assessment:
    """Learn from *seen*, and reckon what it means."""
    is_resized = seen.max_size != memory.trial.now.size
    gate = unreliable_observation(config, seen, is_resized=is_resized)
    guard, verdict = memory.trial.updated(config.trial, seen)
    forecast = memory.forecast
    if seen.state is PoolState.READY:
        forecast = forecast.updated(config, seen)
    if verdict is TrialVerdict.COMMIT:
        forecast = forecast.rebased()
    load, top = forecast.load(config), max(seen.ceiling, seen.min_size, 1)
    needed = _needed(config, load, seen, top)
    lateness = Lateness.of(seen, config.patience_seconds)
    is_late = gate is None and lateness.bound > config.late_share
    # What waited before a change of size says nothing about the size after it.
    late = (is_late,) if is_resized else (*memory.late_ticks, is_late)[-LATE_MEMORY:]
    desired = needed
    if sum(late) >= config.late_ticks and is_late:
        desired = max(needed, min(top + 1, seen.max_size + _late_step(config, seen)))
    window = memory.window.with_slice(_slice(seen, desired), config.window_seconds)
    return Assessment(
        observation=seen,
        load=load,
        lateness=lateness,
        needed=needed,
        desired=desired,
        allowance=_allowance(config, forecast),
        max_allowed=top,
        blocker=gate,
        events=window.events,
        memory=DemandMemory(
            forecast=forecast,
            window=window,
            trial=guard,
            late_ticks=late,
            connect_seconds=memory.connect_seconds
            if seen.mean_connect is None
            else seen.mean_connect,
        ),
    )


def _needed(config: DemandConfig, load: OfferedLoad, seen: PoolObservation, top: int) -> int:
    """The feed-forward size; at least what Little's law saw busy."""
    least = smallest_size(load, config.patience_seconds, config.late_share, top + 1)
    return max(least, min(ceil(seen.mean_active), top))


def _allowance(config: DemandConfig, forecast: Forecast) -> int:
    """Connections that the limit leaves to bursts.

    Connections are opened when callers need them: a limit costs nothing until a burst uses it,
    and without it the burst waits for the next look. So a pool that nobody uses keeps the
    allowance too: what runs once an hour would be late every time. Where leases last longer
    because of each other there is none, for a burst would only make them slower.
    """
    return 0 if forecast.is_inflated(config) else config.burst_allowance


def _late_step(config: DemandConfig, seen: PoolObservation) -> int:
    """A share of the size, but not more connections than there were callers to use them."""
    backlog = max(ceil(2.0 * seen.mean_waiting), seen.metrics.waiting_requests)
    return max(1, min(ceil(config.late_growth * seen.max_size), backlog))


def _slice(seen: PoolObservation, desired: int) -> Slice:
    return Slice(
        start=seen.at - seen.seconds,
        needed=desired,
        size=seen.max_size,
        busy=seen.mean_active * seen.seconds,
        seconds=seen.seconds,
        events=seen.arrivals,
    )
