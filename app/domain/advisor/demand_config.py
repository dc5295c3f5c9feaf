"""Configuration of the demand rule and its trials: each value with unit, default and source."""

from __future__ import annotations

from dataclasses import dataclass, field

from app.domain.errors import InvalidInput


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialConfig:
    """When a growth made while saturated pays, and what happens when it does not.

    Attributes:
        saturation: share of the connections busy (0..1) above which a pool that keeps callers
            waiting counts as saturated.
        ticks: saturated ticks before and after the growth that make a comparison, at least 1.
        completions: leases ended before and after the growth that make one, at least 1.
        max_ticks: ticks after which an undecided trial is undone, at least `ticks`.
        min_growth: growth of the size (above 1) below which no comparison is made.
        elasticity: growth of throughput per growth of size that pays, 0..1.
        certainty: standard errors between a verdict and `elasticity`; 1.64 is 95 %.
        ceiling_seconds: how long the size before an undone growth is the ceiling.
        max_ceiling_seconds: it doubles up to this with every further failure.

    Raises:
        InvalidInput: for values with which no trial could end.
    """

    saturation: float = 0.9
    ticks: int = 3
    completions: int = 200
    max_ticks: int = 6
    min_growth: float = 1.1
    elasticity: float = 0.3
    certainty: float = 1.64
    ceiling_seconds: float = 300.0
    max_ceiling_seconds: float = 3600.0

    def __post_init__(self) -> None:
        _require_shares(self, "saturation", "elasticity")
        _require_positive(self, "ticks", "completions", "certainty", "ceiling_seconds")
        if self.max_ticks < self.ticks:
            raise InvalidInput("max_ticks must be at least ticks.")
        if not self.min_growth > 1.0:
            raise InvalidInput("min_growth must be above 1.")
        if not self.max_ceiling_seconds >= self.ceiling_seconds:
            raise InvalidInput("max_ceiling_seconds must be at least ceiling_seconds.")


@dataclass(frozen=True, slots=True, kw_only=True)
class DemandConfig:
    """Configuration of the demand rule.

    The defaults come from queueing theory where it has an answer, from Kubernetes' autoscaler
    (asymmetric stabilisation: growth x2 a tick, a window of 300 s), and from simulations on
    synthetic loads for the rest: minute bins that wander, spike, jump or recur, and steps, ramps,
    bursts, waves and a flash crowd, none of them a recorded trace. On 12 such loads of 5 seeds an
    allowance of 0, 10 and 20 had a mean regret of 6.9, 1.1 and 0.4 at 1,000 connection-seconds a
    late wait, and of 0.59, 0.88 and 0.88 at 10. The hold inflation is the largest of 1.25, 1.35
    and 1.5 with which a pool under 1.25 times the capacity of a server with a knee at 50
    connections does not settle beyond 55 (3 seeds). Keeping unused connections for 300, 60, 30, 10
    and 5 seconds has a mean regret of 0.79, 0.36, 0.27, 0.16 and 0.10 at 10 connection-seconds a
    late wait and less at higher prices, on 7 loads of 2 seeds; 10 is two ticks, and costs a connect
    every 8 seconds at 60 requests/s.

    Attributes:
        patience_seconds: a caller that waits longer is late.
        late_share: share of callers (0..1) that may be late.
        rate_smoothing: weight (0..1) of the newest 5 seconds in the smoothed arrival rate.
        rate_margin: mean absolute deviations added to the smoothed rate.
        hold_seconds: the past over which hold times are averaged, seconds.
        hold_inflation: above this multiple of its value under light load (at least 1) a longer
            hold is no reason for more connections: the pool itself may cause it.
        late_ticks: late ticks among the last three that ask for more, 1..3.
        late_growth: share of the size added when callers are late, above 0.
        max_growth: factor by which the size may grow in one tick, above 1.
        min_step: connections it may always grow by in one tick, at least 1.
        window_seconds: a size needed in this time is not given back.
        shrink_share: share of the size that may be given back in a minute, 0..1.
        shrink_step: connections that may always be given back in a minute, at least 1.
        burst_allowance: connections that the limit leaves to bursts above what the load needs, at
            least 0; none once leases last longer because of each other.
        idle_seconds: seconds without use after which a connection is closed, as long as opening
            one takes at most half of the patience; above 0.
        dead_band: share of the size (0..1) up to which being too large does not matter.
        min_events: callers in the window below which nothing is concluded.
        enough_events: callers in the window above which confidence is high.
        loop_lag_seconds: a longer stall of the event loop explains waits by itself.
        idle_in_transaction_share: share of our backends (0..1) idle in transactions above
            which the application keeps connections.
        lock_share: share of active backends (0..1) waiting for locks that is contention.
        io_share: share of active backends (0..1) waiting for IO above which growth is by
            `late_growth` at most.
        client_write_share: share of active backends (0..1) waiting for the client to read
            above which callers read too slowly.
        running_per_core: statements running per core at which the processors are the limit.
        trial: when a growth paid.

    Raises:
        InvalidInput: for values with which the rule could not work.
    """

    patience_seconds: float = 0.050
    late_share: float = 0.01
    rate_smoothing: float = 0.4
    rate_margin: float = 2.0
    hold_seconds: float = 120.0
    hold_inflation: float = 1.35
    late_ticks: int = 2
    late_growth: float = 0.25
    max_growth: float = 2.0
    min_step: int = 10
    window_seconds: float = 300.0
    shrink_share: float = 0.25
    shrink_step: int = 2
    burst_allowance: int = 20
    idle_seconds: float = 10.0
    dead_band: float = 0.12
    min_events: int = 20
    enough_events: int = 200
    loop_lag_seconds: float = 0.100
    idle_in_transaction_share: float = 0.30
    lock_share: float = 0.25
    io_share: float = 0.25
    client_write_share: float = 0.25
    running_per_core: float = 1.0
    trial: TrialConfig = field(default_factory=TrialConfig)

    def __post_init__(self) -> None:
        _require_shares(
            self,
            *("late_share", "rate_smoothing", "shrink_share", "dead_band", "lock_share"),
            *("io_share", "client_write_share", "idle_in_transaction_share"),
        )
        _require_positive(
            self,
            *("patience_seconds", "late_share", "rate_smoothing", "hold_seconds", "late_growth"),
            *(
                "min_step",
                "window_seconds",
                "shrink_step",
                "idle_seconds",
                "min_events",
                "enough_events",
            ),
            *("loop_lag_seconds", "running_per_core"),
        )
        if not self.rate_margin >= 0.0:
            raise InvalidInput("rate_margin must not be negative.")
        if not self.burst_allowance >= 0:
            raise InvalidInput("burst_allowance must not be negative.")
        if not self.hold_inflation >= 1.0:
            raise InvalidInput("hold_inflation must be at least 1.")
        if not 1 <= self.late_ticks <= LATE_MEMORY:
            raise InvalidInput(f"late_ticks must be between 1 and {LATE_MEMORY}.")
        if not self.max_growth > 1.0:
            raise InvalidInput("max_growth must be above 1.")


LATE_MEMORY = 3
"""Ticks among which `late_ticks` must have been late."""


def _require_shares(config: DemandConfig | TrialConfig, *names: str) -> None:
    for name in names:
        if not 0.0 <= getattr(config, name) <= 1.0:
            raise InvalidInput(f"{name} must be between 0 and 1.")


def _require_positive(config: DemandConfig | TrialConfig, *names: str) -> None:
    for name in names:
        if not getattr(config, name) > 0:
            raise InvalidInput(f"{name} must be above 0.")
