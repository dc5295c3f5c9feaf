"""A lease: one borrower's use of one connection inside one tenant's context.

One round trip before the work (begin, context) and one after it (proof that the context is
still in place, commit or rollback, reset). The reset leaves nothing to the next borrower but
SQL-level PREPARE, which only a new connection forgets: trusted SQL in the shared strategy,
the tenant's own business in the others. The first round trip also shows whether the
connection still works, so no other test is needed; a dead one is replaced unseen.

While callers wait, the round trip after the work also begins the lease that will probably be
next, which then needs none of its own. Who is next is decided afterwards, as ever: whoever
comes instead rolls back what was begun, and begins anew. The now() of such a lease is the time
of that round trip's beginning, always after its borrower asked.
"""

from __future__ import annotations

from contextlib import suppress
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
from app.domain.tenant import TenantSpec
from app.pools import driver
from app.pools.connection import PooledConnection
from app.pools.isolation import IsolationStrategy, is_schema_missing
from app.pools.leak_detection import Borrower
from app.pools.pool import Pool
from app.pools.tenant_state import TenantState

# SET SESSION AUTHORIZATION DEFAULT undoes SET ROLE as well; RESET ALL does not. Advisory locks
# are given up by the strategy's own statement.
RESET = (
    "CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *; "
    "DISCARD TEMP; DISCARD SEQUENCES"
)
# Said outright, for a role may have made read-only its default: a tenant's role, or the owner of
# its database, is no hoster. What a hoster sets is seen by the admin, see `ServerLimits`.
_BEGIN = "BEGIN READ WRITE"
# What begin and cleanup may take, in seconds, before the connection counts as broken.
_BEGIN_DEADLINE = 2.0
_CLEANUP_DEADLINE = 5.0
# A connection used more recently than this, in seconds, need not be tested before its use.
_BYPASS_WINDOW = 0.5
# Of a statement, in seconds: Postgres counts milliseconds in 31 bits.
_LONGEST_TIMEOUT = 2_147_483
_UNKNOWN_STATEMENT = "26000"
_CANCELLED = "57014"
# What a strategy's proof fails with.
_FAILED_PROOF = (asyncpg.DivisionByZeroError, asyncpg.InvalidTextRepresentationError)
_FOUND_READ_ONLY = (asyncpg.ReadOnlySQLTransactionError, ReadOnly)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseOptions:
    """How a borrower wants to work.

    Attributes:
        transaction: whether the whole lease is one transaction; without one, there is no
            tenant context, so a shared pool offers only True.
        read_only: whether writes are refused.
        statement_timeout: seconds one statement may take, None for the role's own limit.
    """

    transaction: bool = True
    read_only: bool = False
    statement_timeout: float | None = None


DEFAULT_OPTIONS = LeaseOptions()


