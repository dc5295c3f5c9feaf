"""The connections of one pool: idle, leased, being checked, opened or closed.

They decide nothing. Each opening and closing is a named task. What a task holds is released when it
is done, not inside it: a task cancelled before its first step runs none of its code.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from math import inf
from time import monotonic
from typing import Any, Protocol, TypeVar

import asyncpg

from app.domain.errors import Unavailable
from app.pools import driver
from app.pools.borrower import Borrower
from app.pools.connection import PooledConnection
from app.pools.connector import Connector
from app.pools.recorder import Recorder
from app.pools.scheduling.connect_limiter import ConnectSlot
from app.pools.smoothed import Smoothed, SmoothedGrowth
from app.pools.tenant_state import TenantState

T = TypeVar("T")

_CHECK_DEADLINE = 2.0
# A server that takes writes answers with one row, a standby with none.
_CHECK, _PASSED = "SELECT WHERE NOT pg_catalog.pg_is_in_recovery()", "SELECT 1"
_CLOSE_DEADLINE = 2.0
# A tenant that takes longer than this many moves to come back is away; its return is not measured.
_AWAY_MOVES = 8
# Seconds between two measurements of a tenant's return, so that few leases pay for them.
_MEASURE_EVERY = 0.005


class Owner(Protocol):
    """The pool: it learns how openings, closings and checks end."""

    def admit(self, connection: PooledConnection) -> None:
        """Take in a working connection that is in no place."""

    def open_failed(self, error: Unavailable) -> None:
        """Note that a connection could not be opened; its place in the budget is free."""

    def dispatch(self) -> None:
        """Note that connections were closed or checked."""


class Connections:
    """Every connection of a pool, each in exactly one place.

    Attributes:
        returns: seconds from the end of a lease to the next caller, if none waited; measured now
            and then.
        idle_found_at: when a caller last found an idle connection, in monotonic seconds.
    """

    def __init__(
        self,
        owner: Owner,
        connector: Connector,
        *,
        name: str,
        max_lifetime: float,
        recorder: Recorder,
    ) -> None:
        """Start without connections."""
        self.idle: deque[PooledConnection] = deque()
        self.leased: set[PooledConnection] = set()
        self.checking: set[PooledConnection] = set()
        self.connecting = 0
        self.closing = 0
        self.epoch = 0
        self.returns = Smoothed()
        self.idle_found_at = 0.0
        # When the last lease ended, if the next caller's arrival is to be measured; and when the
        # next measurement is due.
        self._ended_at = inf
        self._measure_at = 0.0
        self._holds = SmoothedGrowth(recorder.connections_released, recorder.hold_seconds)
        self._owner = owner
        self._name = name
        self._connector = connector
        self._server = connector.server
        self._budget = connector.server.budget
        self._max_lifetime = max_lifetime
        self._recorder = recorder
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def in_use(self) -> int:
        """Number of leased connections."""
        return len(self.leased)

    @property
    def live(self) -> int:
        """Number of working connections: idle, leased or being checked."""
        return len(self.idle) + len(self.leased) + len(self.checking)

    @property
    def open(self) -> int:
        """Number of connections that the server may see: working, connecting and closing ones."""
        return self.live + self.connecting + self.closing

    @property
    def hold(self) -> float:
        """Seconds that a lease takes, recently; 0 until one has ended."""
        return self._holds.mean(self._recorder.connections_released, self._recorder.hold_seconds)

    def is_current(self, connection: PooledConnection, now: float) -> bool:
        """Whether *connection* is neither broken, nor stale, nor too old."""
        return (
            connection.is_connected()
            and connection.epoch == self.epoch
            and connection.generation == self._server.generation
            and now < connection.expires_at
        )

    @property
    def is_in_use(self) -> bool:
        """Whether a connection not known to be broken is leased, or being checked."""
        return any(each.is_connected() for each in self.leased | self.checking)

    @property
    def pids(self) -> set[int]:
        """Process ids of the back-ends of working connections."""
        return {each.pid for each in (*self.idle, *self.leased, *self.checking)}

    def leased_by_backend(self, pid: int) -> PooledConnection | None:
        """The leased connection whose back-end has this process id."""
        return next((each for each in self.leased if each.pid == pid), None)

    def has_untested(self, *, not_since: float) -> bool:
        """Whether an idle connection was last tested before the monotonic time *not_since*."""
        return any(connection.checked_at <= not_since for connection in self.idle)

    def remove_idle(self, connection: PooledConnection) -> None:
        """Remove *connection* from the idle ones; it is in no place for now."""
        self.idle.remove(connection)

    def leased_seconds(self, now: float) -> float:
        """Sum of the running leases' durations until *now*."""
        return sum([now - connection.leased_at for connection in self.leased])

    def open_seconds(self, now: float) -> float:
        """Sum of the working connections' ages at *now*."""
        return sum(
            now - connection.opened_at
            for place in (self.idle, self.leased, self.checking)
            for connection in place
        )

    def take_idle(self, now: float) -> PooledConnection | None:
        """Take out the most recently used idle connection; broken, stale and too old ones close."""
        while self.idle:
            connection = self.idle.pop()
            if self.is_current(connection, now):
                self.idle_found_at = now
                return connection
            self.begin_close(connection)
        return None

    def lease(
        self,
        connection: PooledConnection,
        tenant: TenantState,
        borrower: Borrower | None,
        wait: float,
        now: float,
    ) -> None:
        """Begin *tenant*'s lease on *connection*, which is in no place, after *wait* seconds.

        *borrower* is its user, if known.
        """
        if now > self._ended_at:
            self._note_return(now - wait)
        connection.begin_lease(tenant, borrower, now)
        self.leased.add(connection)
        tenant.lease_begun(wait, now)
        if tenant.recorder is not self._recorder:
            self._recorder.record_acquire(wait, now)

    def end_lease(self, connection: PooledConnection, now: float) -> bool:
        """End the lease on *connection*, which is in no place then; False if it has none."""
        tenant = connection.tenant_state
        if tenant is None:
            return False
        hold = now - connection.leased_at
        if now >= self._measure_at:
            self._ended_at = now
        connection.end_lease(now)
        self.leased.discard(connection)
        tenant.lease_ended(hold, now)
        if tenant.recorder is not self._recorder:
            self._recorder.record_release(hold, now)
        return True

    def _note_return(self, asked_at: float) -> None:
        """Note a caller that asked at *asked_at*, before or after the last lease ended."""
        away, self._ended_at = asked_at - self._ended_at, inf
        if away > 0:
            self.returns.note(min(away, _AWAY_MOVES * self._budget.move_seconds))
            self._measure_at = asked_at + _MEASURE_EVERY

    def put_idle(self, connection: PooledConnection) -> None:
        """Put *connection* among the idle ones; last in, first out."""
        self.idle.append(connection)

    def begin_open(self, slot: ConnectSlot) -> None:
        """Start opening a connection; *slot* is released when that has ended."""
        self.connecting += 1
        self._budget.begin_open()
        self._start(self._open(), "connect", partial(self._opened, slot))

    def evict_idle(self, connection: PooledConnection, slot: ConnectSlot | None = None) -> None:
        """Close an idle *connection*; *slot* is released when that has ended."""
        self.idle.remove(connection)
        self.begin_close(connection, slot)

    def begin_close(
        self, connection: PooledConnection, slot: ConnectSlot | None = None, *, cut: bool = False
    ) -> None:
        """Close a connection that is in no place; *slot* is released when that has ended.

        *cut*: terminate it, because a borrower may still use it.
        """
        self.closing += 1
        self._recorder.record_close(monotonic() - connection.opened_at)
        self._budget.begin_close()
        ended = partial(self._closed, connection, slot)
        self._start(self._close(connection, cut=cut), "close", ended)

    def recycle(self) -> int:
        """Mark every connection as stale and close the idle ones; return how many are replaced."""
        count = self.live
        self.epoch += 1
        while self.idle:
            self.begin_close(self.idle.popleft())
        return count

    async def check(self, *, not_since: float) -> tuple[int, int]:
        """Test idle connections last tested before the monotonic time *not_since*.

        Returns the number of tested connections, and of those that failed and were closed.
        """
        due = [connection for connection in self.idle if connection.checked_at <= not_since]
        answers = await self._test(due)
        return len(due), answers.count(False)

    async def ping(self) -> bool:
        """Test the most recently used idle connection.

        Return whether there is one and it passed.
        """
        return any(await self._test([self.idle[-1]] if self.idle else []))

    async def _test(self, due: list[PooledConnection]) -> list[bool]:
        """Test idle connections, and close those that fail."""
        for connection in due:
            self.idle.remove(connection)
            self.checking.add(connection)
        try:
            return await asyncio.gather(*(self._answers(connection) for connection in due))
        finally:
            # A cancelled check may not even have started with some of them.
            for connection in self.checking.intersection(due):
                self._end_check(connection, answered=False)

    async def settle(self, deadline: float) -> None:
        """Wait up to *deadline* seconds for all openings and closings; give up the rest.

        Whatever is given up has released what it held, or the server counts its leftovers.
        """
        if not self._tasks:
            return
        try:
            async with asyncio.timeout(deadline):
                # Another task closes what was just opened, so one round is not enough.
                while self._tasks:
                    await asyncio.wait(self._tasks)
        except TimeoutError:
            while self._tasks:
                for task in self._tasks:
                    task.cancel()
                await asyncio.wait(self._tasks)

    async def _answers(self, connection: PooledConnection) -> bool:
        answered = False
        try:
            with suppress(*driver.CONNECTION_ERRORS, asyncpg.PostgresError):
                # asyncpg has its own deadline: an answer that came while our loop stood still
                # counts.
                said = await connection.raw.execute(_CHECK, timeout=_CHECK_DEADLINE)
                answered = said == _PASSED
            if not answered:
                self._recorder.record_failed_check()
        finally:
            self._end_check(connection, answered=answered)
        return answered

    def _end_check(self, connection: PooledConnection, *, answered: bool) -> None:
        if connection not in self.checking:
            # The caller that awaited the check has ended it.
            return
        now = monotonic()
        self.checking.remove(connection)
        connection.mark_checked(now)
        if answered and self.is_current(connection, now):
            # Back among the longest unused, because a check is no use.
            self.idle.appendleft(connection)
        else:
            self.begin_close(connection)
        self._owner.dispatch()

    async def _open(self) -> PooledConnection | Unavailable:
        try:
            return await self._connect()
        except Unavailable as error:
            return error

    async def _connect(self) -> PooledConnection:
        generation, epoch, began = self._server.generation, self.epoch, monotonic()
        raw = await self._connector.connect()
        now = monotonic()
        try:
            with driver.translate_connect_errors():
                connection = PooledConnection(
                    raw,
                    now=now,
                    max_lifetime=self._max_lifetime,
                    epoch=epoch,
                    generation=generation,
                )
                raw.add_termination_listener(lambda _: self._lost(connection))
        except BaseException:
            raw.terminate()
            raise
        self._recorder.record_connect(now - began, now)
        self._budget.note_connect(now - began)
        return connection

    def _opened(self, slot: ConnectSlot, result: PooledConnection | Unavailable | None) -> None:
        self.connecting -= 1
        slot.release()
        if isinstance(result, PooledConnection):
            self._owner.admit(result)
            return
        self._recorder.record_connect_failure()
        self._budget.give_back()
        self._owner.open_failed(result or Unavailable())

    async def _close(self, connection: PooledConnection, *, cut: bool) -> bool:
        began = monotonic()
        # A connection that broke by itself may have left its back-end running.
        if cut or not connection.is_connected() or not await _close_gracefully(connection):
            connection.terminate()
            await self._server.wait_backend_gone(connection.pid, self._connector.user)
        else:
            self._budget.note_close(monotonic() - began)
        return True

    def _closed(
        self,
        connection: PooledConnection,
        slot: ConnectSlot | None,
        closed: bool | None,  # noqa: FBT001
    ) -> None:
        self.closing -= 1
        if slot is not None:
            slot.release()
        if not closed:
            connection.terminate()
            self._server.count_orphan(connection.pid, self._connector.user)
        self._budget.end_close()
        self._owner.dispatch()

    def _lost(self, connection: PooledConnection) -> None:
        """Note that the connection broke; a leased one is noticed when it comes back."""
        if connection in self.idle:
            self._recorder.record_lost()
            self.evict_idle(connection)

    def _start(
        self, work: Coroutine[Any, Any, T], what: str, ended: Callable[[T | None], None]
    ) -> None:
        """Run *work*, then call *ended* with its result; None if it was cancelled or failed."""

        def done(task: asyncio.Task[T]) -> None:
            self._tasks.discard(task)
            result = None
            try:
                if not task.cancelled():
                    result = task.result()
            finally:
                ended(result)

        task = asyncio.create_task(work, name=f"pool {self._name}: {what}")
        self._tasks.add(task)
        task.add_done_callback(done)


async def _close_gracefully(connection: PooledConnection) -> bool:
    try:
        await connection.raw.close(timeout=_CLOSE_DEADLINE)
    except (*driver.CONNECTION_ERRORS, AssertionError):
        # asyncpg asserts that no statement is running; a borrower may have left one.
        return False
    # Cancelling its last statement may have failed in the meantime; that terminates the connection.
    return not connection.was_terminated
