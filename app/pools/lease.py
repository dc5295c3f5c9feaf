"""A lease: one borrower's use of one connection inside one tenant's context.

One round trip before the work (begin, context) and one after it, see `session_reset`. The first
also shows whether the connection still works, so no other test is needed; a dead one is replaced
unseen. Work that is over with its first statement, and can be committed before anybody looks at
its result, is sent with both: one round trip in all.

While callers wait, the round trip after the work also begins the lease that will probably be next,
which then needs none of its own. Who is next is decided afterwards: another lease rolls back what
was begun, and begins anew. The now() of a prefetched lease is the time at which that round trip
began, always after its borrower asked.
"""

from __future__ import annotations

from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from time import monotonic
from types import TracebackType
from typing import Protocol

import asyncpg

from app.domain.errors import (
    InvalidInput,
    LeaseLost,
    PoolkeeperError,
    PoolTimeout,
    ReadOnly,
    SchemaMissing,
    ServerReadOnly,
    ServerUnavailable,
    StatementEndedLease,
    StatementFailed,
    TooManyLocks,
)
from app.domain.isolation_level import IsolationLevel
from app.domain.tenant import TenantSpec
from app.pools import driver
from app.pools.connection import PooledConnection
from app.pools.isolation import IsolationStrategy, is_schema_missing
from app.pools.leak_detection import Borrower
from app.pools.pool import Pool
from app.pools.session_reset import BEGIN, end_error, end_statements, ending_of
from app.pools.tenant_state import TenantState
from app.wire.commit_watch import CommitWatch
from app.wire.extended_query import Ending

# What begin and cleanup may take, in seconds, before the connection counts as broken.
_BEGIN_DEADLINE = 2.0
_CLEANUP_DEADLINE = 5.0
# A connection used more recently than this, in seconds, need not be tested before its use.
_BYPASS_WINDOW = 0.5
_TEST = "SELECT 1"
# Of a statement, in seconds: Postgres counts milliseconds in 31 bits.
_LONGEST_TIMEOUT = 2_147_483
_UNKNOWN_STATEMENT = "26000"
_CANCELLED = "57014"
_FOUND_READ_ONLY = (asyncpg.ReadOnlySQLTransactionError, ReadOnly)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseOptions:
    """How a borrower wants to work.

    Attributes:
        transaction: whether the whole lease is one transaction; without one, there is no
            tenant context, so a shared pool offers only True.
        read_only: whether writes are refused.
        isolation_level: of the transaction, None for the role's own default.
        deferrable: whether the transaction waits until it can be no part of a conflict; without
            effect unless it is read-only and serializable.
        statement_timeout: seconds one statement may take, None for the role's own limit.
    """

    transaction: bool = True
    read_only: bool = False
    isolation_level: IsolationLevel | None = None
    deferrable: bool = False
    statement_timeout: float | None = None


DEFAULT_OPTIONS = LeaseOptions()


class Work(Protocol):
    """A borrower's statements, sent unseen by asyncpg: the first with those that begin the lease.

    Raises what asyncpg would.
    """

    def ends_at_once(self, *, read_only: bool) -> bool:
        """Whether, as far as known, nothing is to be run after what `begin` sends.

        A lease that is not *read_only* may be committed before anybody looks at its results.
        """

    async def begin(
        self, connection: asyncpg.Connection, statements: str, ending: Ending | None
    ) -> None:
        """Run *statements*, the first one of its own and perhaps an *ending*."""

    async def wait_ended(self) -> None:
        """Wait until the ending was run."""

    @property
    def is_committed(self) -> bool:
        """Whether the commit with which *ending* begins is known to be done."""


class PoolSource(Protocol):
    """Where a lease finds its tenant's pool; the manager."""

    def open_pool_of(self, tenant_state: TenantState) -> Pool | None:
        """The tenant's pool, if it is open and takes callers."""

    async def pool_within(
        self, tenant_state: TenantState, timeout: float, borrower: Borrower | None = None
    ) -> tuple[Pool, float]:
        """The tenant's pool, opened if need be, within *timeout* seconds; how many it waited."""


