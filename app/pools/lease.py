"""A lease: one borrower's use of one connection in one tenant's context.

A lease makes one round trip before the work (begin, context) and one after it, see `session_reset`.
The first one also shows whether the connection still works, so no other test is needed; a dead
connection is replaced, and the borrower does not notice. Work that has only one statement, and may
be committed before anyone reads its result, is sent together with both: one round trip in all.

While callers wait, a connection passes from lease to lease the moment the server has answered the
end of one. Then what begins the next one is sent together with its first statement, as pgjdbc does.
"""

from contextlib import nullcontext, suppress
from time import monotonic
from types import TracebackType
from typing import NamedTuple, Protocol

import asyncpg

from app.domain.errors import (
    InvalidInput,
    LeaseLost,
    PoolkeeperError,
    PoolTimeout,
    ReadOnly,
    ServerReadOnly,
    ServerUnavailable,
    StatementEndedLease,
    StatementFailed,
    TooManyLocks,
)
from app.domain.isolation_level import IsolationLevel
from app.domain.tenant import TenantSpec
from app.pools import driver
from app.pools.borrower import Borrower
from app.pools.connection import PooledConnection
from app.pools.isolation import IsolationStrategy, is_schema_missing, schema_missing
from app.pools.pool import Pool
from app.pools.session_reset import BEGIN, end_error, end_statements, ending_of
from app.pools.tenant_state import TenantState
from app.wire.commit_watch import CommitWatch
from app.wire.extended_query import Ending

# Maximum duration of begin and cleanup, in seconds; after that the connection counts as broken.
_BEGIN_DEADLINE = 2.0
_CLEANUP_DEADLINE = 5.0
# A connection that was used within this time, in seconds, is not tested before its use.
_BYPASS_WINDOW = 0.5
_TEST = "SELECT 1"
# The longest timeout of a statement, in seconds: Postgres stores milliseconds in 31 bits.
_LONGEST_TIMEOUT = 2_147_483
_CUT = (
    "The pool closed before the work had ended, because the service stops (shutdown_seconds), or"
    " the pool was evicted. Whether the work was committed is unknown."
)
_UNKNOWN_STATEMENT = "26000"
_CANCELLED = "57014"
_FOUND_READ_ONLY = (asyncpg.ReadOnlySQLTransactionError, ReadOnly)


class LeaseOptions(NamedTuple):
    """A borrower's options for one lease.

    Attributes:
        transaction: whether the whole lease is one transaction. Without a transaction there is no
            tenant context, so shared pools allow only True.
        read_only: whether writes are refused.
        isolation_level: the transaction's isolation level; None: the role's default.
        deferrable: whether the transaction waits until it cannot take part in a conflict; it has
            no effect unless the transaction is read-only and serializable.
        statement_timeout: maximum seconds of one statement; None: the role's own limit.
    """

    transaction: bool = True
    read_only: bool = False
    isolation_level: IsolationLevel | None = None
    deferrable: bool = False
    statement_timeout: float | None = None


DEFAULT_OPTIONS = LeaseOptions()


class Work(Protocol):
    """A borrower's statements, which bypass asyncpg.

    The first one is sent together with those that begin the lease. It raises what asyncpg does.
    """

    def ends_at_once(self, *, read_only: bool) -> bool:
        """Whether `begin` probably sends all of the work.

        If the lease is not *read_only*, it may then be committed before anyone reads its results.
        """

    async def begin(
        self, connection: asyncpg.Connection, statements: str, ending: Ending | None
    ) -> None:
        """Run *statements*, then the first statement of the work, then the *ending* if given."""

    async def wait_ended(self) -> None:
        """Wait until the ending has run."""

    @property
    def is_committed(self) -> bool:
        """Whether the commit at the start of *ending* is known to have succeeded."""


