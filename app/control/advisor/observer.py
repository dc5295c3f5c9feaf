"""The advisor's input: what happened in each pool between two readings of its counters.

It also keeps the last minutes of each pool for what-if questions.
"""

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import replace

from app.control.advisor.advised_pools import AdvisedPool
from app.domain.advisor import PoolObservation, ServerLoad
from app.domain.counters import CounterReading
from app.domain.histogram import Histogram
from app.domain.nodes.load_reading import LoadOnNodes, LoadReading
from app.domain.pool import MAX_POOL_SIZE, NO_CONNECTIONS, PoolMetrics
from app.pools.leak_detection import leak_suspects
from app.pools.manager import TenantPoolManager
from app.pools.pool import Pool
from app.pools.servers.server import Server
from app.pools.servers.server_load import ServerLoads

# Observations shorter than this are joined with the next one before they are kept.
_REMEMBERED_SECONDS = 60.0
_REMEMBERED = 6
# So many seconds after a pool can lend again, the callers that it kept waiting are served or gone.
_SETTLING_SECONDS = 5.0
# How the numbers of two consecutive observations are joined; of the others the later one counts.
_SUMS = (
    *("seconds", "arrivals", "acquired", "released", "timeouts", "rejected"),
    *("pool_limit_waits", "connect_failures", "arrivals_on_nodes"),
)
# The lag of the event loop, too: a single stall does not invalidate the other minutes.
_MEANS = (
    *("mean_active", "mean_waiting", "mean_open", "mean_active_on_nodes"),
    "loop_lag_seconds",
)


class Observer:
    """Observes pools, one after another."""

    def __init__(self, manager: TenantPoolManager, loads: ServerLoads) -> None:
        self._manager = manager
        self._loads = loads
        self._before: dict[str, CounterReading] = {}
        self._nodes_before: dict[str, LoadReading] = {}
        self._recent: dict[str, deque[PoolObservation]] = {}
        self._round_began = 0.0
        self._servers: dict[str, tuple[float, ServerLoad | None]] = {}

    def begin_round(self, now: float) -> None:
        """Read once what all pools of a server have in common."""
        self._servers = {
            name: (server.lag.worst_since(self._round_began), self._loads.of(name))
            for name, server in self._manager.servers.items()
        }
        self._round_began = now

    def observe(self, advised: AdvisedPool, now: float) -> PoolObservation | None:
        """What happened since the last call; None at the first call, or too soon after the last."""
        on_nodes = self._since_last(self._nodes_before, advised.pool_id, advised.reading)
        pool = advised.pool
        if pool is None:
            self._before.pop(advised.pool_id, None)
            seen = None if on_nodes is None else self._nothing_here(advised, *on_nodes)
        else:
            seen = self._observe_here(pool, now)
        if seen is None:
            return None
        if on_nodes is not None:
            seen = _with_nodes(seen, LoadOnNodes.between(*on_nodes), on_nodes[1].metrics)
        if advised.idle_places:
            seen = replace(seen, idle_places=advised.idle_places)
        self._remember(advised.pool_id, seen)
        return seen

    def _observe_here(self, pool: Pool, now: float) -> PoolObservation | None:
        reading = pool.reading(now)
        before = self._before.get(pool.pool_id)
        is_same_pool = before is not None and before.opened_at == reading.opened_at
        if before is not None and is_same_pool and now <= before.at:
            return None
        self._before[pool.pool_id] = reading
        if before is None or not is_same_pool:
            self._recent.pop(pool.pool_id, None)
            return None
        return self._observation(pool, before, reading)

    @staticmethod
    def _since_last(
        known: dict[str, LoadReading], pool_id: str, reading: LoadReading | None
    ) -> tuple[LoadReading, LoadReading] | None:
        """The previous reading and this one; None if this is the first."""
        before = known.pop(pool_id, None)
        if reading is None:
            return None
        known[pool_id] = reading
        return None if before is None or reading.at <= before.at else (before, reading)

    def observe_gauges(self, advised: AdvisedPool, now: float) -> PoolObservation:
        """Its present gauges, without any history."""
        pool, on_nodes = advised.pool, advised.reading
        if pool is None:
            assert on_nodes is not None  # noqa: S101 - it is somewhere
            seen = self._nothing_here(advised, on_nodes, replace(on_nodes, at=now + 1.0))
        else:
            reading = pool.reading(now)
            seen = self._observation(pool, reading, replace(reading, at=now + 1.0))
        if on_nodes is None:
            return seen
        nothing = LoadOnNodes.between(on_nodes, replace(on_nodes, at=on_nodes.at + 1.0))
        return _with_nodes(seen, nothing, on_nodes.metrics)

    def recent(self, pool_id: str) -> Sequence[PoolObservation]:
        """The last minutes of a recently used pool, oldest first."""
        return tuple(self._recent.get(pool_id, ()))

    def retain(self, pool_ids: Collection[str]) -> list[str]:
        """Forget all other pools; return those that were forgotten."""
        known = self._before.keys() | self._nodes_before.keys()
        gone = [pool_id for pool_id in known if pool_id not in pool_ids]
        for pool_id in gone:
            self._before.pop(pool_id, None)
            self._nodes_before.pop(pool_id, None)
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
            max_allowed=self.max_allowed(pool.pool_id, pool.server),
            mean_active=(after.busy_seconds - before.busy_seconds) / seconds,
            mean_waiting=(after.waiting_seconds - before.waiting_seconds) / seconds,
            mean_open=(after.open_seconds - before.open_seconds) / seconds,
            arrivals=max(0, after.arrivals - before.arrivals),
            acquired=grown.connections_acquired,
            released=grown.connections_released,
            timeouts=grown.timeouts,
            rejected=grown.rejected,
            pool_limit_waits=grown.pool_limit_waits,
            wait=after.wait - before.wait,
            hold=after.hold - before.hold,
            connect_failures=grown.connect_failures,
            mean_connect=grown.connect_seconds / opened if opened else None,
            leak_suspects=len(leak_suspects(pool, after.at)),
            loop_lag_seconds=lag,
            server=load,
            weight=self.weight(pool.pool_id),
            interrupted=before.at < pool.interrupted_until + _SETTLING_SECONDS,
        )

    def _nothing_here(
        self, advised: AdvisedPool, before: LoadReading, after: LoadReading
    ) -> PoolObservation:
        """The observation of a pool that is only on nodes, before their reports are added."""
        _, load = self._servers.get(advised.server.name, (0.0, None))
        return PoolObservation(
            at=after.at,
            seconds=after.at - before.at,
            state=advised.state,
            metrics=NO_CONNECTIONS,
            min_size=advised.size.min_size,
            max_size=advised.size.max_size,
            max_allowed=self.max_allowed(advised.pool_id, advised.server),
            wait=Histogram(),
            hold=Histogram(),
            server=load,
            weight=self.weight(advised.pool_id),
        )

    def max_allowed(self, pool_id: str, server: Server) -> int:
        """The largest allowed max_size, by the server's budget and the tenant's max_leases."""
        # Until a server has been reached, its budget is unknown.
        limits = [MAX_POOL_SIZE]
        if server.limits is not None:
            limits.append(max(1, server.limit))
        state = self._manager.tenants.get(pool_id)
        if state is not None and state.tenant.spec.max_leases is not None:
            limits.append(state.tenant.spec.max_leases)
        return min(limits)

    def weight(self, pool_id: str) -> int:
        """The tenant's weight; for a shared pool, its number of tenants."""
        state = self._manager.tenants.get(pool_id)
        if state is not None:
            return state.tenant.spec.weight
        return max(1, self._manager.tenants.count(pool_id))

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


