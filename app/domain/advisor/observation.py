"""The input of a sizing rule: one pool between two ticks, and its server's load.

It has integrals and histograms of the interval, not only gauges at its end: so a burst between two
ticks is seen.
"""

from dataclasses import dataclass

from app.domain.histogram import Histogram
from app.domain.pool import PoolMetrics, PoolState

# A pool that is held back by its limit has at least this share of the limit open.
_OPEN_SHARE = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLoad:
    """What the database itself was doing, averaged over samples of `pg_stat_activity`.

    Attributes:
        cores: processors of the database's machine; None when unknown.
        running: back-ends active without a wait event, the mean over the samples.
        lock_share: share of active back-ends that waited on a Lock or LWLock, 0..1.
        io_share: share of active back-ends that waited on IO, 0..1.
        idle_in_transaction_share: share of our back-ends idle inside a transaction, 0..1.
        client_write_share: share of active back-ends that waited for the client to read, 0..1.
        samples: how many samples it averages.
    """

    cores: int | None = None
    running: float = 0.0
    lock_share: float = 0.0
    io_share: float = 0.0
    idle_in_transaction_share: float = 0.0
    client_write_share: float = 0.0
    samples: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolObservation:
    """One pool over one interval, on this process and the nodes together.

    Attributes:
        at: monotonic seconds at which the interval ended.
        seconds: how long the interval was, above 0.
        state: the pool's state at its end.
        metrics: the pool's gauges at its end.
        min_size: connections it always keeps.
        max_size: the limit in force, at its end.
        max_allowed: the largest allowed max_size.
        mean_active: connections leased, averaged over time.
        mean_waiting: callers waiting, averaged over time.
        mean_open: connections open, averaged over time.
        arrivals: callers that asked for a connection.
        acquired: callers that got one.
        released: leases that ended.
        timeouts: callers that gave up waiting.
        rejected: callers refused at once because too many waited.
        pool_limit_waits: callers, of all these, that waited until the pool could be opened.
        wait: how long callers waited that got one, seconds.
        hold: how long the ended leases lasted, seconds.
        connect_failures: failed connects.
        mean_connect: seconds that opening a connection took; None if none was opened.
        leak_suspects: present leases older than the leak threshold.
        loop_lag_seconds: the longest stall of the event loop.
        server: what the database did; None when it was not sampled.
        weight: the pool's share of a short budget, relative to others, at least 1.
        arrivals_on_nodes, mean_active_on_nodes: the part of each that nodes reported.
        interrupted: whether the pool could not lend for a part of the interval, or shortly before,
            because it was paused or its server was away. Callers that waited then would have waited
            at any size.
        idle_places: connections of max_size that nobody could use: one for each place (this process
            or a node) where the tenant had no callers.
    """

    at: float
    seconds: float
    state: PoolState = PoolState.READY
    metrics: PoolMetrics
    min_size: int = 0
    max_size: int
    max_allowed: int
    mean_active: float = 0.0
    mean_waiting: float = 0.0
    mean_open: float = 0.0
    arrivals: int = 0
    acquired: int = 0
    released: int = 0
    timeouts: int = 0
    rejected: int = 0
    pool_limit_waits: int = 0
    wait: Histogram
    hold: Histogram
    connect_failures: int = 0
    mean_connect: float | None = None
    leak_suspects: int = 0
    loop_lag_seconds: float = 0.0
    server: ServerLoad | None = None
    weight: int = 1
    arrivals_on_nodes: int = 0
    mean_active_on_nodes: float = 0.0
    interrupted: bool = False
    idle_places: int = 0

    def usable(self, size: int) -> int:
        """The number of *size* connections that are at places with callers; at least 1."""
        return max(1, size - self.idle_places)

    @property
    def is_estimated(self) -> bool:
        """Whether nodes reported a part of it: waits and holds there are estimates."""
        return bool(self.arrivals_on_nodes or self.mean_active_on_nodes)

    @property
    def is_open(self) -> bool:
        """Whether it had open nearly all the connections it may have.

        Otherwise the size was not its limit.
        """
        # Before a burst few connections are open on average; at its end all of them are.
        most_open = max(self.mean_open, self.metrics.total_connections)
        return most_open >= _OPEN_SHARE * self.usable(self.max_size)
