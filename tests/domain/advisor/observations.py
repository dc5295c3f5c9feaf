"""Observations for tests, complete except for what a test is about."""

from typing import Any

from hypothesis import strategies as st

from app.domain.advisor import PoolObservation, ServerLoad
from app.domain.histogram import Histogram
from app.domain.pool import PoolMetrics, PoolState

TICK = 5.0


def histogram(*counts: tuple[float, int]) -> Histogram:
    """That many durations of that many seconds each."""
    counted = Histogram()
    for seconds, count in counts:
        if count:
            one = Histogram()
            one.record(seconds)
            [bucket] = one.counts
            one.counts[bucket] = count
            counted.merge(one)
    return counted


def seen(
    size: int,
    *,
    at: float = TICK,
    rate: float = 0.0,
    hold: float = 0.1,
    late: int = 0,
    active: float | None = None,
    waiting: float = 0.0,
    opened: int | None = None,
    hold_times: Histogram | None = None,
    **more: Any,
) -> PoolObservation:
    """One tick of a pool of *size*: *rate* callers per second hold for *hold* seconds each.

    *late* of them waited a second, the others not at all; *active* and *waiting* are averages, and
    also the gauges at the end, when *opened* connections are open, or all. *hold_times* replaces
    *hold* with uneven durations.
    """
    callers = round(rate * TICK)
    busy = min(rate * hold, float(size)) if active is None else active
    leased, opened = round(busy), size if opened is None else opened
    facts: dict[str, Any] = {
        "metrics": PoolMetrics(
            total_connections=max(opened, leased),
            idle_connections=max(0, opened - leased),
            active_connections=leased,
            waiting_requests=round(waiting),
        ),
        "max_allowed": 100,
        "mean_open": float(size),
        "arrivals": callers,
        "acquired": callers,
        "released": callers,
        "wait": histogram((1.0, late), (0.0, callers - late)),
        "hold": histogram((hold, callers)) if hold_times is None else hold_times,
    }
    return PoolObservation(
        at=at,
        seconds=TICK,
        max_size=size,
        mean_active=busy,
        mean_waiting=waiting,
        **(facts | more),
    )


shares = st.floats(0.0, 1.0)
durations = st.lists(
    st.tuples(st.sampled_from((0.0, 0.001, 0.04, 0.06, 0.15, 1.0, 8.0)), st.integers(1, 60)),
    max_size=4,
).map(lambda counts: histogram(*counts))
server_loads = st.builds(
    ServerLoad,
    cores=st.none() | st.integers(1, 64),
    running=st.floats(0.0, 80.0),
    lock_share=shares,
    io_share=shares,
    idle_in_transaction_share=shares,
    client_write_share=shares,
    samples=st.integers(0, 5),
)


@st.composite
def observations(draw: st.DrawFn, size: int | None = None) -> PoolObservation:
    """Anything that can be observed of a pool, consistent or not."""
    max_size = draw(st.integers(1, 80)) if size is None else size
    leased = draw(st.integers(0, max_size))
    wait, hold = draw(durations), draw(durations)
    timeouts, rejected = draw(st.integers(0, 40)), draw(st.integers(0, 40))
    return PoolObservation(
        at=0.0,
        seconds=draw(st.sampled_from((0.1, 5.0, 30.0, 4000.0))),
        state=draw(st.sampled_from((*[PoolState.READY] * 5, *PoolState))),
        metrics=PoolMetrics(
            total_connections=max_size,
            idle_connections=max_size - leased,
            active_connections=leased,
            waiting_requests=draw(st.integers(0, 50)),
        ),
        min_size=draw(st.integers(0, max_size)),
        max_size=max_size,
        max_allowed=draw(st.integers(max_size, 120)),
        mean_active=draw(st.floats(0.0, max_size)),
        mean_waiting=draw(st.sampled_from((0.0, 0.0, 0.3, 20.0))),
        mean_open=draw(st.floats(0.0, max_size)),
        arrivals=wait.count + timeouts + rejected,
        acquired=wait.count,
        released=hold.count,
        timeouts=timeouts,
        rejected=rejected,
        wait=wait,
        hold=hold,
        connect_failures=draw(st.sampled_from((0, 0, 0, 2))),
        leak_suspects=draw(st.sampled_from((0, 0, 0, 1))),
        interrupted=draw(st.sampled_from((False, False, False, True))),
        loop_lag_seconds=draw(st.sampled_from((0.0, 0.0, 0.0, 0.5))),
        server=draw(st.none() | server_loads),
        weight=draw(st.integers(1, 4)),
        idle_places=draw(st.sampled_from((0, 0, 0, 2))),
    )
