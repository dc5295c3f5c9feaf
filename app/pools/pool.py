"""A pool: connections of one login, lent to callers in turn.

A caller that finds an idle connection and nobody waiting takes it right here. Every other change
ends in `dispatch`, where the scheduling policy decides. Openings and closings run in tasks of
`Connections`: they outlive the caller that caused them, and serve the next one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Protocol

import structlog

from app.domain.counters import CounterReading
from app.domain.errors import PoolDraining, TenantDeleting, Unavailable
from app.domain.pool import DrainResult, PoolConfig, PoolMetrics, PoolSize, PoolState
from app.pools.acquire_failures import AcquireFailures
from app.pools.borrower import Borrower
from app.pools.connect_backoff import ConnectBackoff
from app.pools.connection import PooledConnection
from app.pools.connections import Connections
from app.pools.connector import Connector
from app.pools.idle_expiry import expired
from app.pools.recorder import Recorder
from app.pools.scheduling.wait_queue import WaitQueue
from app.pools.scheduling.waiter import Waiter
from app.pools.statement_deadlines import StatementDeadlines
from app.pools.tenant_state import TenantState

_log = structlog.get_logger(__name__)

# Looked up once: enum members are slow to find, and every lease needs these.
_READY, _WARMING_UP = PoolState.READY, PoolState.WARMING_UP
_DRAINING, _CLOSED = PoolState.DRAINING, PoolState.CLOSED
_SETTLE_DEADLINE = 5.0


class PoolOwner(Protocol):
    """The object that keeps the pool; it does not evict a pinned pool."""

    def pin(self, pool: Pool) -> None:
        """Pin the pool: its first lease, waiter or login has come."""

    def unpin(self, pool: Pool) -> None:
        """Unpin the pool: its last lease, waiter or login has gone."""


class Pool:
    """A pool of one tenant, or of all shared tenants of a server.

    Attributes:
        pool_id: a tenant's id, or `shared@server`.
        size: how many connections it keeps, may have, and opens when it starts.
        most: the most connections that it may have now; less than `max_size` while nodes have a
            part.
        config: its time limits.
        server: the server of its connections, whose budget they use.
        recorder: counts everything that happens to its leases.
        surplus_age: age in seconds from which an idle connection beyond `warm_size` is closed.
            None: connections close after `config.idle_timeout`, as the pool does.
        warm_size: connections to keep open although idle.
        last_answer_at: when a lease last ended cleanly, in monotonic seconds.
        interrupted_until: when the pool could lend again after a pause or an outage of its server,
            in monotonic seconds; 0 if it always could.
        backoff: pauses after failed attempts to open a connection.
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
        """Create a pool without connections; `open` starts it."""
        self.pool_id = pool_id
        self.size = size
        self.most = size.max_size
        self._share: int | None = None
        self.config = config
        self.server = connector.server
        self.recorder = recorder
        self.state = PoolState.INITIALIZING
        self.surplus_age: float | None = None
        self.warm_size = 0
        self.last_answer_at = 0.0
        self.interrupted_until = 0.0
        self.connections = Connections(
            self, connector, name=pool_id, max_lifetime=config.max_lifetime, recorder=recorder
        )
        self._failures = AcquireFailures(self)
        self.waiters = WaitQueue(on_overdue=self._failures.time_out)
        self.statement_deadlines = StatementDeadlines()
        self._owner = owner
        self._is_pinned = False
        self.backoff = ConnectBackoff(self.dispatch)
        self._changed = asyncio.Event()
        self._opened_at = 0.0

    def __repr__(self) -> str:
        own = self.connections
        return (
            f"<Pool {self.pool_id} {self.state}: {len(own.leased)} active, {len(own.idle)} idle, "
            f"{own.connecting} connecting, {own.closing} closing of {self.most}; "
            f"{self.waiters.count} waiting>"
        )

    @property
    def metrics(self) -> PoolMetrics:
        """Its connections and waiters now."""
        own = self.connections
        return PoolMetrics(
            total_connections=own.live,
            idle_connections=own.live - len(own.leased),
            active_connections=len(own.leased),
            waiting_requests=self.waiters.count,
        )

    def reading(self, now: float) -> CounterReading:
        """Its counters at *now*, monotonic seconds; this costs its leases nothing."""
        return self.recorder.reading(
            now,
            waiting=self.waiters.count,
            waiting_seconds=self.waiters.waiting_seconds(now),
            leased_seconds=self.connections.leased_seconds(now),
            open_seconds=self.connections.open_seconds(now),
        )

    @property
    def demand(self) -> int:
        """The number of connections that its callers could use now, at least its min_size."""
        return max(self.size.min_size, len(self.connections.leased) + self.waiters.count)

    @property
    def kept(self) -> int:
        """The number of connections that it keeps open for nobody: its min_size, if it may."""
        return min(self.size.min_size, self.most) if self.state in (_READY, _WARMING_UP) else 0

    @property
    def is_busy(self) -> bool:
        """Whether a caller holds a connection or waits for one, or its first login is under way."""
        own = self.connections
        return bool(own.leased or self.waiters.count or (own.connecting and not own.live))

    @property
    def is_closing(self) -> bool:
        """Whether it takes no more leases."""
        return self.state is _DRAINING or self.state is _CLOSED

    @property
    def can_open(self) -> bool:
        """Whether it may open connections: the server is available, and no backoff runs."""
        return self.server.is_available and not self.backoff.is_pausing

    @property
    def is_failing(self) -> bool:
        """Whether its latest attempt to open a connection failed."""
        return self.backoff.error is not None

    # -- leases ------------------------------------------------------------------------------

    async def acquire(
        self,
        tenant: TenantState,
        timeout: float,
        borrower: Borrower | None = None,
        slot_seconds: float = 0.0,
    ) -> PooledConnection:
        """Lend a connection to *tenant* within *timeout* seconds; *borrower* waits for it.

        It has already waited *slot_seconds* until the pool could be opened.

        Raises:
            PoolTimeout: no connection became free in time.
            PoolSaturated: too many callers already wait.
            PoolDraining: the pool is being drained or closed.
            PoolPaused: it was not resumed in time, or refuses callers while paused.
            ServerUnavailable, ServerFull, TenantLoginFailed: no connection can be opened.
        """
        now = monotonic()
        own = self.connections
        if own.idle and (self.state is _READY or self.state is _WARMING_UP) and tenant.can_lease:
            connection = own.take_idle(now)
            if connection is not None:
                own.lease(connection, tenant, borrower, slot_seconds, now)
                if slot_seconds:
                    tenant.recorder.record_slot_wait(slot_seconds)
                if not self._is_pinned:
                    self._is_pinned = True
                    self._owner.pin(self)
                return connection
        waiter = Waiter(
            tenant,
            asyncio.get_running_loop().create_future(),
            since=now,
            deadline=now + timeout,
            borrower=borrower,
            slot_seconds=slot_seconds,
        )
        return await self._wait(waiter)

    def release(self, connection: PooledConnection, *, reusable: bool) -> None:
        """Take back a leased connection; if it is not *reusable*, it closes in the background."""
        now = monotonic()
        own = self.connections
        if connection.leak_reported:
            held_seconds = round(now - connection.leased_at, 1)
            _log.info("suspected leak returned", pool=self.pool_id, held_seconds=held_seconds)
        if not own.end_lease(connection, now):
            # A drain has already cut it.
            return
        if reusable:
            self.last_answer_at = now
        usable = reusable and self._is_usable(connection, now)
        budget = self.server.budget
        if not usable or self.state is not _READY:
            self._put_back(connection, now, usable=usable)
        elif (
            budget.unsatisfied or budget.used > budget.limit
        ) and not self.server.policy_executor.keeps(self, connection):
            self._give_away(connection)
        elif self.waiters.count and (waiter := self.waiters.next()) is not None:
            self._serve(waiter, connection, now)
            if budget.unsatisfied:
                self.server.policy_executor.served(self)
        else:
            # The pool itself gains nothing by this.
            own.put_idle(connection)
            budget.spare.add(self, now)
            if budget.unsatisfied:
                self.server.policy_executor.rested(self)
            if not own.leased and not self.waiters.count:
                self._is_pinned = False
                self._owner.unpin(self)

    def _put_back(self, connection: PooledConnection, now: float, *, usable: bool) -> None:
        if usable and not self.server.policy_executor.keeps(self, connection):
            self._give_away(connection)
            return
        self._keep_or_close(connection, now, usable=usable)

    def _give_away(self, connection: PooledConnection) -> None:
        """Close a connection that is in no place, for the benefit of another pool or process."""
        budget = self.server.budget
        slot = None if budget.is_over else budget.connect_slots.take()
        self.connections.begin_close(connection, slot)
        self.dispatch()

    def _keep_or_close(self, connection: PooledConnection, now: float, *, usable: bool) -> None:
        if usable:
            self.connections.put_idle(connection)
            self.server.budget.spare.add(self, now)
        else:
            self.connections.begin_close(connection)
        self.dispatch()

    def _is_usable(self, connection: PooledConnection, now: float) -> bool:
        """Whether *connection*, which is in no place now, may stay."""
        own = self.connections
        return (
            (self.state is _READY or self.state is _WARMING_UP)
            and own.is_current(connection, now)
            and len(own.idle) + len(own.leased) + len(own.checking) + own.connecting < self.most
        )

    # -- waiters -----------------------------------------------------------------------------

    async def _wait(self, waiter: Waiter) -> PooledConnection:
        self._failures.refuse(waiter.tenant_state)
        self.waiters.add(waiter)
        if not self._is_pinned:
            self._is_pinned = True
            self._owner.pin(self)
        if self.server.policy_executor.awaits(self, waiter):
            self.dispatch()
        try:
            return await waiter.future
        except BaseException:
            self._abandon(waiter)
            raise

    def _abandon(self, waiter: Waiter) -> None:
        """Handle a waiter that gave up; take back a connection handed to it in the same moment."""
        now, connection = monotonic(), waiter.handed
        if connection is None:
            if waiter.future.cancelled():
                self._failures.record_abandoned(waiter, now)
            self.waiters.remove(waiter)
            self.dispatch()
        elif self.connections.end_lease(connection, now):
            self._put_back(connection, now, usable=self._is_usable(connection, now))

    def fail_waiters_of(self, tenant: TenantState) -> None:
        """Fail the waiters of a tenant that is being deleted."""
        self._failures.fail(self.waiters.remove_tenant(tenant), TenantDeleting())
        self.dispatch()

    # -- what changes in it, its connections and its server ------------------------------------

    def dispatch(self) -> None:
        """Act on the policy's decisions, after any change."""
        self.server.policy_executor.run(self)
        if self.state is _WARMING_UP and self._is_warm():
            self.state = _READY
        if self._is_pinned is not self.is_busy:
            self._is_pinned = not self._is_pinned
            (self._owner.pin if self._is_pinned else self._owner.unpin)(self)
        self._changed.set()

    def _is_warm(self) -> bool:
        """Whether the first connections are there, or the budget has no place for more."""
        own, wanted = self.connections, min(self.size.warmup_size, self.most)
        is_scarce = self.server.budget.is_exhausted and own.live + own.connecting < wanted
        return own.live >= wanted or is_scarce

    def serve(self, waiter: Waiter, connection: PooledConnection) -> None:
        """Lend the idle *connection* to *waiter*; the executor calls this."""
        self.connections.remove_idle(connection)
        self._serve(waiter, connection, monotonic())

    def _serve(self, waiter: Waiter, connection: PooledConnection, now: float) -> None:
        self.waiters.remove(waiter)
        tenant, slot_seconds = waiter.tenant_state, waiter.slot_seconds
        waited = now - waiter.since + slot_seconds
        self.connections.lease(connection, tenant, waiter.borrower, waited, now)
        if slot_seconds:
            tenant.recorder.record_slot_wait(slot_seconds)
        waiter.future.set_result(connection)

    def admit(self, connection: PooledConnection) -> None:
        """Take in a connection that was just opened."""
        now = monotonic()
        self.backoff.succeeded()
        self._keep_or_close(connection, now, usable=self._is_usable(connection, now))

    def open_failed(self, error: Unavailable) -> None:
        """Handle a failed opening: fail the waiters if nothing else can serve them."""
        lends = self.state is _READY or self.state is _WARMING_UP
        self.backoff.failed(error, pause=lends and self.server.is_available)
        if self.state is _WARMING_UP:
            self.state = _READY
        if not (self.connections.live or self.connections.connecting):
            self._failures.fail_all(error)
        self.dispatch()

    def server_lost(self, error: Unavailable) -> None:
        """Fail the waiters, because the server is lost."""
        self._failures.fail_all(error)
        self.dispatch()

    def server_back(self) -> None:
        """Stop waiting for the next attempt, because the server is back."""
        self.interrupted_until = monotonic()
        self.backoff.resume()

    # -- operations ----------------------------------------------------------------------------

    def open(self) -> None:
        """Start working, and open the first connections."""
        self.server.attach(self)
        self._opened_at = monotonic()
        self.recorder.pool_opened(self._opened_at)
        self.state = _WARMING_UP if self.size.warmup_size else _READY
        self.dispatch()

    async def wait_until_warm(self, deadline: float) -> bool:
        """Wait up to *deadline* seconds for the first connections.

        Return whether they are there.
        """
        await self._until(lambda: self.state is not _WARMING_UP, deadline)
        return self.connections.live >= min(self.size.warmup_size, self.most)

    def resize(self, size: PoolSize) -> None:
        """Change its size at once; surplus connections close when they are idle."""
        self.size = size
        self._limit()

    def limit_to(self, share: int | None) -> None:
        """Use at most *share* of its size, because nodes have the rest; None: all of it."""
        if share != self._share:
            self._share = share
            self._limit()

    def _limit(self) -> None:
        most = self.size.max_size
        self.most = most if self._share is None else min(self._share, most)
        self.dispatch()

    def pause(self) -> None:
        """Stop lending: idle connections close now, leased ones when they come back.

        Callers wait or are refused, depending on `config.refuses_when_paused`.
        """
        if not self.is_closing:
            self.state = PoolState.PAUSED
            if self.config.refuses_when_paused:
                self._failures.fail_all(self._failures.paused())
            self.dispatch()

    def resume(self) -> None:
        """Lend again."""
        if self.state is PoolState.PAUSED:
            self.state = _READY
            self.interrupted_until = monotonic()
            self.dispatch()

    def recycle(self) -> int:
        """Replace every connection, leased ones when they come back; return how many."""
        count = self.connections.recycle()
        self.dispatch()
        return count

    async def drain(self, deadline: float) -> DrainResult:
        """Take no new leases, wait up to *deadline* seconds for the present ones, cut the rest.

        Safe to call again, and while another call waits. Afterwards the pool is closed.
        """
        closed_before, own = self.recorder.connections_closed, self.connections
        if not self.is_closing:
            self.state = _DRAINING
        self._failures.fail_all(PoolDraining(f"The pool {self.pool_id} is being drained."))
        self.dispatch()
        await self._until(lambda: not own.leased, deadline)
        cut = list(own.leased)
        for connection in cut:
            own.end_lease(connection, monotonic())
            own.begin_close(connection, cut=True)
        self.state = _CLOSED
        self.backoff.stop()
        if cut:
            self.dispatch()
        await self._until(lambda: not own.checking, _SETTLE_DEADLINE)
        await own.settle(_SETTLE_DEADLINE)
        self.statement_deadlines.stop()
        self.recorder.pool_closed(self._opened_at)
        self.server.detach(self)
        return DrainResult(closed=self.recorder.connections_closed - closed_before, cut=len(cut))

    async def _until(self, holds: Callable[[], bool], deadline: float) -> None:
        if holds():
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(deadline):
                while not holds():
                    self._changed.clear()
                    await self._changed.wait()

    def keep_warm(self, warm_size: int, surplus_age: float | None) -> None:
        """Keep *warm_size* connections open although idle, and others for *surplus_age* seconds."""
        self.warm_size, self.surplus_age = warm_size, surplus_age

    def close_expired(self, now: float) -> int:
        """Close idle connections that expired at *now*; return how many."""
        due = expired(
            self.connections,
            now,
            min_size=self.size.min_size,
            idle_timeout=self.config.idle_timeout,
            surplus_age=self.surplus_age,
            warm_size=self.warm_size,
        )
        for connection in due:
            self.connections.evict_idle(connection)
        if due:
            self.dispatch()
        return len(due)