class PoolSource(Protocol):
    """Finds the tenant's pool for a lease; the manager implements it."""

    def open_pool_of(self, tenant_state: TenantState) -> Pool | None:
        """The tenant's pool, if it is open and accepts callers."""

    async def pool_within(
        self, tenant_state: TenantState, timeout: float, borrower: Borrower | None = None
    ) -> tuple[Pool, float]:
        """Open the tenant's pool if needed, within *timeout* seconds; also return the wait."""


class Lease:
    """An asynchronous context manager that lends a connection.

    Raises on entering:
        PoolTimeout, PoolSaturated, PoolLimitReached, PoolDraining, ServerUnavailable: try again.
        SchemaMissing: the tenant must first be provisioned again.
    Raises on leaving:
        ServerReadOnly: the work writes, and the server accepts no writes at present.
        TooManyLocks: the service ended the work, because it filled the server's lock table.
        StatementFailed: the commit was refused; nothing was stored.
        StatementEndedLease: the work left the lease's transaction or context; a transaction still
            open was rolled back.
        SchemaMissing: the work failed, and the tenant's schema is gone.
        LeaseLost: the connection broke; whether the work was committed is unknown.
    Once the commit is known to have succeeded, later failures raise nothing: the connection is
    closed.
    """

    __slots__ = (
        "_connection",
        "_is_end_sent",
        "_is_locked",
        "_isolation",
        "_options",
        "_pool",
        "_source",
        "_statement",
        "_tenant_state",
        "_timeout",
        "_watch",
        "_work",
    )

    def __init__(
        self,
        source: PoolSource,
        tenant_state: TenantState,
        isolation: IsolationStrategy,
        *,
        options: LeaseOptions,
        timeout: float,
        work: Work | None = None,
        statement: str = "",
    ) -> None:
        """Prepare a lease for a tenant; it borrows nothing until it is entered.

        Raises:
            InvalidInput: a shared tenant without a transaction, or a timeout outside the range of
                Postgres.
        """
        if not 0 <= (options.statement_timeout or 0) <= _LONGEST_TIMEOUT:
            raise InvalidInput("statement_timeout must be between 0 and 2147483 seconds.")
        if tenant_state.tenant.spec.is_shared and not options.transaction:
            raise InvalidInput("A shared pool lends connections inside a transaction only.")
        self._source = source
        self._tenant_state = tenant_state
        self._isolation = isolation
        self._options = options
        self._timeout = timeout
        self._work = work
        self._statement = statement
        self._watch: CommitWatch | None = None
        self._is_locked = self._is_end_sent = False

    async def __aenter__(self) -> asyncpg.Connection:
        """Borrow a connection that works, in the tenant's context."""
        borrower = Borrower(self._statement)
        deadline = borrower.asked_at + self._timeout
        while True:
            slot_seconds = 0.0
            pool = self._source.open_pool_of(self._tenant_state)
            if pool is None:
                remaining = deadline - monotonic()
                pool, slot_seconds = await self._source.pool_within(
                    self._tenant_state, remaining, borrower
                )
            limits = pool.server.limits
            if limits is not None and limits.read_only and not self._options.read_only:
                self._options, self._is_locked = self._options._replace(read_only=True), True
            first = begin_statements(self._isolation, self._tenant_state.tenant.spec, self._options)
            remaining = deadline - monotonic()
            connection = await pool.acquire(self._tenant_state, remaining, borrower, slot_seconds)
            if await self._begin(pool, connection, self._before_work(connection, first)):
                break
            if monotonic() >= deadline:
                raise PoolTimeout("No working connection was found in time.")
        self._pool, self._connection = pool, connection
        # Work that bypasses asyncpg is our own code: it never uses the connection too late.
        return connection.attach_proxy() if self._work is None else connection.raw

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Return the connection clean, or close it."""
        connection = self._connection
        clean = False
        try:
            if kind is None:
                clean = await self._clean_up(connection, commit=True)
            elif isinstance(error, _FOUND_READ_ONLY) and not self._options.read_only:
                # The server may have become a standby without our notice.
                self._pool.server.recheck()
            elif _leaves_connection_usable(error):
                # The caller must get the borrower's own error, even if the cleanup fails.
                with suppress(LeaseLost, StatementFailed):
                    clean = await self._clean_up(connection, commit=False)
                    if not clean and isinstance(error, asyncpg.PostgresError | StatementFailed):
                        raise schema_missing(self._tenant_state.tenant.spec) from error
        finally:
            ended = connection.termination_reason
            connection.detach_proxy()
            self._pool.release(connection, reusable=clean)
        if self._is_locked and isinstance(error, _FOUND_READ_ONLY):
            raise ServerReadOnly from error
        if isinstance(error, LeaseLost) and self._pool.is_closing and connection.was_terminated:
            raise LeaseLost(_CUT) from error
        if ended and _is_postgres_own(error):
            raise TooManyLocks(f"The statement was ended. {ended}", sqlstate=_CANCELLED) from error

    def _before_work(self, connection: PooledConnection, first: str) -> str:
        """The statements to run on *connection* before the work; empty if there are none."""
        if not connection.is_prepared:
            preparation = self._isolation.session_setup(self._tenant_state.tenant.spec)
            return "; ".join(filter(None, ("BEGIN", preparation, "COMMIT", first)))
        if first or (_was_just_used(connection) and not connection.is_in_transaction):
            return first
        return _TEST

    async def _begin(self, pool: Pool, connection: PooledConnection, statements: str) -> bool:
        """Begin the lease, perhaps with its first statement; return False on a dead connection.

        This counts as a use of the connection like any other, so each acquisition has its release.
        """
        begun = usable = False
        try:
            if self._is_begun_by_work(connection):
                connection.begin_with_next(statements)
            elif statements or self._work is not None:
                pool.statement_deadlines.begin(connection, _BEGIN_DEADLINE)
                if self._work is None:
                    await connection.run(statements)
                else:
                    await self._begin_work(connection, statements, self._work)
            connection.mark_prepared()
            if self._options.transaction:
                connection.mark_in_transaction(unseen=self._work is not None)
            begun = True
        except driver.CONNECTION_ERRORS:
            return False
        except (asyncpg.PostgresError, UnicodeDecodeError) as error:
            if isinstance(error, UnicodeDecodeError) or not is_schema_missing(error):
                raise ServerUnavailable(
                    f"Postgres let no lease begin: {driver.failure_reason(error)}"
                ) from error
            # The connection is kept: the next lease checks the schema again.
            with suppress(*driver.CONNECTION_ERRORS):
                await connection.run("ROLLBACK")
                usable = True
            raise schema_missing(self._tenant_state.tenant.spec) from error
        finally:
            pool.statement_deadlines.end(connection)
            if not begun:
                pool.release(connection, reusable=usable)
        return True

    def _is_begun_by_work(self, connection: PooledConnection) -> bool:
        """Whether the first statement of a borrower that uses asyncpg also begins the lease."""
        return (
            self._work is None
            and self._options.transaction
            and connection.was_handed_over
            # The end of the last lease has told asyncpg so.
            and connection.is_in_transaction
        )

    async def _begin_work(self, connection: PooledConnection, statements: str, work: Work) -> None:
        """Begin the lease together with its work; if possible, end it in the same round trip."""
        options, ending = self._options, None
        if options.transaction and work.ends_at_once(read_only=options.read_only):
            ending = ending_of(self._isolation, self._tenant_state.tenant.spec)
            if not (options.read_only or _was_just_used(connection)):
                # On a dead connection nobody could tell whether the work was committed.
                await connection.run(_TEST)
        await work.begin(connection.raw, statements, ending)
        self._is_end_sent = ending is not None

    async def _clean_up(self, connection: PooledConnection, *, commit: bool) -> bool:
        """End the transaction; return False if the session cannot be used any more.

        If the tenant's schema is missing, all connections of the pool are replaced, and leases
        cannot begin on the new ones.
        """
        connection.detach_proxy()
        if not connection.is_connected():
            if commit and self._is_committed:
                return False
            raise LeaseLost
        if self._options.transaction and commit and not connection.is_in_transaction:
            raise StatementEndedLease
        self._pool.statement_deadlines.begin(connection, _CLEANUP_DEADLINE)
        try:
            if not await self._was_ended(commit=commit):
                await self._end(connection, commit=commit)
        except (*driver.CONNECTION_ERRORS, asyncpg.PostgresError, UnicodeDecodeError) as error:
            if isinstance(error, asyncpg.PostgresError) and is_schema_missing(error):
                self._pool.recycle()
                if not (commit and self._options.transaction):
                    return False
            if commit and self._is_committed:
                return False
            raise end_error(error, connection, is_commit=self._is_end_sent) from error
        finally:
            self._pool.statement_deadlines.end(connection)
        return True

    @property
    def _is_committed(self) -> bool:
        """Whether the commit is known to have succeeded: the failure came after it."""
        if self._watch is not None:
            return self._watch.has_committed
        return self._work is not None and self._is_end_sent and self._work.is_committed

    async def _was_ended(self, *, commit: bool) -> bool:
        """Whether the ending was sent with the work, and nothing is left to do.

        If the ending failed and the work should be committed, this raises the error of asyncpg.
        """
        if self._work is None or not self._is_end_sent:
            return False
        try:
            await self._work.wait_ended()
        except asyncpg.PostgresError:
            if commit:
                raise
            self._is_end_sent = False
        return self._is_end_sent

    async def _end(self, connection: PooledConnection, *, commit: bool) -> None:
        """Send the end of the lease; raises asyncpg's errors."""
        statements = end_statements(
            self._isolation,
            self._tenant_state.tenant.spec,
            transaction=self._options.transaction,
            commit=commit,
        )
        if commit and self._options.transaction:
            self._watch = CommitWatch(connection.raw, tells_begun=self._pool.waiters.count > 0)
        with self._watch or nullcontext():
            await connection.run(statements)


