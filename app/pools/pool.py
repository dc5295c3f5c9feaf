"""One pool: connections of one login, lent to callers in turn.

A caller that finds an idle connection and nobody waiting takes it right here. Every other change
ends in `dispatch`, the policy. Openings and closings run in tasks of `Connections`: they outlive
the caller that caused them and serve the next one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import asdict, dataclass
from time import monotonic
from typing import Protocol

import structlog

from app.domain.counters import CounterReading
from app.domain.errors import (
    PoolDraining,
    PoolPaused,
    PoolSaturated,
    PoolTimeout,
    ServerUnavailable,
    TenantDeleting,
    Unavailable,
)
from app.domain.pool import PoolConfig, PoolMetrics, PoolSize, PoolState
from app.pools.connect_backoff import ConnectBackoff
from app.pools.connection import PooledConnection
from app.pools.connections import Connections
from app.pools.connector import Connector
from app.pools.leak_detection import Borrower, LeakSuspect
from app.pools.recorder import Recorder
from app.pools.statement_deadlines import StatementDeadlines
from app.pools.tenant_state import TenantState
from app.pools.waiters import Waiter, WaitQueue

_log = structlog.get_logger(__name__)

# Looked up once: members of an enumeration are slow to find, and these are needed at every lease.
_READY, _WARMING_UP = PoolState.READY, PoolState.WARMING_UP
_NOTABLE_LAG = 0.1
_SETTLE_DEADLINE = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainResult:
    """Connections that a drain closed, and those of them cut with a lease on them."""

    closed: int
    cut: int


class PoolOwner(Protocol):
    """Where the pool is kept; it is not evicted while pinned."""

    def pin(self, pool: Pool) -> None:
        """The first lease, waiter or login has come."""

    def unpin(self, pool: Pool) -> None:
        """The last of them has gone."""


class Pool:
    """A pool of one tenant, or of all shared tenants of a server.

    Attributes:
        pool_id: a tenant's id, or `shared@server`.
        size: how many connections it keeps, may have and opens at once.
        config: its limits in time.
        server: where its connections go, and whose budget they come from.
        recorder: where everything is counted.
        idle_seconds: age from which an idle connection beyond `warm_size` is closed, in seconds;
            None: none is before `config.idle_timeout`, which also decides about the pool.
        warm_size: connections worth keeping although unused.
        last_answer_at: when a lease last came back clean, in monotonic seconds.
    """

    def __init__(
        self,
        pool_id: str,
        size: PoolSize,
        config: PoolConfig,
        *,
        connector: Connector,
        recorder: Recorder,
        owner: PoolOwner,
    ) -> None:
        """Make a pool with no connection; `open` lets it work."""
        self.pool_id = pool_id
        self.size = size
        self.config = config
        self.server = connector.server
        self.recorder = recorder
        self.state = PoolState.INITIALIZING
        self.idle_seconds: float | None = None
        self.warm_size = 0
        self.last_answer_at = 0.0
        self.connections = Connections(
            self, connector, name=pool_id, max_lifetime=config.max_lifetime, recorder=recorder
        )
        self.waiters = WaitQueue(on_overdue=self._time_out)
        self.statement_deadlines = StatementDeadlines()
        self._owner = owner
        self._is_pinned = False
        self._backoff = ConnectBackoff(self.dispatch)
        self._changed = asyncio.Event()
        self._opened_at = 0.0

    def __repr__(self) -> str:
        """The whole state in one line, for logs and for tests that read like a story."""
        own = self.connections
        return (
            f"<Pool {self.pool_id} {self.state}: {len(own.leased)} active, {len(own.idle)} idle, "
            f"{own.connecting} connecting, {own.closing} closing of {self.size.max_size}; "
            f"{self.waiters.count} waiting>"
        )

    @property
    def metrics(self) -> PoolMetrics:
        """Its connections and waiters at this moment."""
        own = self.connections
        return PoolMetrics(
            total_connections=own.live,
            idle_connections=own.live - len(own.leased),
            active_connections=len(own.leased),
            waiting_requests=self.waiters.count,
        )

    @property
    def is_busy(self) -> bool:
        """Whether a caller holds or awaits a connection, or its first login is under way."""
        own = self.connections
        return bool(own.leased or self.waiters.count or (own.connecting and not own.live))

    @property
    def is_closing(self) -> bool:
        """Whether it takes no new lease any more."""
        return self.state in (PoolState.DRAINING, PoolState.CLOSED)

    @property
    def is_in_use(self) -> bool:
        """Whether a connection not known to be gone is leased, or being checked."""
        in_use = self.connections.leased | self.connections.checking
        return any(connection.is_connected() for connection in in_use)

    @property
    def has_idle(self) -> bool:
        """Whether it has an idle connection to test."""
        return bool(self.connections.idle)

    @property
    def can_open(self) -> bool:
        """Whether connections may be opened: the server is available, and no backoff runs."""
        return self.server.is_available and not self._backoff.is_pausing

    @property
    def is_failing(self) -> bool:
        """Whether the latest attempt to open a connection failed."""
        return self._backoff.error is not None

    # -- leases ------------------------------------------------------------------------------

    async def acquire(
        self,
        tenant: TenantState,
        timeout: float,
        begin_statements: str = "",
        borrower: Borrower | None = None,
    ) -> PooledConnection:
        """Lend a connection to *tenant* within *timeout* seconds; *borrower* is who waits for it.

        *begin_statements* is what its lease will run first; the connection may have done so
        already, see `PooledConnection.prefetched`.

        Raises:
            PoolTimeout: none became free in time.
            PoolSaturated: too many wait already.
            PoolDraining: the pool is being drained or closed.
            PoolPaused: it was not resumed in time, or refuses callers while it is paused.
            ServerUnavailable, ServerFull, TenantLoginFailed: none can be opened.
        """
        now = monotonic()
        own = self.connections
        if own.idle and (self.state is _READY or self.state is _WARMING_UP) and tenant.can_lease:
            connection = own.take_idle(now)
            if connection is not None:
                own.lease(connection, tenant, borrower, 0.0, now)
                if not self._is_pinned:
                    self._is_pinned = True
                    self._owner.pin(self)
                return connection
        waiter = Waiter(
            tenant,
            asyncio.get_running_loop().create_future(),
            since=now,
            deadline=now + timeout,
            begin_statements=begin_statements,
            borrower=borrower,
        )
        return await self._wait(waiter)

    def release(self, connection: PooledConnection, *, reusable: bool) -> None:
        """Take back a leased connection; one that is not *reusable* closes in the background."""
        now = monotonic()
        own = self.connections
        expected = None
        if connection.leak_reported or self.waiters.expected:
            expected = self._note_return(connection, now)
        if not own.end_lease(connection, now):
            # A drain has cut it before.
            return
        if reusable:
            self.last_answer_at = now
        usable = reusable and self._is_usable(connection, now)
        budget = self.server.budget
        if not usable or self.state is not _READY:
            self._put_back(connection, now, usable=usable)
        elif budget.unsatisfied and not self.server.dispatcher.keeps(self, connection):
            self._give_away(connection)
        elif self.waiters.count and (waiter := self.waiters.next(expected)) is not None:
            self._serve(waiter, connection, now)
            if budget.unsatisfied:
                self.server.dispatcher.served(self)
        else:
            # Nothing becomes possible by this for the pool itself.
            own.put_idle(connection, now)
            budget.note_use(self, now)
            if budget.unsatisfied:
                self.server.dispatcher.rested(self)
            if not own.leased and not self.waiters.count:
                self._is_pinned = False
                self._owner.unpin(self)

    def prefetch_for_next(self, connection: PooledConnection) -> str:
        """What *connection*, about to come back, may begin its next lease with; empty if nothing.

        A guess: who is next is decided when it is back.
        """
        tenant = connection.tenant_state
        if (
            not self.waiters.count
            or tenant is None
            or self.state is not _READY
            or self.server.budget.unsatisfied
            or not self.connections.is_current(connection, monotonic())
        ):
            return ""
        waiter = self.waiters.expect(connection, tenant)
        return waiter.begin_statements if waiter else ""

    def active_connection(self, pid: int) -> PooledConnection | None:
        """The leased connection whose backend has this process id."""
        return next((each for each in self.connections.leased if each.pid == pid), None)

    def _end_lease(self, connection: PooledConnection, now: float) -> bool:
        """End the lease on *connection*; False if a drain has cut it before."""
        self._note_return(connection, now)
        return self.connections.end_lease(connection, now)

    def _note_return(self, connection: PooledConnection, now: float) -> TenantState | None:
        """Note that *connection* comes back; whose turn was expected to be next, if known."""
        if connection.leak_reported:
            held = round(now - connection.leased_at, 1)
            _log.info("suspected leak returned", pool=self.pool_id, held_seconds=held)
        return self.waiters.unexpect(connection)

    def _put_back(self, connection: PooledConnection, now: float, *, usable: bool) -> None:
        if usable and not self.server.dispatcher.keeps(self, connection):
            self._give_away(connection)
            return
        if usable:
            self._put_idle(connection, now)
        else:
            self.connections.begin_close(connection)
        self.dispatch()

    def _give_away(self, connection: PooledConnection) -> None:
        """Close a connection that is in no place, for another pool."""
        self.connections.begin_close(connection, self.server.budget.connect_slots.take())
        self.dispatch()

    def _put_idle(self, connection: PooledConnection, now: float) -> None:
        self.connections.put_idle(connection, now)
        self.server.budget.note_use(self, now)

    def _is_usable(self, connection: PooledConnection, now: float) -> bool:
        """Whether *connection*, which is in no place now, may stay."""
        own = self.connections
        return (
            (self.state is _READY or self.state is _WARMING_UP)
            and own.is_current(connection, now)
            and len(own.idle) + len(own.leased) + len(own.checking) + own.connecting
            < self.size.max_size
        )

    # -- waiters -----------------------------------------------------------------------------

    async def _wait(self, waiter: Waiter) -> PooledConnection:
        self._refuse(waiter.tenant_state)
        self.waiters.add(waiter)
        if not self._is_pinned:
            self._is_pinned = True
            self._owner.pin(self)
        if self.server.dispatcher.awaits(self, waiter):
            self.dispatch()
        try:
            return await waiter.future
        except BaseException:
            self._abandon(waiter)
            raise

    def _refuse(self, tenant: TenantState) -> None:
        """Refuse a caller that need not wait at all."""
        if self.is_closing:
            raise PoolDraining(f"The pool {self.pool_id} is {self.state}.")
        if not self.server.is_available:
            raise ServerUnavailable(self.server.unavailable_detail)
        refusal: Unavailable | None = None
        if self.state is PoolState.PAUSED and self.config.refuses_when_paused:
            refusal = self._paused()
        elif self.waiters.count >= self.config.max_waiting:
            refusal = PoolSaturated(f"{self.waiters.count} callers wait for pool {self.pool_id}.")
        if refusal is not None:
            for recorder in self._recorders(tenant):
                recorder.record_rejected()
            raise refusal

    def _paused(self) -> PoolPaused:
        return PoolPaused(f"Pool {self.pool_id} is paused; it serves again when it is resumed.")

    def _abandon(self, waiter: Waiter) -> None:
        """The caller is gone; take back what was handed to it in the same moment."""
        now = monotonic()
        connection = waiter.handed
        if connection is None:
            if waiter.future.cancelled():
                self._record_abandoned(waiter, now)
            self.waiters.remove(waiter)
            self.dispatch()
        elif self._end_lease(connection, now):
            self._put_back(connection, now, usable=self._is_usable(connection, now))

    def _time_out(self, waiter: Waiter) -> None:
        for recorder in self._recorders(waiter.tenant_state):
            recorder.record_timeout()
        lag = self.server.lag.worst_since(waiter.since)
        ours = f" (our event loop was late by {lag:.1f} s)" if lag > _NOTABLE_LAG else ""
        waited = f"{waiter.deadline - waiter.since:.3g} s{ours}"
        failed = self._backoff.error
        why = f" Opening one failed: {failed.detail}" if failed else ""
        if not why and not self.connections.live and self.connections.connecting:
            why = " Its login has not been answered yet."
        if not why and self.server.is_degraded:
            why = f" No other can be opened: {self.server.last_error}"
        error: Unavailable = PoolTimeout(
            f"No connection of pool {self.pool_id} became free in {waited}.{why}"
        )
        if self.state is PoolState.PAUSED:
            error = self._paused()
        self._fail(waiter, error, monotonic())

    def _fail(self, waiter: Waiter, error: Exception, now: float) -> None:
        if not waiter.future.done():
            self._record_abandoned(waiter, now)
            self.waiters.remove(waiter)
            waiter.fail(error)

    def _fail_all(self, error: Unavailable) -> None:
        now = monotonic()
        for waiter in self.waiters.clear():
            self._fail(waiter, type(error)(error.detail), now)

    def fail_waiters_of(self, tenant: TenantState) -> None:
        """Fail those who wait on behalf of a tenant that is being deleted."""
        now = monotonic()
        for waiter in self.waiters.remove_tenant(tenant):
            self._fail(waiter, TenantDeleting(), now)
        self.dispatch()

    def _record_abandoned(self, waiter: Waiter, now: float) -> None:
        for recorder in self._recorders(waiter.tenant_state):
            recorder.record_abandoned(now - waiter.since)

    def _recorders(self, tenant: TenantState) -> tuple[Recorder, ...]:
        if tenant.recorder is self.recorder:
            return (self.recorder,)
        return (self.recorder, tenant.recorder)

    # -- policy ------------------------------------------------------------------------------

    def dispatch(self) -> None:
        """Do what the policy says, after any change."""
        self.server.dispatcher.run(self)
        if self.state is _WARMING_UP and self._is_warm():
            self.state = _READY
        if self._is_pinned is not self.is_busy:
            self._is_pinned = not self._is_pinned
            (self._owner.pin if self._is_pinned else self._owner.unpin)(self)
        self._changed.set()

    def _is_warm(self) -> bool:
        """Whether the first connections are there, or the budget has no place for more of them."""
        own, wanted = self.connections, self.size.warmup_size
        is_scarce = self.server.budget.is_exhausted and own.live + own.connecting < wanted
        return own.live >= wanted or is_scarce

    def serve(self, waiter: Waiter, connection: PooledConnection) -> None:
        """Lend the idle *connection* to *waiter*; for the dispatcher."""
        self.connections.remove_idle(connection)
        self._serve(waiter, connection, monotonic())

    def _serve(self, waiter: Waiter, connection: PooledConnection, now: float) -> None:
        self.waiters.remove(waiter)
        waited = now - waiter.since
        self.connections.lease(connection, waiter.tenant_state, waiter.borrower, waited, now)
        waiter.future.set_result(connection)

    # -- events of its connections and its server ----------------------------------------------

    def admit(self, connection: PooledConnection) -> None:
        """Take in a connection that is in no place, and works: just opened, or rolled back."""
        now = monotonic()
        self._backoff.succeeded()
        if self._is_usable(connection, now):
            self._put_idle(connection, now)
        else:
            self.connections.begin_close(connection)
        self.dispatch()

    def open_failed(self, error: Unavailable) -> None:
        """One could not be opened: if nothing else can serve them, fail those who wait."""
        lends = self.state is _READY or self.state is _WARMING_UP
        self._backoff.failed(error, pause=lends and self.server.is_available)
        if self.state is _WARMING_UP:
            self.state = _READY
        if not (self.connections.live or self.connections.connecting):
            self._fail_all(error)
        self.dispatch()

    def server_lost(self, error: Unavailable) -> None:
        """The server is gone: fail those who wait for it."""
        self._fail_all(error)
        self.dispatch()

    def server_back(self) -> None:
        """The server's trouble is over: no need to wait for the next attempt."""
        self._backoff.resume()

    # -- operations ----------------------------------------------------------------------------

    def open(self) -> None:
        """Begin to work, and to open the first connections."""
        self.server.attach(self)
        self._opened_at = monotonic()
        self.recorder.pool_opened(self._opened_at)
        self.state = _WARMING_UP if self.size.warmup_size else _READY
        self.dispatch()

    async def wait_until_warm(self, deadline: float) -> bool:
        """Wait up to *deadline* seconds for the first connections; whether they are there."""
        await self._until(lambda: self.state is not _WARMING_UP, deadline)
        return self.connections.live >= self.size.warmup_size

    def resize(self, size: PoolSize) -> None:
        """Change its size at once; surplus connections close once unused."""
        self.size = size
        self.dispatch()

    def pause(self) -> None:
        """Lend nothing: idle connections close now, leased ones when they come back.

        Callers wait or are refused, as `config.refuses_when_paused` says.
        """
        if not self.is_closing:
            self.state = PoolState.PAUSED
            if self.config.refuses_when_paused:
                self._fail_all(self._paused())
            self.dispatch()

    def resume(self) -> None:
        """Lend again."""
        if self.state is PoolState.PAUSED:
            self.state = _READY
            self.dispatch()

    def recycle(self) -> int:
        """Replace every connection, leased ones when they come back; how many that will be."""
        count = self.connections.recycle()
        self.dispatch()
        return count

    async def drain(self, deadline: float) -> DrainResult:
        """Take no new lease, let those that exist end until *deadline* seconds, cut the rest.

        Safe to call again and while another call is waiting. The pool is closed afterwards.
        """
        closed_before = self.recorder.connections_closed
        own = self.connections
        if not self.is_closing:
            self.state = PoolState.DRAINING
        self._fail_all(PoolDraining(f"The pool {self.pool_id} is being drained."))
        self.dispatch()
        await self._until(lambda: not own.leased, deadline)
        cut = list(own.leased)
        for connection in cut:
            self._end_lease(connection, monotonic())
            own.begin_close(connection, cut=True)
        self.state = PoolState.CLOSED
        self._backoff.stop()
        self.dispatch()
        await self._until(lambda: not own.checking, _SETTLE_DEADLINE)
        await own.settle(_SETTLE_DEADLINE)
        self.statement_deadlines.stop()
        self.recorder.pool_closed(self._opened_at)
        self.server.detach(self)
        return DrainResult(closed=self.recorder.connections_closed - closed_before, cut=len(cut))

    async def _until(self, holds: Callable[[], bool], deadline: float) -> None:
        try:
            async with asyncio.timeout(deadline):
                while not holds():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return

    # -- maintenance ---------------------------------------------------------------------------

    def advise_idle(self, seconds: float | None, warm_size: int) -> None:
        """Set `idle_seconds` and `warm_size`."""
        self.idle_seconds, self.warm_size = seconds, warm_size

    def close_expired(self, now: float) -> int:
        """Close idle connections too old or unused for too long at *now*; how many that were."""
        least = self.size.min_size
        closed = self.connections.close_expired(
            now, unused_since=now - self.config.idle_timeout, keep=least
        )
        if self.idle_seconds is not None:
            closed += self.connections.close_surplus(
                opened_before=now - self.idle_seconds, keep=max(least, self.warm_size)
            )
        if closed:
            self.dispatch()
        return closed

    def has_untested(self, *, not_since: float) -> bool:
        """Whether an idle connection was not tested since the monotonic time *not_since*."""
        return any(connection.checked_at <= not_since for connection in self.connections.idle)

    async def check(self, *, not_since: float) -> tuple[int, int]:
        """Test idle connections not tested since the monotonic time *not_since*.

        Returns how many were tested, and how many of them failed and were closed.
        """
        try:
            return await self.connections.check(not_since=not_since)
        finally:
            self.dispatch()

    async def ping(self) -> bool:
        """Test the idle connection used last; whether there is one, and it answers."""
        try:
            return await self.connections.ping()
        finally:
            self.dispatch()

    def reading(self, now: float) -> CounterReading:
        """Its counters at *now*, monotonic seconds; costs its leases nothing."""
        own = self.connections
        return self.recorder.reading(
            now,
            waiting=self.waiters.count,
            waiting_seconds=self.waiters.waiting_seconds(now),
            busy_seconds=own.leased_seconds(now),
            open_seconds=sum(
                now - connection.opened_at
                for place in (own.idle, own.leased, own.checking)
                for connection in place
            ),
        )

    def count_leak_suspects(self, now: float) -> int:
        """How many leases are held beyond the threshold at *now*."""
        limit = now - self.config.leak_threshold
        return sum([connection.leased_at < limit for connection in self.connections.leased])

    def leak_suspects(self, now: float) -> list[LeakSuspect]:
        """Leases held beyond the threshold at *now*, oldest first; each is logged once."""
        limit = now - self.config.leak_threshold
        held = [each for each in self.connections.leased if each.leased_at < limit]
        held.sort(key=lambda connection: connection.leased_at)
        for connection in held:
            if not connection.leak_reported:
                connection.mark_leak_reported()
                suspect = connection.leak_suspect(now)
                _log.warning("suspected leak", pool=self.pool_id, **asdict(suspect))
        return [connection.leak_suspect(now) for connection in held]
