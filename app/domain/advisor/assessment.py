"""What one observation, and all before it, mean for a pool's load.

The part of the demand rule that estimates; `demand` decides.
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

# Of the patience: a caller that waits for a connect may also have to queue for a little.
_QUICK = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class DemandMemory:
    """What the demand rule remembers of one pool.

    Attributes:
        forecast: of its load.
        window: what it needed lately.
        trial: its growths on trial.
        late_ticks: for the last ticks at this size, whether too many callers were late.
        connect_seconds: how long opening a connection took lately; None before any was opened.
    """

    forecast: Forecast = field(default_factory=Forecast)
    window: Window = field(default_factory=Window)
    trial: TrialState = field(default_factory=TrialState)
    late_ticks: tuple[bool, ...] = ()
    connect_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """One observation with its estimates.

    Attributes:
        load: what the pool is expected to have to carry.
        lateness: who waited too long in the interval.
        needed: the least size that carries the load; `max_allowed` + 1 if no allowed size does.
        desired: the same, or more if callers are late nevertheless.
        allowance: connections above these that a burst may open.
        max_allowed: the most the size may become.
        blocker: why the observation says nothing about the size; None when it does.
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
    def is_idle(self) -> bool:
        """Whether nobody used or waited for the pool in the whole interval."""
        seen, now = self.observation, self.observation.metrics
        return not (
            seen.arrivals or now.active_connections or now.waiting_requests or seen.mean_active
        )

    @property
    def floor(self) -> int:
        """The size below which it must not shrink: in use, usually busy plus one, min_size."""
        in_use = self.observation.metrics.active_connections
        busy = ceil(self.memory.window.median_busy) + 1
        return max(self.observation.min_size, in_use, busy, 1)

    @property
    def required(self) -> int:
        """The size that the whole window required."""
        return max(self.memory.window.needed, self.floor)

    @property
    def shrink_target(self) -> int:
        """The size above which it shrinks: what was required, and the allowance."""
        return min(self.required + self.allowance, max(self.required, self.max_allowed))

    @property
    def ceiling(self) -> int | None:
        """The size above which growth recently did not pay; None when there is none."""
        return self.memory.trial.ceiling(self.observation.at)

    @property
    def growth_limit(self) -> int:
        """The most the size may grow to: what is allowed, and no more than the ceiling."""
        return self.max_allowed if self.ceiling is None else min(self.max_allowed, self.ceiling)

    def confidence(self, config: DemandConfig) -> Confidence:
        """By how many callers were seen."""
        if self.blocker is not None or self.events < config.min_events:
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

    def is_degraded(self, config: DemandConfig) -> bool:
        """Whether the pool is saturated while leases last suspiciously long.

        Then more connections may only make each of them slower; otherwise each one more
        carries its share, and growing needs no trial.
        """
        return self.is_saturated(config) and self.memory.forecast.is_inflated(config)

    def is_saturated(self, config: DemandConfig) -> bool:
        """Whether nearly all connections were busy and callers waited."""
        return is_saturated(config.trial, self.observation)


def assess(config: DemandConfig, memory: DemandMemory, seen: PoolObservation) -> Assessment:
    """Update the estimates with *seen*, and derive the size that the load needs."""
    is_resized = seen.max_size != memory.trial.current.size
    blocker = unreliable_observation(config, seen, is_resized=is_resized)
    trial, verdict = memory.trial.updated(config.trial, seen)
    forecast = memory.forecast
    if seen.state is PoolState.READY:
        forecast = forecast.updated(config, seen)
    if verdict is TrialVerdict.COMMIT:
        forecast = forecast.rebased()
    load, max_allowed = forecast.load(config), max(seen.max_allowed, seen.min_size, 1)
    needed = _needed(config, load, seen, max_allowed)
    lateness = Lateness.of(seen, config.patience_seconds)
    is_late = blocker is None and lateness.bound > config.late_share
    # Waits before a change of size say nothing about the size after it.
    late_ticks = (is_late,) if is_resized else (*memory.late_ticks, is_late)[-LATE_MEMORY:]
    desired = needed
    if sum(late_ticks) >= config.late_ticks and is_late:
        desired = max(needed, min(max_allowed + 1, seen.max_size + _late_step(config, seen)))
    window = memory.window.with_slice(_slice(seen, desired), config.window_seconds)
    return Assessment(
        observation=seen,
        load=load,
        lateness=lateness,
        needed=needed,
        desired=desired,
        allowance=_allowance(config, forecast),
        max_allowed=max_allowed,
        blocker=blocker,
        events=window.events,
        memory=DemandMemory(
            forecast=forecast,
            window=window,
            trial=trial,
            late_ticks=late_ticks,
            connect_seconds=(
                memory.connect_seconds if seen.mean_connect is None else seen.mean_connect
            ),
        ),
    )


def _needed(
    config: DemandConfig, load: OfferedLoad, seen: PoolObservation, max_allowed: int
) -> int:
    """The feed-forward size; at least what Little's law saw busy."""
    smallest = smallest_size(load, config.patience_seconds, config.late_share, max_allowed + 1)
    return max(smallest, min(ceil(seen.mean_active), max_allowed))


def _allowance(config: DemandConfig, forecast: Forecast) -> int:
    """Connections that the limit leaves to bursts.

    Connections are opened when callers need them: a limit costs nothing until a burst uses it,
    and without it the burst waits for the next tick. So an unused pool keeps the allowance too:
    what runs once an hour would be late every time. Where leases slow each other down there is
    none, for a burst would only make them slower.
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
