"""Configuration of the demand rule and its trials: each value with unit, default and source."""

from dataclasses import dataclass, field

from app.domain.advisor.config_value import (
    check_ranges,
    count,
    factor,
    positive,
    ranged,
    share,
)
from app.domain.errors import InvalidInput
from app.domain.pool import MAX_POOL_SIZE

LATE_MEMORY = 3
"""The number of recent ticks that must be late for `late_ticks`."""

_MAX_TICKS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialConfig:
    """When a growth during saturation counts as a success, and what happens when it does not.

    Raises:
        InvalidInput: for values with which no trial could end.
    """

    saturation: float = share(
        0.9, "Share of connections busy above which a pool with waiting callers is saturated."
    )
    ticks: int = count(
        3, "Saturated ticks before and after the growth that make a comparison.", _MAX_TICKS
    )
    completions: int = count(200, "Leases ended before and after the growth that make one.")
    max_ticks: int = count(
        6, "Ticks after which an undecided trial is undone; at least `ticks`.", _MAX_TICKS
    )
    min_growth: float = factor(
        1.1, "Smallest growth, as a factor, that is compared.", exclusive=True
    )
    elasticity: float = share(0.3, "Growth of throughput per growth of size that pays.")
    certainty: float = positive(
        1.64, "Standard errors between verdict and `elasticity`; 1.64: 95 %."
    )
    ceiling_seconds: float = positive(
        300.0, "How long the size before an undone growth is the ceiling."
    )
    max_ceiling_seconds: float = positive(
        3600.0, "Upper limit of that time, which doubles with each further failure."
    )

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.max_ticks < self.ticks:
            raise InvalidInput("max_ticks must be at least ticks.")
        if not self.max_ceiling_seconds >= self.ceiling_seconds:
            raise InvalidInput("max_ceiling_seconds must be at least ceiling_seconds.")


@dataclass(frozen=True, slots=True, kw_only=True)
class DemandConfig:
    """Configuration of the demand rule.

    Where queueing theory has an answer, the defaults come from it. Growth and window follow
    Kubernetes' autoscaler (asymmetric stabilisation: growth x2 a tick, a window of 300 s). The rest
    comes from simulations on synthetic loads, not on recorded traces: minute bins that wander,
    spike, jump or recur, and steps, ramps, bursts, waves and a flash crowd. Allowance: on 12 such
    loads with 5 seeds, 0, 10 and 20 had a mean regret of 6.9, 1.1 and 0.4 at 1,000
    connection-seconds per late wait, and of 0.59, 0.88 and 0.88 at 10. Burst share: 1, 4 and 9 made
    5.3, 0.4 and 0.4 % late on a random walk with spikes of up to 400 requests/s, and reached 0.98,
    0.98 and 0.43 of the best static size's throughput in overload past a knee of 8. Hold inflation:
    of 1.25, 1.35 and 1.5 the largest with which a pool does not settle beyond 55 connections, at
    1.25 times the capacity of a server with a knee at 50 (3 seeds). Idle seconds: two ticks.

    Raises:
        InvalidInput: for values with which the rule could not work.
    """

    patience_seconds: float = positive(0.100, "A caller that waits longer is late.")
    late_share: float = share(0.01, "Share of callers that may be late.", exclusive=True)
    rate_smoothing: float = share(
        0.4, "Weight of the newest 5 s in the arrival rate.", exclusive=True
    )
    rate_margin: float = ranged(2.0, "Mean absolute deviations added to the smoothed rate.", 0, 100)
    hold_seconds: float = positive(120.0, "Time over which hold times are averaged.")
    hold_inflation: float = factor(
        1.35,
        "Multiple of the hold under light load above which a longer hold is no reason to grow.",
    )
    late_ticks: int = count(2, "Late ticks among the last three that ask for more.", LATE_MEMORY)
    late_growth: float = positive(0.25, "Share of the size added when callers are late.")
    max_growth: float = factor(
        2.0, "Factor by which it may grow in one tick beyond what the load needs.", exclusive=True
    )
    window_seconds: float = positive(300.0, "A size needed within this time is not given back.")
    shrink_share: float = share(0.25, "Share of the size that may be given back in a minute.")
    shrink_step: int = count(
        2, "Connections that may always be given back in a minute.", MAX_POOL_SIZE
    )
    burst_allowance: int = ranged(
        20,
        "Connections the limit leaves for bursts, at least.",
        0,
        MAX_POOL_SIZE,
    )
    burst_share: float = ranged(
        4.0, "The same as a multiple of what the load needed in the window.", 0, 100
    )
    idle_seconds: float = positive(
        10.0,
        "Age after which an idle connection that the load does not need closes.",
    )
    dead_band: float = share(0.12, "Share of the size up to which being too large does not matter.")
    min_events: int = count(20, "Callers in the window below which nothing is concluded.")
    enough_events: int = count(200, "Callers in the window above which confidence is high.")
    loop_lag_seconds: float = positive(
        0.100, "A longer stall of the event loop explains waits by itself."
    )
    idle_in_transaction_share: float = share(
        0.30, "Share of our back-ends idle in transaction that blocks growth."
    )
    lock_share: float = share(
        0.25, "Share of active back-ends waiting for locks that blocks growth."
    )
    io_share: float = share(
        0.25,
        "Share of active back-ends waiting for I/O at which growth is limited to `late_growth`.",
    )
    client_write_share: float = share(
        0.25, "Share of active back-ends waiting for slow readers that blocks growth."
    )
    running_per_core: float = positive(
        1.0, "Statements running per core at which the processors are the limit."
    )
    trial: TrialConfig = field(default_factory=TrialConfig)

    def __post_init__(self) -> None:
        check_ranges(self)