def begin_statements(isolation: IsolationStrategy, spec: TenantSpec, options: LeaseOptions) -> str:
    """The statements that run before the work, in one round trip."""
    context = isolation.context_setup(spec)
    if options is DEFAULT_OPTIONS:
        return f"{BEGIN}; {context}" if context else BEGIN
    local = "LOCAL " if options.transaction else ""
    statements = []
    if options.transaction:
        statements.append(_begin_statement(options))
        statements.append(context)
    elif options.read_only:
        statements.append("SET default_transaction_read_only = on")
    if options.statement_timeout is not None:
        milliseconds = max(1, round(options.statement_timeout * 1000))
        statements.append(f"SET {local}statement_timeout = {milliseconds}")
    return "; ".join(filter(None, statements))


def _begin_statement(options: LeaseOptions) -> str:
    statement = "BEGIN READ ONLY" if options.read_only else BEGIN
    if options.isolation_level is not None:
        statement += f" ISOLATION LEVEL {options.isolation_level.sql}"
    return f"{statement} DEFERRABLE" if options.deferrable else statement


def _was_just_used(connection: PooledConnection) -> bool:
    return connection.leased_at - connection.idle_since <= _BYPASS_WINDOW


def _is_postgres_own(error: BaseException | None) -> bool:
    """Whether *error* comes from the statement or the connection, not from the borrower's code."""
    return isinstance(error, (PoolkeeperError, asyncpg.PostgresError, *driver.CONNECTION_ERRORS))


def _leaves_connection_usable(error: BaseException | None) -> bool:
    """Whether the connection can still be used after work that ended with *error*."""
    if isinstance(error, driver.CONNECTION_ERRORS) or not isinstance(error, Exception):
        return False
    # If so, somebody deallocated statements that asyncpg still considers prepared.
    return getattr(error, "sqlstate", None) != _UNKNOWN_STATEMENT
