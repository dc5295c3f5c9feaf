"""The advisor's input: what happened to each pool between two readings of its counters.

Keeps the last minutes of each pool, too, for questions of the kind "what if".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import replace

from app.domain.advisor import PoolObservation, ServerLoad
from app.domain.counters import CounterReading
from app.domain.pool import MAX_POOL_SIZE
from app.pools.manager import TenantPoolManager
from app.pools.pool import Pool
from app.pools.server_load import ServerLoads

# Observations shorter than this are joined to the next one before they are remembered.
_REMEMBERED_SECONDS = 60.0
_REMEMBERED = 6


class Observer:
    """Observes pools, one after the other."""

    def __init__(self, manager: TenantPoolManager, loads: ServerLoads) -> None:
        self._manager = manager
        self._loads = loads
        self._before: dict[str, CounterReading] = {}
        self._recent: dict[str, deque[PoolObservation]] = {}
        self._round_began = 0.0
        self._servers: dict[str, tuple[float, ServerLoad | None]] = {}

    def begin_round(self, now: float) -> None:
        """Read once what is the same for all pools of a server."""
        self._servers = {
            name: (server.lag.worst_since(self._round_began), self._loads.of(name))
            for name, server in self._manager.servers.items()
        }
        self._round_began = now

    def observe(self, pool: Pool, now: float) -> PoolObservation | None:
        """What happened since the last call; None if this is the first, or too soon after it."""
        reading = pool.reading(now)
        before = self._before.get(pool.pool_id)
        is_same_pool = before is not None and before.opened_at == reading.opened_at
        if before is not None and is_same_pool and now <= before.at:
            return None
        self._before[pool.pool_id] = reading
        if before is None or not is_same_pool:
            self._recent.pop(pool.pool_id, None)
            return None
        seen = self._observation(pool, before, reading)
        self._remember(pool.pool_id, seen)
        return seen

    def observe_gauges(self, pool: Pool, now: float) -> PoolObservation:
        """The pool's gauges now, without anything that happened before."""
        reading = pool.reading(now)
        return self._observation(pool, reading, replace(reading, at=now + 1.0))

    def recent(self, pool_id: str) -> Sequence[PoolObservation]:
        """The last minutes of a pool that was used in them, oldest first."""
        return tuple(self._recent.get(pool_id, ()))

    def retain(self, pool_ids: Collection[str]) -> list[str]:
        """Forget all pools but these; the forgotten ones."""
        gone = [pool_id for pool_id in self._before if pool_id not in pool_ids]
        for pool_id in gone:
            del self._before[pool_id]
            self._recent.pop(pool_id, None)
        return gone

    def _observation(
        self, pool: Pool, before: CounterReading, after: CounterReading
    ) -> PoolObservation:
        lag, load = self._servers.get(pool.server.name, (0.0, None))
        seconds = after.at - before.at
        grown = after.counters - before.counters
        opened = grown.connections_opened
        return PoolObservation(
            at=after.at,
            seconds=seconds,
            state=pool.state,
            metrics=pool.metrics,
            min_size=pool.size.min_size,
            max_size=pool.size.max_size,
            max_allowed=self._max_allowed(pool),
            mean_active=(after.busy_seconds - before.busy_seconds) / seconds,
            mean_waiting=(after.waiting_seconds - before.waiting_seconds) / seconds,
            mean_open=(after.open_seconds - before.open_seconds) / seconds,
            arrivals=max(0, after.arrivals - before.arrivals),
            acquired=grown.connections_acquired,
            released=grown.connections_released,
            timeouts=grown.timeouts,
            rejected=grown.rejected,
            wait=after.wait - before.wait,
            hold=after.hold - before.hold,
            connect_failures=grown.connect_failures,
            mean_connect=grown.connect_seconds / opened if opened else None,
            leak_suspects=len(pool.leak_suspects(after.at)),
            loop_lag_seconds=lag,
            server=load,
            weight=self._weight(pool),
        )

    def _max_allowed(self, pool: Pool) -> int:
        """The most max_size may become: the server's budget, and the tenant's max_leases."""
        # The budget of a server never reached is unknown.
        limits = [MAX_POOL_SIZE]
        if pool.server.limits is not None:
            limits.append(max(1, pool.server.limit))
        state = self._manager.tenant_states.get(pool.pool_id)
        if state is not None and state.tenant.spec.max_leases is not None:
            limits.append(state.tenant.spec.max_leases)
        return min(limits)

    def _weight(self, pool: Pool) -> int:
        """The tenant's weight; for a shared pool the number of tenants."""
        state = self._manager.tenant_states.get(pool.pool_id)
        if state is not None:
            return state.tenant.spec.weight
        return max(1, self._manager.tenant_count(pool.pool_id))

    def _remember(self, pool_id: str, seen: PoolObservation) -> None:
        recent = self._recent.get(pool_id)
        is_used = bool(seen.arrivals or seen.mean_active or seen.mean_waiting)
        if recent is None:
            if is_used:
                self._recent[pool_id] = deque([seen], maxlen=_REMEMBERED)
            return
        last = recent[-1]
        if last.seconds < _REMEMBERED_SECONDS and last.max_size == seen.max_size:
            recent[-1] = _joined(last, seen)
        else:
            recent.append(seen)
        if not is_used and not any(each.arrivals or each.mean_active for each in recent):
            del self._recent[pool_id]


def _joined(first: PoolObservation, then: PoolObservation) -> PoolObservation:
    """Two consecutive observations of a pool as one; *first* must not be used afterwards."""
    first.wait.merge(then.wait)
    first.hold.merge(then.hold)
    seconds = first.seconds + then.seconds

    def mean(one: float, other: float) -> float:
        return (one * first.seconds + other * then.seconds) / seconds

    return replace(
        then,
        seconds=seconds,
        mean_active=mean(first.mean_active, then.mean_active),
        mean_waiting=mean(first.mean_waiting, then.mean_waiting),
        mean_open=mean(first.mean_open, then.mean_open),
        arrivals=first.arrivals + then.arrivals,
        acquired=first.acquired + then.acquired,
        released=first.released + then.released,
        timeouts=first.timeouts + then.timeouts,
        rejected=first.rejected + then.rejected,
        connect_failures=first.connect_failures + then.connect_failures,
        mean_connect=first.mean_connect if then.mean_connect is None else then.mean_connect,
        # A single stall does not invalidate the other minutes.
        loop_lag_seconds=mean(first.loop_lag_seconds, then.loop_lag_seconds),
        wait=first.wait,
        hold=first.hold,
    )
