"""A pool as scheduling sees it: facts that the policy reads, and what its executor does."""

from collections.abc import Sequence
from typing import Protocol

from app.domain.pool import PoolSize, PoolState
from app.pools.connection import PooledConnection
from app.pools.scheduling.connect_limiter import ConnectSlot
from app.pools.scheduling.waiter import Waiter
from app.pools.smoothed import Smoothed


class ScheduledConnections(Protocol):
    """What scheduling needs of a pool's connections; see `Connections`."""

    returns: Smoothed
    """Seconds until a caller comes after a connection came back and nobody waited."""

    idle_found_at: float
    """When a caller last found an idle connection, in monotonic seconds."""

    @property
    def hold(self) -> float:
        """Seconds that a lease takes, recently; 0 when unknown."""

    @property
    def idle(self) -> Sequence[PooledConnection]:
        """Idle connections, the longest unused first."""

    @property
    def connecting(self) -> int:
        """How many are being opened."""

    @property
    def in_use(self) -> int:
        """How many are leased."""

    @property
    def live(self) -> int:
        """How many work: idle, leased or being checked."""

    @property
    def open(self) -> int:
        """How many the server may see: working, connecting and closing ones."""

    def is_current(self, connection: PooledConnection, now: float) -> bool:
        """Whether *connection* is neither broken, nor stale, nor too old."""

    def begin_open(self, slot: ConnectSlot) -> None:
        """Start opening a connection; *slot* is released when that has ended."""

    def evict_idle(self, connection: PooledConnection, slot: ConnectSlot | None = None) -> None:
        """Start closing the idle *connection*; *slot* is released when that has ended."""


class ScheduledWaiters(Protocol):
    """What scheduling needs of a pool's waiters; see `WaitQueue`."""

    @property
    def servable(self) -> int:
        """How many could be served at once if there were enough connections."""

    def next(self) -> Waiter | None:
        """The waiter to serve now."""


class ScheduledPool(Protocol):
    """What scheduling needs of a pool; see `Pool`."""

    size: PoolSize
    state: PoolState

    @property
    def most(self) -> int:
        """How many connections it may have now."""

    @property
    def connections(self) -> ScheduledConnections:
        """Its connections."""

    @property
    def waiters(self) -> ScheduledWaiters:
        """Its waiters."""

    @property
    def can_open(self) -> bool:
        """Whether it may open connections: the server is available, and no backoff runs."""

    @property
    def is_failing(self) -> bool:
        """Whether its latest attempt to open a connection failed."""

    def serve(self, waiter: Waiter, connection: PooledConnection) -> None:
        """Lend the idle *connection* to *waiter*."""