class Lease:
    """An asynchronous context manager that lends a connection.

    Raises on entering:
        PoolTimeout, PoolSaturated, PoolLimitReached, PoolDraining, ServerUnavailable: try again.
        SchemaMissing: the tenant must be provisioned again first.
    Raises on leaving:
        ServerReadOnly: the work writes, and the server takes no writes now.
        TooManyLocks: we ended the work, for it filled the server's lock table.
        StatementFailed: the commit was refused; nothing was stored.
        StatementEndedLease: the work left the lease's transaction or context; a transaction still
            open was rolled back.
        SchemaMissing: the work failed, and the tenant's schema is gone.
        LeaseLost: the connection broke; whether the work was committed is unknown.
    Once the commit is known to be done, nothing that fails is raised: the connection is closed.
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
        """Prepare a lease for a tenant; nothing is borrowed before it is entered.

        Raises:
            InvalidInput: for a shared tenant without a transaction; for a timeout that Postgres
                does not take.
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
        """Borrow a connection that has proved to work, inside the tenant's context."""
        borrower = Borrower(self._statement)
        asked_at = borrower.asked_at
        deadline = asked_at + self._timeout
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
                self._options, self._is_locked = replace(self._options, read_only=True), True
            first = begin_statements(self._isolation, self._tenant_state.tenant.spec, self._options)
            # What is run without a transaction no rollback would undo.
            ahead = first if self._options.transaction else ""
            remaining = deadline - monotonic()
            connection = await pool.acquire(
                self._tenant_state, remaining, ahead, borrower, slot_seconds
            )
            if await self._begin(pool, connection, self._before_work(connection, first, asked_at)):
                break
            if monotonic() >= deadline:
                raise PoolTimeout("No working connection was found in time.")
        self._pool, self._connection = pool, connection
        # What begins it unseen by asyncpg is ours, and needs no protection from late use.
        return connection.attach_proxy() if self._work is None else connection.raw

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the connection back clean, or close it."""
        connection = self._connection
        clean = False
        try:
            if kind is None:
                clean = await self._clean_up(connection, commit=True)
            elif isinstance(error, _FOUND_READ_ONLY) and not self._options.read_only:
                # The server may have become a standby behind our back.
                self._pool.server.recheck()
            elif _leaves_connection_usable(error):
                # The borrower's own error must reach its caller, whatever becomes of the rest.
                with suppress(LeaseLost, StatementFailed):
                    clean = await self._clean_up(connection, commit=False)
                    if not clean and isinstance(error, asyncpg.PostgresError | StatementFailed):
                        raise _no_schema(self._tenant_state) from error
        finally:
            ended = connection.termination_reason
            connection.detach_proxy()
            self._pool.release(connection, reusable=clean)
        if self._is_locked and isinstance(error, _FOUND_READ_ONLY):
            raise ServerReadOnly from error
        if ended and _is_postgres_own(error):
            raise TooManyLocks(f"The statement was ended. {ended}", sqlstate=_CANCELLED) from error

    def _before_work(self, connection: PooledConnection, first: str, asked_at: float) -> str:
        """What is to be run on *connection* yet, before the work; empty if nothing.

        A transaction begun before the borrower asked is not for it: its now() would lie before.
        """
        if connection.prefetched:
            is_meant = connection.prefetched == first and connection.prefetched_at >= asked_at
            connection.mark_prefetched("", 0.0)
            if is_meant and connection.is_connected():
                return ""
            return "; ".join(filter(None, ("ROLLBACK", first)))
        if not connection.is_prepared:
            preparation = self._isolation.session_setup(self._tenant_state.tenant.spec)
            return "; ".join(filter(None, ("BEGIN", preparation, "COMMIT", first)))
        return first or ("" if _was_just_used(connection) else _TEST)

    async def _begin(self, pool: Pool, connection: PooledConnection, statements: str) -> bool:
        """Make the first round trip; False if the connection turned out to be dead.

        Counted as a use of that connection like any other, so every acquisition has its release.
        """
        begun = usable = False
        try:
            if statements or self._work is not None:
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
            # Kept for the next lease, which asks again.
            with suppress(*driver.CONNECTION_ERRORS):
                await connection.run("ROLLBACK")
                usable = True
            raise _no_schema(self._tenant_state) from error
        finally:
            pool.statement_deadlines.end(connection)
            if not begun:
                pool.release(connection, reusable=usable)
        return True

    async def _begin_work(self, connection: PooledConnection, statements: str, work: Work) -> None:
        """Begin the lease with its work, and end it with that too, if it can be."""
        options, ending = self._options, None
        if options.transaction and work.ends_at_once(read_only=options.read_only):
            ending = ending_of(self._isolation, self._tenant_state.tenant.spec)
            if not (options.read_only or _was_just_used(connection)):
                # If it is dead, the work must not be lost with it: it may be stored by then.
                await connection.run(_TEST)
        await work.begin(connection.raw, statements, ending)
        self._is_end_sent = ending is not None

    async def _clean_up(self, connection: PooledConnection, *, commit: bool) -> bool:
        """End the transaction; False if the session cannot be used any more afterwards.

        If the tenant's schema was found missing, every connection of the pool is replaced, and a
        new one lets no lease begin.
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
        """Whether its commit is known to be done: what failed came after it."""
        if self._watch is not None:
            return self._watch.has_committed
        return self._work is not None and self._is_end_sent and self._work.is_committed

    async def _was_ended(self, *, commit: bool) -> bool:
        """Whether its end was sent with its work, and left nothing to do.

        Raises what asyncpg would of a failed one, if the work was to be committed.
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
        """Raises what asyncpg does."""
        ahead = ""
        if self._options.transaction and not self._options.read_only:
            # It takes writes, so BEGIN cannot fail, and no other lease's failure appears here.
            ahead = self._pool.prefetch_for_next(connection)
        statements = end_statements(
            self._isolation,
            self._tenant_state.tenant.spec,
            transaction=self._options.transaction,
            commit=commit,
            begin_next=ahead,
        )
        sent_at = monotonic()
        if commit and self._options.transaction:
            self._watch = CommitWatch(connection.raw)
        with self._watch or nullcontext():
            await connection.run(statements)
        connection.mark_prefetched(ahead, sent_at)


def begin_statements(isolation: IsolationStrategy, spec: TenantSpec, options: LeaseOptions) -> str:
    """The statements before the work, for one round trip."""
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


def _no_schema(tenant_state: TenantState) -> SchemaMissing:
    name = tenant_state.tenant.spec.id.object_name
    return SchemaMissing(
        f"The schema {name} does not exist, or the role {name} may not use it: it was dropped, "
        "renamed or closed. Provision the tenant again."
    )


def _is_postgres_own(error: BaseException | None) -> bool:
    """Whether *error* is the statement's or the connection's, and not the borrower's own."""
    return isinstance(error, (PoolkeeperError, asyncpg.PostgresError, *driver.CONNECTION_ERRORS))


def _leaves_connection_usable(error: BaseException | None) -> bool:
    """Whether work that ended with *error* left no statement half done, or none missing."""
    if isinstance(error, driver.CONNECTION_ERRORS) or not isinstance(error, Exception):
        return False
    # Somebody deallocated the statements that asyncpg believes to be prepared.
    return getattr(error, "sqlstate", None) != _UNKNOWN_STATEMENT
