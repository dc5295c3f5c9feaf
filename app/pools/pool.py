"""A tenant's pool as it is operated on: opened, resized, paused, recycled, drained, kept up.

How it lends is the business of `lending.py`, below it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import asdict, dataclass
from time import monotonic

import structlog

from app.domain.counters import CounterReading
from app.domain.errors import PoolDraining, TenantDeleting, Unavailable
from app.domain.pool import PoolSize, PoolState
from app.pools.connection import PooledConnection
from app.pools.leak_detection import LeakSuspect
from app.pools.lending import LendingPool
from app.pools.tenant_state import TenantState

_SETTLE_DEADLINE = 5.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainResult:
    """What closing a pool did: connections closed, and those cut with a lease on them."""

    closed: int
    cut: int


class Pool(LendingPool):
    """A pool of one tenant, or of all shared tenants of a server.

    Attributes:
        idle_seconds: seconds without use after which a connection is closed if that is less than
            `config.idle_timeout`, which still decides about the pool; None: that alone.
    """

    idle_seconds: float | None = None

    def prefetch_for_next(self, connection: PooledConnection) -> str:
        """What *connection*, about to come back, may begin its next lease with; empty if nothing.

        A guess, which binds nobody: who is next is decided when it is back.
        """
        if (
            not self._waiters.count
            or self.state is not PoolState.READY
            or self.server.budget.is_contended
            or not self._roster.is_current(connection, monotonic())
        ):
            return ""
        if connection.account is not None:
            connection.foreseen = self._waiters.foresee(connection.account)
        return connection.foreseen.opening if connection.foreseen else ""

    def open(self) -> None:
        """Begin to work, and to open the first connections."""
        self.server.attach(self)
        self._opened_at = monotonic()
        self.recorder.pool_opened(self._opened_at)
        self.state = PoolState.WARMING_UP if self.size.warmup_size else PoolState.READY
        self.dispatch()

    def active_connection(self, pid: int) -> PooledConnection | None:
        """The lent connection whose back-end has this process id."""
        return next((each for each in self._roster.leased if each.pid == pid), None)

    async def wait_until_warm(self, deadline: float) -> bool:
        """Wait up to *deadline* seconds for the first connections; whether they are there."""
        await self._until(lambda: self.state is not PoolState.WARMING_UP, deadline)
        return self._roster.live >= self.size.warmup_size

    def resize(self, size: PoolSize) -> None:
        """Change its size at once; surplus connections close when nobody uses them."""
        self.size = size
        self._roster.shrink_to(size.max_size)
        self.dispatch()

    def pause(self) -> None:
        """Lend nothing: callers wait, idle connections close, lent ones when they come back."""
        if not self.is_closing:
            self.state = PoolState.PAUSED
            self._roster.shrink_to(0)

    def resume(self) -> None:
        """Lend again."""
        if self.state is PoolState.PAUSED:
            self.state = PoolState.READY
            self.dispatch()

    def recycle(self) -> int:
        """Replace every connection, lent ones when they come back; how many that will be."""
        count = self._roster.live
        self._roster.epoch += 1
        self._roster.shrink_to(0)
        self.dispatch()
        return count

    async def drain(self, deadline: float) -> DrainResult:
        """Take no new lease, let those that exist end until *deadline* seconds, cut the rest.

        Safe to call again and while another call is waiting. The pool is closed afterwards.
        """
        closed_before = self.recorder.connections_closed
        if not self.is_closing:
            self.state = PoolState.DRAINING
        self._fail_waiters(PoolDraining(f"The pool {self.pool_id} is being drained."))
        self._roster.shrink_to(0)
        await self._until(lambda: not self._roster.leased, deadline)
        cut = list(self._roster.leased)
        for connection in cut:
            self._take_back(connection, monotonic())
            self._roster.begin_close(connection, cut=True)
        self.state = PoolState.CLOSED
        self._backoff.stop()
        self.dispatch()
        await self._until(lambda: not self._roster.checking, _SETTLE_DEADLINE)
        await self._roster.settle(_SETTLE_DEADLINE)
        self.statement_deadlines.stop()
        self.recorder.pool_closed(self._opened_at)
        self.server.detach(self)
        return DrainResult(closed=self.recorder.connections_closed - closed_before, cut=len(cut))

    def fail_waiters_of(self, account: TenantState) -> None:
        """Fail those who wait on behalf of a tenant that is being deleted."""
        now = monotonic()
        for waiter in self._waiters.remove_tenant(account):
            self._fail(waiter, TenantDeleting(), now)
        self.dispatch()

    async def _until(self, holds: Callable[[], bool], deadline: float) -> None:
        try:
            async with asyncio.timeout(deadline):
                while not holds():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return

    @property
    def is_in_use(self) -> bool:
        """Whether a connection not known to be gone is lent, or being checked."""
        in_use = self._roster.leased | self._roster.checking
        return any(connection.is_connected() for connection in in_use)

    @property
    def has_idle(self) -> bool:
        """Whether it has an idle connection to test."""
        return bool(self._roster.idle)

    async def ping(self) -> bool:
        """Test the idle connection used last; whether there is one, and it answers."""
        try:
            return await self._roster.ping()
        finally:
            self.dispatch()

    def server_lost(self, error: Unavailable) -> None:
        """The server is gone: nobody is left waiting for it."""
        self._fail_waiters(error)
        self.dispatch()

    def server_back(self) -> None:
        """The server's trouble is over: no need to wait for the next attempt."""
        self._backoff.resume()

    def close_expired(self, now: float) -> int:
        """Close idle connections too old or unused for too long at *now*; how many that were."""
        timeout = self.config.idle_timeout
        if self.idle_seconds is not None:
            timeout = min(timeout, self.idle_seconds)
        unused_since = now - timeout
        closed = self._roster.close_expired(now, unused_since=unused_since, keep=self.size.min_size)
        self.dispatch()
        return closed

    def has_untested(self, *, not_since: float) -> bool:
        """Whether an idle connection was not tested since the monotonic time *not_since*."""
        return any(connection.checked_at <= not_since for connection in self._roster.idle)

    async def check(self, *, not_since: float) -> tuple[int, int]:
        """Test idle connections not tested since the monotonic time *not_since*.

        Returns how many were tested, and how many of them failed and were closed.
        """
        try:
            return await self._roster.check(not_since=not_since)
        finally:
            self._roster.shrink_to(self.size.max_size if self._works else 0)
            self.dispatch()

    def reading(self, now: float) -> CounterReading:
        """Its counters at *now*, monotonic seconds; costs its leases nothing."""
        roster = self._roster
        waits = [now - waiter.since for waiter in self._waiters if not waiter.is_counted]
        return self.recorder.reading(
            now,
            waiting=len(waits),
            waiting_seconds=sum(waits),
            busy_seconds=sum([now - connection.leased_at for connection in roster.leased]),
            open_seconds=sum(
                now - connection.opened_at
                for place in (roster.idle, roster.leased, roster.checking)
                for connection in place
            ),
        )

    def count_leak_suspects(self, now: float) -> int:
        """How many leases are held beyond the threshold at *now*."""
        limit = now - self.config.leak_threshold
        return sum([connection.leased_at < limit for connection in self._roster.leased])

    def leak_suspects(self, now: float) -> list[LeakSuspect]:
        """Leases held beyond the threshold at *now*, oldest first; each is logged once."""
        limit = now - self.config.leak_threshold
        held = [connection for connection in self._roster.leased if connection.leased_at < limit]
        held.sort(key=lambda connection: connection.leased_at)
        for connection in held:
            if not connection.suspected:
                connection.suspected = True
                suspect = connection.leak_suspect(now)
                _log.warning("suspected leak", pool=self.pool_id, **asdict(suspect))
        return [connection.leak_suspect(now) for connection in held]
