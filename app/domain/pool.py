"""A pool's configuration, state, and statistics.

Values only, in psycopg_pool's vocabulary (min_size, max_size, waiting). Nothing here opens,
closes or measures anything.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Self

from app.domain.counters import Counters
from app.domain.errors import InvalidInput
from app.domain.tenant import PoolStrategy

MAX_POOL_SIZE = 10_000


class PoolState(StrEnum):
    """A pool's state. `unavailable`: it is open, but its server is away."""

    INITIALIZING = "initializing"
    WARMING_UP = "warming_up"
    READY = "ready"
    UNAVAILABLE = "unavailable"
    PAUSED = "paused"
    DRAINING = "draining"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSize:
    """How many connections a pool keeps, may have, and opens when it starts.

    Attributes:
        min_size: kept open whatever happens, 0..max_size.
        max_size: most connections, 1..10000.
        warmup_size: opened when the pool opens, 0..max_size.

    Raises:
        InvalidInput: when the three do not fit together.
    """

    min_size: int = 0
    max_size: int = 5
    warmup_size: int = 1

    def __post_init__(self) -> None:
        """Refuse sizes that contradict each other."""
        if not 1 <= self.max_size <= MAX_POOL_SIZE:
            raise InvalidInput(f"max_size must be between 1 and {MAX_POOL_SIZE}.")
        if not 0 <= self.min_size <= self.max_size:
            raise InvalidInput("min_size must be between 0 and max_size.")
        if not 0 <= self.warmup_size <= self.max_size:
            raise InvalidInput("warmup_size must be between 0 and max_size.")


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolConfig:
    """How the pools of one strategy behave.

    Attributes:
        strategy: the strategy of the tenants that these pools serve.
        pool_size: most connections of one pool, unless its desired state says otherwise.
        max_pools: most pools of this strategy open at a time.
        warmup_size: connections opened when a pool opens.
        idle_timeout: seconds without use after which a connection, then the pool, is closed.
        max_lifetime: seconds after which a connection is replaced; shortened by up to 10 % at
            random, so that connections opened together do not expire together.
        health_check: whether idle connections are tested.
        health_check_interval: seconds between two tests of an idle connection.
        acquire_timeout: seconds a caller waits for a connection; never infinite.
        max_waiting: most callers waiting at a time; the next one is refused at once.
        leak_threshold: seconds after which a lease is reported as a possible leak.
        refuses_when_paused: whether callers of a paused pool are refused at once, instead of
            waiting.
    """

    strategy: PoolStrategy = PoolStrategy.SHARED
    pool_size: int = 20
    max_pools: int = 1
    warmup_size: int = 1
    idle_timeout: float = 300.0
    max_lifetime: float = 1800.0
    health_check: bool = True
    health_check_interval: float = 30.0
    acquire_timeout: float = 5.0
    max_waiting: int = 1000
    leak_threshold: float = 60.0
    refuses_when_paused: bool = False

    @classmethod
    def shared(cls, max_connections: int = 20, **limits: Any) -> Self:
        """One pool of *max_connections* for all shared tenants of a server."""
        return cls(strategy=PoolStrategy.SHARED, pool_size=max_connections, **limits)

    @classmethod
    def per_tenant(cls, max_pools: int = 100, pool_size: int = 5, **limits: Any) -> Self:
        """Up to *max_pools* pools of *pool_size*, one for each tenant with its own schema."""
        return cls(
            strategy=PoolStrategy.PER_TENANT, max_pools=max_pools, pool_size=pool_size, **limits
        )

    @classmethod
    def per_database(cls, max_databases: int = 50, pool_size: int = 5, **limits: Any) -> Self:
        """Up to *max_databases* pools of *pool_size*, one for each tenant with its own database."""
        return cls(
            strategy=PoolStrategy.PER_DATABASE,
            max_pools=max_databases,
            pool_size=pool_size,
            **limits,
        )

    @property
    def max_pools_setting(self) -> str:
        """The name of the setting for `max_pools`."""
        is_databases = self.strategy is PoolStrategy.PER_DATABASE
        name = "MAX_DATABASES" if is_databases else "MAX_POOLS"
        return f"POOLKEEPER_{self.strategy.upper()}_{name}"

    @property
    def default_size(self) -> PoolSize:
        """The size of a pool without desired state."""
        return PoolSize(max_size=self.pool_size, warmup_size=min(self.warmup_size, self.pool_size))


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolMetrics:
    """A pool at one moment: how many connections it has and how many callers wait.

    `total_connections` also counts connections that are being opened or closed.
    """

    total_connections: int
    idle_connections: int
    active_connections: int
    waiting_requests: int

    def with_waiting(self, more: int) -> Self:
        """The same with *more* waiting callers."""
        return replace(self, waiting_requests=self.waiting_requests + more) if more else self

    @classmethod
    def total(cls, pools: Iterable[Self]) -> Self:
        """The sum over several pools."""
        known = list(pools)
        return cls(
            total_connections=sum(each.total_connections for each in known),
            idle_connections=sum(each.idle_connections for each in known),
            active_connections=sum(each.active_connections for each in known),
            waiting_requests=sum(each.waiting_requests for each in known),
        )


NO_CONNECTIONS = PoolMetrics(
    total_connections=0, idle_connections=0, active_connections=0, waiting_requests=0
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Percentiles:
    """p50, p95 and p99 in milliseconds, None when nothing was measured in the window."""

    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None

    @classmethod
    def worst(cls, pools: Iterable[Self]) -> Self:
        known = list(pools)
        return cls(
            p50_ms=max((each.p50_ms for each in known if each.p50_ms is not None), default=None),
            p95_ms=max((each.p95_ms for each in known if each.p95_ms is not None), default=None),
            p99_ms=max((each.p99_ms for each in known if each.p99_ms is not None), default=None),
        )


UNMEASURED = Percentiles()


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainResult:
    """The number of connections that a drain closed, and how many of these had a lease."""

    closed: int
    cut: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStats:
    """Statistics of a tenant or a pool.

    Attributes:
        counters: counts since the service started; they survive the pool's eviction.
        metrics: current gauges.
        wait: of all waits, whether or not they ended with a connection.
        window_seconds: the time that `max_wait_time_ms` and the percentiles cover.
    """

    counters: Counters
    metrics: PoolMetrics
    max_wait_time_ms: float = 0.0
    created_at: datetime | None = None
    last_activity: datetime | None = None
    window_seconds: float = 0.0
    wait: Percentiles = UNMEASURED
    hold: Percentiles = UNMEASURED
    connect: Percentiles = UNMEASURED

    @classmethod
    def total(cls, pools: Collection[Self], counters: Counters) -> Self:
        """All *pools* as one, with *counters* of its own: the percentiles are the worst pool's."""
        return cls(
            counters=counters,
            metrics=PoolMetrics.total(each.metrics for each in pools),
            max_wait_time_ms=max((each.max_wait_time_ms for each in pools), default=0.0),
            window_seconds=max((each.window_seconds for each in pools), default=0.0),
            wait=Percentiles.worst(each.wait for each in pools),
            hold=Percentiles.worst(each.hold for each in pools),
            connect=Percentiles.worst(each.connect for each in pools),
        )
