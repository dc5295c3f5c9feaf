"""Gates: what makes more connections no answer, whatever the load.

Two kinds. Under some conditions the measurements say nothing about the size: then it stays
as it is. Under others the size may still shrink, but growing would not help, because the
limit is the database or the application. The first that applies is told.
"""

from __future__ import annotations

from dataclasses import dataclass

from app.domain.advisor.demand_config import DemandConfig
from app.domain.advisor.observation import PoolObservation, ServerLoad
from app.domain.advisor.sizing_recommendation import ReasonCode
from app.domain.pool import PoolState

# Opening less than this share of what it may, with so many callers waiting, is not lazy.
_OPEN_SHARE = 0.8
_WAITING = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowthBlocker:
    """A closed gate: its code, and why, as the end of a sentence."""

    reason_code: ReasonCode
    explanation: str


def unreliable_observation(
    config: DemandConfig, seen: PoolObservation, *, is_resized: bool
) -> GrowthBlocker | None:
    """Why *seen* says nothing about the size, None when it does.

    *is_resized*: the size was changed just before; connections may still be opening.
    """
    if seen.state is not PoolState.READY:
        return GrowthBlocker(
            reason_code=ReasonCode.NOT_READY,
            explanation=f"the pool is {seen.state.replace('_', ' ')}",
        )
    if seen.connect_failures:
        return GrowthBlocker(
            reason_code=ReasonCode.CONNECTS_FAILING,
            explanation=f"{_count(seen.connect_failures, 'connect')} failed: "
            "look at the database, its login and the network",
        )
    if seen.loop_lag_seconds > config.loop_lag_seconds:
        return GrowthBlocker(
            reason_code=ReasonCode.LOOP_LAG,
            explanation=f"the service itself stood still for {seen.loop_lag_seconds * 1000:.0f} "
            "ms, so the waits may be its own",
        )
    # Few were open on average before a burst came, too: at the end they are all open.
    most_open = max(seen.mean_open, seen.metrics.total_connections)
    is_short = most_open < _OPEN_SHARE * seen.max_size and seen.mean_waiting >= _WAITING
    if is_short and not is_resized:
        return GrowthBlocker(
            reason_code=ReasonCode.OPEN_BELOW_TARGET,
            explanation=f"only {seen.mean_open:.0f} of {seen.max_size} connections were open while "
            "callers waited: the server's budget, the network or slow connects hold it back",
        )
    return None


def growth_blocker(config: DemandConfig, seen: PoolObservation) -> GrowthBlocker | None:
    """Why more connections would not help, None when they may."""
    if seen.leak_suspects:
        held = "is" if seen.leak_suspects == 1 else "are"
        return GrowthBlocker(
            reason_code=ReasonCode.LEAK_SUSPECTED,
            explanation=f"{_count(seen.leak_suspects, 'lease')} {held} held for so long "
            "that the application may have lost track of them",
        )
    return _of_server(config, seen.server) if seen.server and seen.server.samples else None


def _of_server(config: DemandConfig, server: ServerLoad) -> GrowthBlocker | None:
    if server.idle_in_transaction_share > config.idle_in_transaction_share:
        return GrowthBlocker(
            reason_code=ReasonCode.IDLE_IN_TRANSACTION,
            explanation=f"{server.idle_in_transaction_share:.0%} of our connections sit idle in a "
            "transaction: the application holds them without using them",
        )
    if server.cores is not None and server.running >= config.running_per_core * server.cores:
        return GrowthBlocker(
            reason_code=ReasonCode.CPU_BOUND,
            explanation=f"the database already runs {server.running:.1f} statements at a time on "
            f"{_count(server.cores, 'core')}",
        )
    if server.lock_share > config.lock_share:
        return GrowthBlocker(
            reason_code=ReasonCode.LOCK_CONTENTION,
            explanation=f"{server.lock_share:.0%} of the database's active connections wait "
            "for locks",
        )
    if server.client_write_share > config.client_write_share:
        return GrowthBlocker(
            reason_code=ReasonCode.SLOW_READER,
            explanation=f"{server.client_write_share:.0%} of the database's active connections "
            "wait for callers to read their results",
        )
    return None


def is_io_bound(config: DemandConfig, seen: PoolObservation) -> bool:
    """Whether the database waits for its disks so much that growth goes by small steps."""
    server = seen.server
    return server is not None and server.samples > 0 and server.io_share > config.io_share


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