def _with_nodes(
    here: PoolObservation, on_nodes: LoadOnNodes, metrics: PoolMetrics
) -> PoolObservation:
    """Join the observation of nodes with *here*, which must not be used afterwards."""
    here.wait.merge(on_nodes.wait)
    here.hold.merge(on_nodes.hold)
    return replace(
        here,
        metrics=PoolMetrics.total((here.metrics, metrics)),
        mean_active=here.mean_active + on_nodes.mean_active,
        mean_waiting=here.mean_waiting + on_nodes.mean_waiting,
        mean_open=here.mean_open + on_nodes.mean_open,
        arrivals=here.arrivals + on_nodes.arrivals,
        acquired=here.acquired + on_nodes.ended,
        released=here.released + on_nodes.ended,
        arrivals_on_nodes=on_nodes.arrivals,
        mean_active_on_nodes=on_nodes.mean_active,
    )


def _joined(first: PoolObservation, then: PoolObservation) -> PoolObservation:
    """Join two consecutive observations of a pool; *first* must not be used afterwards."""
    first.wait.merge(then.wait)
    first.hold.merge(then.hold)
    sums = {name: getattr(first, name) + getattr(then, name) for name in _SUMS}
    means = {
        name: (getattr(first, name) * first.seconds + getattr(then, name) * then.seconds)
        / sums["seconds"]
        for name in _MEANS
    }
    return replace(
        then,
        **sums,
        **means,
        mean_connect=first.mean_connect if then.mean_connect is None else then.mean_connect,
        wait=first.wait,
        hold=first.hold,
        interrupted=first.interrupted or then.interrupted,
    )
