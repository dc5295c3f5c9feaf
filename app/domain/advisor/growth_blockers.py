"""Conditions under which more connections are the wrong answer, whatever the load.

With some, an observation says nothing about the size, so it stays as it is. With others, the pool
may shrink but growth would not help, because the limit is the database or the application. The
first that applies is reported.
"""

from typing import NamedTuple

from app.domain.advisor.demand_config import DemandConfig
from app.domain.advisor.observation import PoolObservation, ServerLoad
from app.domain.advisor.sizing_recommendation import ReasonCode
from app.domain.pool import PoolState

# If a pool did not open while this many callers waited, something other than its limit holds it
# back.
_WAITING = 1.0
# A stall cannot explain waits that are longer than so many times its own length.
_OF_A_STALL = 10.0
_TENTH_OF_A_PERCENT, _HALF_A_PERCENT = 0.001, 0.005


class GrowthBlocker(NamedTuple):
    """A condition that applies: its code, and an explanation that completes a sentence."""

    reason_code: ReasonCode
    explanation: str


def unreliable_observation(
    config: DemandConfig, seen: PoolObservation, *, is_resized: bool
) -> GrowthBlocker | None:
    """Say why *seen* tells nothing about the size; None if it does.

    *is_resized*: the size has just changed, so connections may still be opening.
    """
    if seen.state is not PoolState.READY:
        state = seen.state.replace("_", " ")
        return GrowthBlocker(ReasonCode.NOT_READY, f"the pool is {state}")
    if seen.interrupted:
        return GrowthBlocker(
            ReasonCode.NOT_READY, "a moment ago the pool was paused, or its server was away"
        )
    if seen.connect_failures:
        return GrowthBlocker(
            ReasonCode.CONNECTS_FAILING,
            f"{counted(seen.connect_failures, 'connect')} failed; "
            "check the database, its login and the network",
        )
    if _may_explain_waits(config, seen):
        return GrowthBlocker(
            ReasonCode.LOOP_LAG,
            f"the service itself stalled for {seen.loop_lag_seconds * 1000:.0f} ms, "
            "which may explain the waits",
        )
    if not seen.is_open and seen.mean_waiting >= _WAITING and not is_resized:
        usable = seen.usable(seen.max_size)
        return GrowthBlocker(
            ReasonCode.OPEN_BELOW_TARGET,
            f"only {seen.mean_open:.0f} of {usable} connections were open while callers "
            "waited; the server's budget, the network or slow connects hold it back",
        )
    return None


def _may_explain_waits(config: DemandConfig, seen: PoolObservation) -> bool:
    """Whether a stall of this process may be the cause of its callers' waits."""
    lag, has_callers = seen.loop_lag_seconds, seen.arrivals > seen.arrivals_on_nodes
    if not seen.is_estimated:
        has_callers = has_callers or seen.mean_waiting > 0.0
    if lag <= config.loop_lag_seconds or not has_callers:
        return False
    return seen.wait.count_above(_OF_A_STALL * lag) <= config.late_share * seen.acquired


def growth_blocker(config: DemandConfig, seen: PoolObservation) -> GrowthBlocker | None:
    """Say why more connections would not help; None if they may."""
    if seen.leak_suspects:
        verb, them = ("has", "it") if seen.leak_suspects == 1 else ("have", "them")
        return GrowthBlocker(
            ReasonCode.LEAK_SUSPECTED,
            f"{counted(seen.leak_suspects, 'lease')} {verb} been held so long that the application "
            f"may have leaked {them}",
        )
    return _of_server(config, seen.server) if seen.server and seen.server.samples else None


def _of_server(config: DemandConfig, server: ServerLoad) -> GrowthBlocker | None:
    if server.idle_in_transaction_share > config.idle_in_transaction_share:
        return GrowthBlocker(
            ReasonCode.IDLE_IN_TRANSACTION,
            f"{percent(server.idle_in_transaction_share)} of our connections are idle in "
            "transaction; the application holds them without using them",
        )
    if server.cores is not None and server.running >= config.running_per_core * server.cores:
        return GrowthBlocker(
            ReasonCode.CPU_BOUND,
            f"the database already runs {server.running:.1f} statements at a time on "
            f"{counted(server.cores, 'core')}",
        )
    if server.lock_share > config.lock_share:
        return GrowthBlocker(
            ReasonCode.LOCK_CONTENTION,
            f"{percent(server.lock_share)} of the database's active connections wait for locks",
        )
    if server.client_write_share > config.client_write_share:
        return GrowthBlocker(
            ReasonCode.SLOW_READER,
            f"{percent(server.client_write_share)} of the database's active connections wait for "
            "callers to read their results",
        )
    return None


def may_be_contended(config: DemandConfig, seen: PoolObservation) -> bool:
    """Whether the database may be the cause of long leases: its samples say so, or there are none.

    Back-ends that contend run, or wait for locks or disks. If they do neither, the statements
    themselves take long, and would not end sooner if fewer ran at a time.
    """
    server = seen.server
    if server is None or not server.samples:
        return True
    # Leases that take twice as long as alone spend half of their time waiting for each other.
    most = seen.mean_active / 2 if server.cores is None else config.running_per_core * server.cores
    is_locked = server.lock_share > config.lock_share
    return server.running >= most or is_locked or is_io_bound(config, seen)


def is_io_bound(config: DemandConfig, seen: PoolObservation) -> bool:
    """Whether the database waits so much for its disks that the pool should grow in small steps."""
    server = seen.server
    return server is not None and server.samples > 0 and server.io_share > config.io_share


def percent(share: float) -> str:
    """Format a share of 0 to 1; one too small to matter is not written out."""
    if 0.0 < share < _TENTH_OF_A_PERCENT:
        return "under 0.1 %"
    if 0.0 < share < _HALF_A_PERCENT:
        return f"{share * 100.0:.1g} %"
    return f"{share * 100.0:.0f} %"


def counted(number: int, noun: str) -> str:
    """Format a count, as in `1 connect`, `2 connects`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