class PoolSource(Protocol):
    """Where a lease finds its tenant's pool; the manager."""

    async def open_pool(self, account: TenantState, timeout: float) -> Pool:
        """The tenant's pool, opened if need be, within *timeout* seconds."""


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
    """

    __slots__ = (
        "_account",
        "_connection",
        "_is_locked",
        "_isolation",
        "_pool",
        "_source",
        "_terms",
        "_timeout",
    )

    def __init__(
        self,
        source: PoolSource,
        account: TenantState,
        isolation: IsolationStrategy,
        *,
        options: LeaseOptions,
        timeout: float,
    ) -> None:
        """Prepare a lease for *account*; nothing is borrowed before it is entered.

        Raises:
            InvalidInput: for a shared tenant without a transaction; for a timeout that Postgres
                does not take.
        """
        if not 0 <= (options.statement_timeout or 0) <= _LONGEST_TIMEOUT:
            raise InvalidInput("statement_timeout must be between 0 and 2147483 seconds.")
        if account.tenant.spec.is_shared and not options.transaction:
            raise InvalidInput("A shared pool lends connections inside a transaction only.")
        self._source = source
        self._account = account
        self._isolation = isolation
        self._terms = options
        self._timeout = timeout
        self._is_locked = False

    async def __aenter__(self) -> asyncpg.Connection:
        """Borrow a connection that has proved to work, inside the tenant's context."""
        borrower = Borrower()
        asked_at = monotonic()
        deadline = asked_at + self._timeout
        while True:
            remaining = deadline - monotonic()
            pool = await self._source.open_pool(self._account, remaining)
            limits = pool.server.limits
            if limits is not None and limits.read_only and not self._terms.read_only:
                self._terms, self._is_locked = replace(self._terms, read_only=True), True
            first = opening(self._isolation, self._account.tenant.spec, self._terms)
            # What is run without a transaction no rollback would undo.
            ahead = first if self._terms.transaction else ""
            connection = await pool.acquire(self._account, deadline - monotonic(), ahead)
            if await self._begin(pool, connection, self._missing(connection, first, asked_at)):
                break
            if monotonic() >= deadline:
                raise PoolTimeout("No working connection was found in time.")
        self._pool, self._connection = pool, connection
        return connection.attach_proxy(borrower)

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
            elif isinstance(error, _FOUND_READ_ONLY) and not self._terms.read_only:
                # The server may have become a standby behind our back.
                self._pool.server.recheck()
            elif _leaves_connection_usable(error):
                # The borrower's own error must reach its caller, whatever becomes of the rest.
                with suppress(LeaseLost, StatementFailed):
                    clean = await self._clean_up(connection, commit=False)
                    if not clean and isinstance(error, asyncpg.PostgresError | StatementFailed):
                        raise _no_schema(self._account) from error
        finally:
            ended = connection.termination_reason
            connection.detach_proxy()
            self._pool.release(connection, reusable=clean)
        if self._is_locked and isinstance(error, _FOUND_READ_ONLY):
            raise ServerReadOnly from error
        if ended and _is_postgres_own(error):
            raise TooManyLocks(f"The statement was ended. {ended}", sqlstate=_CANCELLED) from error

    def _missing(self, connection: PooledConnection, first: str, asked_at: float) -> str:
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
            preparation = self._isolation.session_setup(self._account.tenant.spec)
            return "; ".join(filter(None, ("BEGIN", preparation, "COMMIT", first)))
        if not first and connection.leased_at - connection.idle_since > _BYPASS_WINDOW:
            return "SELECT 1"
        return first

    async def _begin(self, pool: Pool, connection: PooledConnection, statements: str) -> bool:
        """Make the first round trip; False if the connection turned out to be dead.

        Counted as a use of that connection like any other, so every acquisition has its release.
        """
        begun = usable = False
        try:
            if statements:
                pool.statement_deadlines.begin(connection, _BEGIN_DEADLINE)
                await connection.run(statements)
            connection.mark_prepared()
            if self._terms.transaction:
                connection.mark_in_transaction()
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
            raise _no_schema(self._account) from error
        finally:
            pool.statement_deadlines.end(connection)
            if not begun:
                pool.release(connection, reusable=usable)
        return True

    async def _clean_up(self, connection: PooledConnection, *, commit: bool) -> bool:
        """End the transaction; False if the tenant's schema was found missing afterwards.

        Then every connection of the pool is replaced, and a new one lets no lease begin.
        """
        connection.detach_proxy()
        raw = connection.raw
        if not connection.is_connected():
            raise LeaseLost
        if self._terms.transaction and commit and not raw.is_in_transaction():
            raise StatementEndedLease
        ahead = ""
        if self._terms.transaction and not self._terms.read_only:
            # It takes writes, so to begin cannot fail, and nobody else's failure be told here.
            ahead = self._pool.prefetch_for_next(connection)
        spec = self._account.tenant.spec
        statements = closing(self._isolation, spec, self._terms, commit=commit, ahead=ahead)
        self._pool.statement_deadlines.begin(connection, _CLEANUP_DEADLINE)
        sent_at = monotonic()
        try:
            await connection.run(statements)
            connection.mark_prefetched(ahead, sent_at)
        except (*driver.CONNECTION_ERRORS, asyncpg.PostgresError, UnicodeDecodeError) as error:
            if isinstance(error, asyncpg.PostgresError) and is_schema_missing(error):
                self._pool.recycle()
                return False
            raise _failed_end(error, connection) from error
        finally:
            self._pool.statement_deadlines.end(connection)
        return True


