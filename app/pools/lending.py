"""Lending: who gets which connection of a pool, and when one is opened or closed.

The policy is synchronous: `pump` looks at idle connections, waiters, sizes and the server's
budget, hands over what it can and starts what must be opened or closed; every change ends in
a `pump`, so nobody waits beside something usable. Opening and closing run in the roster's
tasks, which survive the caller who caused them and serve whoever is next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Any

import structlog

from app.domain.errors import (
    PoolDraining,
    PoolSaturated,
    PoolTimeout,
    ServerUnavailable,
    Unavailable,
)
from app.domain.pool import PoolConfig, PoolMetrics, PoolSize, PoolState
from app.pools.connect_backoff import ConnectBackoff
from app.pools.connection import PooledConnection
from app.pools.connections import Connections
from app.pools.lru import Entry
from app.pools.pool_login import PoolLogin
from app.pools.recorder import Recorder
from app.pools.server import Server
from app.pools.statement_deadlines import StatementDeadlines
from app.pools.tenant_state import TenantState
from app.pools.waiters import Waiter, WaitQueue

_log = structlog.get_logger(__name__)

# Looked up once: members of an enumeration are slow to find, and these are needed at every lease.
_READY, _WARMING_UP = PoolState.READY, PoolState.WARMING_UP
_NOTABLE_LAG = 0.1


class LendingPool:
    """Connections of one login, handed out first come, first served within a tenant."""

    def __init__(
        self,
        pool_id: str,
        size: PoolSize,
        config: PoolConfig,
        *,
        server: Server,
        login: PoolLogin,
        recorder: Recorder,
        on_busy: Callable[[Any], None],
        on_quiet: Callable[[Any], None],
    ) -> None:
        """Make a pool with no connection; `open` lets it work.

        Args:
            pool_id: a tenant's id, or `shared@server`.
            size: how many connections it keeps, may have and opens at once.
            config: its limits in time.
            server: where its connections go, and whose budget they come from.
            login: how they are opened.
            recorder: where everything is counted.
            on_busy: told when the first lease or waiter comes.
            on_quiet: told when the last is gone.
        """
        self.pool_id = pool_id
        self.size = size
        self.config = config
        self.server = server
        self.recorder = recorder
        self.state = PoolState.INITIALIZING
        # Its place in the cache that may evict it.
        self.entry: Entry[str, Any] | None = None
        self._on_busy = on_busy
        self._on_quiet = on_quiet
        self._busy = False
        self._waiters = WaitQueue(on_overdue=self._time_out)
        self.statement_deadlines = StatementDeadlines()
        self._backoff = ConnectBackoff(self.dispatch)
        self.last_answer_at = 0.0
        self._changed = asyncio.Event()
        self._roster = Connections(
            self,
            name=pool_id,
            server=server,
            login=login,
            max_lifetime=config.max_lifetime,
            recorder=recorder,
        )

    def __repr__(self) -> str:
        """The whole state in one line, for logs and for tests that read like a story."""
        roster = self._roster
        return (
            f"<TenantPool {self.pool_id} {self.state}: {len(roster.leased)} active, "
            f"{len(roster.idle)} idle, {roster.connecting} connecting, {roster.closing} closing "
            f"of {self.size.max_size}; {self._waiters.count} waiting>"
        )

    @property
    def metrics(self) -> PoolMetrics:
        """Its connections and waiters at this moment."""
        roster = self._roster
        return PoolMetrics(
            total_connections=roster.live,
            idle_connections=roster.live - len(roster.leased),
            active_connections=len(roster.leased),
            waiting_requests=self._waiters.count,
        )

    @property
    def is_busy(self) -> bool:
        return bool(self._roster.leased or self._waiters.count)

    @property
    def is_closing(self) -> bool:
        return self.state in (PoolState.DRAINING, PoolState.CLOSED)

    async def acquire(
        self, account: TenantState, timeout: float, opening: str = ""
    ) -> PooledConnection:
        """Lend a connection to *account* within *timeout* seconds.

        *opening* is what its lease will run first; it may come back as `connection.begun`.

        Raises:
            PoolTimeout: none became free in time.
            PoolSaturated: too many wait already.
            PoolDraining: the pool is being drained or closed.
            ServerUnavailable, ServerFull, TenantLoginFailed: none can be opened.
        """
        now = monotonic()
        roster = self._roster
        idle = roster.idle
        if idle and (self.state is _READY or self._works) and account.can_lease:
            while idle:
                connection = idle.pop()
                if roster.is_current(connection, now):
                    self._lend(connection, account, now, since=now)
                    if not self._busy:
                        self._busy = True
                        self._on_busy(self)
                    return connection
                roster.begin_close(connection)
        return await self._wait(account, timeout, now, opening)

    def release(self, connection: PooledConnection, *, reusable: bool) -> None:
        """Take back a lent connection; one that is not *reusable* is closed in the background."""
        now = monotonic()
        if not self._take_back(connection, now):
            return
        roster = self._roster
        if reusable:
            self.last_answer_at = now
        usable = reusable and self._is_usable(connection, now)
        if not usable or self.state is not _READY or self.server.budget.is_contended:
            self._put_back(connection, now, usable=usable)
        elif not self._waiters.count:
            # Nothing becomes possible by this, so no pump is needed.
            roster.put_idle(connection, now)
            if not roster.leased:
                self._busy = False
                self._on_quiet(self)
        elif (waiter := self._waiters.next()) is not None:
            self._hand(connection, waiter, now)
        else:
            roster.put_idle(connection, now)

    def _lend(
        self, connection: PooledConnection, account: TenantState, now: float, *, since: float
    ) -> None:
        self._roster.mark_leased(connection, account, now)
        wait = now - since
        account.recorder.record_acquire(wait, now)
        if account.recorder is not self.recorder:
            self.recorder.record_acquire(wait, now)

    def _take_back(self, connection: PooledConnection, now: float) -> bool:
        """End the lease on *connection*; False if a drain has cut it before."""
        account = connection.account
        if account is None:
            return False
        hold = now - connection.leased_at
        if connection.suspected:
            _log.info("suspected leak came back", pool=self.pool_id, held_seconds=round(hold, 1))
        self._roster.mark_returned(connection)
        account.recorder.record_release(hold, now)
        if account.recorder is not self.recorder:
            self.recorder.record_release(hold, now)
        return True

    def _put_back(self, connection: PooledConnection, now: float, *, usable: bool) -> None:
        budget = self.server.budget
        if usable and not (budget.is_contended and budget.must_yield(self)):
            self._roster.put_idle(connection, now)
        else:
            self._roster.begin_close(connection)
        self.dispatch()

    def _recorders(self, account: TenantState) -> tuple[Recorder, ...]:
        if account.recorder is self.recorder:
            return (self.recorder,)
        return (self.recorder, account.recorder)

    async def _wait(
        self, account: TenantState, timeout: float, asked_at: float, opening: str
    ) -> PooledConnection:
        self._refuse_newcomer(account)
        future = asyncio.get_running_loop().create_future()
        deadline = asked_at + timeout
        waiter = Waiter(account, future, since=asked_at, deadline=deadline, opening=opening)
        self._waiters.add(waiter)
        self._note_busy()
        if self._roster.idle or self._roster.open < self.size.max_size:
            self.dispatch()
        try:
            return await waiter.future
        except BaseException:
            self._abandon(waiter)
            raise

    def _refuse_newcomer(self, account: TenantState) -> None:
        if self.is_closing:
            raise PoolDraining(f"The pool {self.pool_id} is {self.state}.")
        if not self.server.is_available:
            raise ServerUnavailable(self.server.unavailable_detail)
        if self._waiters.count >= self.config.max_waiting:
            for recorder in self._recorders(account):
                recorder.rejected += 1
            raise PoolSaturated(f"{self._waiters.count} callers wait for pool {self.pool_id}.")

    def _time_out(self, waiter: Waiter) -> None:
        for recorder in self._recorders(waiter.account):
            recorder.timeouts += 1
        late = self.server.lag.worst_since(waiter.since)
        ours = f" (our event loop was late by {late:.1f} s)" if late > _NOTABLE_LAG else ""
        waited = f"{waiter.deadline - waiter.since:.3g} s{ours}"
        failed = self._backoff.error
        why = f" Opening one failed: {failed.detail}" if failed else ""
        if not why and not self._roster.live and self._roster.connecting:
            why = " Its login waits for others, or has not been answered yet."
        if not why and self.server.is_strained:
            why = f" No other can be opened: {self.server.last_error}"
        error = PoolTimeout(f"No connection of pool {self.pool_id} became free in {waited}.{why}")
        self._fail(waiter, error, monotonic())

    def _fail(self, waiter: Waiter, error: Exception, now: float) -> None:
        if not waiter.future.done():
            self._gave_up(waiter, now)
            waiter.fail(error)

    def _gave_up(self, waiter: Waiter, now: float) -> None:
        for recorder in self._recorders(waiter.account):
            recorder.record_abandoned(now - waiter.since)

    def _abandon(self, waiter: Waiter) -> None:
        """The caller is gone; take back what was handed to it in the same moment."""
        now = monotonic()
        connection = waiter.handed
        if connection is None:
            if waiter.future.cancelled():
                self._gave_up(waiter, now)
            self._waiters.discard(waiter)
            self.dispatch()
        elif self._take_back(connection, now):
            self._put_back(connection, now, usable=self._is_usable(connection, now))

    def dispatch(self) -> None:
        """Hand over what is idle, open what is missing, and say so when it becomes quiet."""
        if self._works:
            self._hand_over()
            self._grow()
            if self._roster.idle and self.server.budget.is_contended:
                self.server.budget.reclaim()
        self._note_quiet()
        self._changed.set()

    @property
    def shortfall(self) -> int:
        """How many connections it would open now if the budget had them."""
        if not self._works or self._backoff.is_pausing:
            return 0
        roster = self._roster
        room = self.size.max_size - roster.open
        if room <= 0:
            return 0
        floor = self.size.min_size
        if self.state is PoolState.WARMING_UP:
            floor = max(floor, self.size.warmup_size)
        if self.is_failing:
            # One attempt shows whether it is over: many would hold places that others can use.
            room = min(room, 1 - roster.connecting)
        wanted = max(
            self._waiters.servable - len(roster.idle) - roster.connecting - roster.undoing_prefetch,
            floor - roster.live - roster.connecting,
        )
        return max(0, min(wanted, room))

    def share_after(self, promised: int) -> float | None:
        """The share its next waiter's tenant would have once served; None if nobody waits.

        Connections being opened, and so many that are *promised*, have found their waiters before.
        """
        return self._waiters.share_after(
            self._roster.connecting + self._roster.undoing_prefetch + promised
        )

    def evict_idle(self, *, fresh: bool, keep: int = 0) -> bool:
        """Begin to close its longest unused idle connection above min_size; False if it has none.

        One that was opened a moment ago is taken only if *fresh* ones may be, and none of the
        last that it is to *keep*.
        """
        return self._roster.live > max(self.size.min_size, keep) and self._roster.evict_idle(
            fresh=fresh
        )

    def admit(self, connection: PooledConnection) -> None:
        """Take in a connection that is in no place, and works: just opened, or undone."""
        now = monotonic()
        self._backoff.succeeded()
        if self._is_usable(connection, now):
            self._roster.put_idle(connection, now)
        else:
            self._roster.begin_close(connection)
        self.dispatch()

    def open_failed(self, error: Unavailable) -> None:
        """One could not be opened: if nothing else can serve them, tell those who wait."""
        self._backoff.failed(error, pause=self._works and self.server.is_available)
        if self.state is PoolState.WARMING_UP:
            self.state = PoolState.READY
        if not (self._roster.live or self._roster.connecting):
            self._fail_waiters(error)
        self.dispatch()

    @property
    def is_failing(self) -> bool:
        return self._backoff.error is not None

    def _fail_waiters(self, error: Unavailable) -> None:
        now = monotonic()
        for waiter in self._waiters.clear():
            self._fail(waiter, type(error)(error.detail), now)

    @property
    def _works(self) -> bool:
        return self.state is _READY or self.state is _WARMING_UP

    def _is_usable(self, connection: PooledConnection, now: float) -> bool:
        """Whether *connection*, which is in no place now, may stay."""
        roster = self._roster
        return (
            (self.state is _READY or self._works)
            and roster.is_current(connection, now)
            and roster.has_room(self.size.max_size)
        )

    def _hand_over(self) -> None:
        roster, now = self._roster, monotonic()
        while roster.idle and (waiter := self._waiters.next()) is not None:
            connection = roster.idle.pop()
            if roster.is_current(connection, now):
                self._hand(connection, waiter, now)
            else:
                roster.begin_close(connection)

    def _hand(self, connection: PooledConnection, waiter: Waiter, now: float) -> None:
        self._waiters.pop(waiter)
        self._lend(connection, waiter.account, now, since=waiter.since)
        waiter.future.set_result(connection)

    def _grow(self) -> None:
        if self.state is PoolState.WARMING_UP and self._roster.live >= self.size.warmup_size:
            self.state = PoolState.READY
        if not self.server.is_available:
            return
        while self.shortfall:
            if self.state is PoolState.WARMING_UP and self.server.budget.is_exhausted:
                # Nothing is taken from other pools only to be warm.
                self.state = PoolState.READY
            elif self.server.budget.take(self):
                self._roster.begin_open()
            else:
                return

    def _note_busy(self) -> None:
        if not self._busy:
            self._busy = True
            self._on_busy(self)

    def _note_quiet(self) -> None:
        if self._busy and not self.is_busy:
            self._busy = False
            self._on_quiet(self)