def opening(isolation: IsolationStrategy, spec: TenantSpec, terms: LeaseOptions) -> str:
    """The statements before the work, for one round trip."""
    context = isolation.context_setup(spec)
    if terms is DEFAULT_OPTIONS:
        return f"{_BEGIN}; {context}" if context else _BEGIN
    local = "LOCAL " if terms.transaction else ""
    statements = []
    if terms.transaction:
        statements.append("BEGIN READ ONLY" if terms.read_only else _BEGIN)
        statements.append(context)
    elif terms.read_only:
        statements.append("SET default_transaction_read_only = on")
    if terms.statement_timeout is not None:
        milliseconds = max(1, round(terms.statement_timeout * 1000))
        statements.append(f"SET {local}statement_timeout = {milliseconds}")
    return "; ".join(filter(None, statements))


def closing(
    isolation: IsolationStrategy,
    spec: TenantSpec,
    terms: LeaseOptions,
    *,
    commit: bool,
    ahead: str = "",
) -> str:
    """The statements after the work, for one round trip; a failing proof prevents the commit.

    With *ahead*, what the next lease begins with, the reset is a transaction of its own: without
    that it would be part of the next lease's, and undone if that is rolled back.
    """
    end = f"{isolation.context_check(spec)}; COMMIT" if commit and terms.transaction else "ROLLBACK"
    if ahead:
        return f"{end}; {_BEGIN}; {RESET}; {isolation.advisory_unlock(spec)}; COMMIT; {ahead}"
    return f"{end}; {RESET}; {isolation.advisory_unlock(spec)}"


def _no_schema(account: TenantState) -> SchemaMissing:
    name = account.tenant.spec.id.object_name
    return SchemaMissing(
        f"The schema {name} does not exist, or the role {name} may not use it: it was dropped, "
        "renamed or closed. Provision the tenant again."
    )


def _failed_end(error: BaseException, connection: PooledConnection) -> PoolkeeperError:
    """What became of a transaction whose end failed.

    While it is open, the proof failed; otherwise its commit did, or what came after it. Code that
    a commit runs, of deferred triggers, has a context, and may raise any SQLSTATE: those of lost
    connections and of failed proofs too.
    """
    is_open = connection.raw.is_in_transaction()
    is_rolled_back = is_open or bool(getattr(error, "context", None))
    is_lost = isinstance(error, (*driver.CONNECTION_ERRORS, asyncpg.QueryCanceledError))
    if not isinstance(error, asyncpg.PostgresError) or not connection.is_connected():
        return LeaseLost()
    if is_lost and not is_rolled_back:
        return LeaseLost()
    if is_open and isinstance(error, _FAILED_PROOF):
        return StatementEndedLease()
    if is_open and isinstance(error, asyncpg.InFailedSQLTransactionError):
        return StatementFailed(
            "An earlier statement of the transaction failed; it was rolled back.",
            sqlstate=error.sqlstate,
        )
    return driver.statement_failure(error)


def _is_postgres_own(error: BaseException | None) -> bool:
    """Whether *error* tells of the statement or the connection, rather than of the borrower."""
    return isinstance(error, (PoolkeeperError, asyncpg.PostgresError, *driver.CONNECTION_ERRORS))


def _leaves_connection_usable(error: BaseException | None) -> bool:
    """Whether work that ended with *error* left no statement half done, or none missing."""
    if isinstance(error, driver.CONNECTION_ERRORS) or not isinstance(error, Exception):
        return False
    # Somebody deallocated the statements that asyncpg believes to be prepared.
    return getattr(error, "sqlstate", None) != _UNKNOWN_STATEMENT
