"""The query runner: runs statements in one transaction on a leased connection.

It does not know HTTP.
"""

import asyncio
import re
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic
from typing import Generic

import asyncpg

from app.domain.errors import (
    LeaseLost,
    PoolkeeperError,
    QueryTimeout,
    ReadOnly,
    SchemaChanged,
    StatementEndedLease,
    StatementFailed,
)
from app.pools import driver
from app.pools.query.descriptions import OutdatedDescription
from app.pools.query.rows import MAX_BYTES, PORTAL
from app.pools.query.statement import Result, Statement
from app.pools.query.too_large import PROGRAM_LIMIT_EXCEEDED, results_too_large
from app.pools.query.unsupported import command_of
from app.pools.session_reset import LEFT_CONTEXT, is_failed_check
from app.wire.backend_messages import ServerError
from app.wire.extended_query import CopyAttempted, Ending, ExtendedQuery
from app.wire.reply import Reply

# In seconds. The server cancels the statement first. We cancel it this much later, and terminate
# the connection if the statement does not end within the deadline.
_GRACE = 1.0
_CANCEL_DEADLINE = 2.0
# The server counts whole milliseconds; we do not.
_ROUNDING = 0.002
# The limit for rows as they arrive, in bytes: rows that fit as JSON are never longer, even with one
# short column.
_MAX_ROW_BYTES = MAX_BYTES * 3 // 2
# How Postgres 16 and later name the parameter that an error is about, in English. A value may
# follow, so only so many characters are searched.
_MAX_CONTEXT = 10_000
_OF_PARAMETER = re.compile(rf'^portal "{PORTAL}" parameter (\$\d+)', re.MULTILINE)
# Only records without a type are fetched in binary form, and their values sent back in it.
_BINARY_OUTPUT, _BINARY_INPUT = frozenset({"getTypeBinaryOutputInfo", "array_send"}), "_recv"
_NOT_IN_RECORDS = "A record without a type cannot contain it: cast it to text."
_CANCELLED = "canceling statement due to user request"
# Statements with these command tags change something only in functions that they call.
_READS = frozenset({"SELECT", "SHOW", "TABLE", "VALUES"})


class Query(Generic[Result]):
    """Statements to be run once, one after the other."""

    def __init__(self, statements: Sequence[Statement[Result]], *, timeout: float) -> None:
        """Run *statements*, at least one; together they may take *timeout* seconds.

        Raises:
            StatementEndedLease: the first one would end the transaction.
            StatementFailed: it is not supported, or a parameter does not fit.
        """
        self._statements = statements
        self._timeout = timeout
        try:
            self._opening = statements[0].opening()
        except PoolkeeperError as error:
            if len(statements) > 1:
                error.locate(0)
            raise
        self._begun: ExtendedQuery | None = None
        self._is_ended = False
        self._began_at = 0.0

    def ends_at_once(self, *, read_only: bool) -> bool:
        """Whether, as far as known, nothing is left to run after what `begin` sends."""
        first = self._statements[0]
        return len(self._statements) == 1 and first.ends_at_once(read_only=read_only)

    async def begin(
        self, connection: asyncpg.Connection, statements: str, ending: Ending | None
    ) -> None:
        """Begin a lease with *statements*, open the query, and perhaps end the lease with *ending*.

        This is one round trip.

        Raises:
            asyncpg.PostgresError, OSError: *statements* failed, and nothing is stored.
            LeaseLost: the connection broke, and what was sent may be stored.
        """
        query = ExtendedQuery(connection)
        self._began_at = monotonic()
        self._is_ended = ending is not None
        try:
            await query.begin(
                statements,
                *self._opening,
                max_row_bytes=_MAX_ROW_BYTES,
                ending=ending,
                cancels_excess=self._may_be_stored,
            )
        except ServerError as error:
            raise asyncpg.PostgresError.new(error.fields) from error
        except OSError as error:
            if self._may_be_stored:
                raise LeaseLost from error
            raise
        self._begun = query

    async def wait_ended(self) -> None:
        """Wait until the *ending* of `begin` has run.

        Raises:
            asyncpg.PostgresError, OSError: it failed.
        """
        if self._begun is not None:
            try:
                await self._begun.wait_ended()
            except ServerError as error:
                raise asyncpg.PostgresError.new(error.fields) from error

    @property
    def is_committed(self) -> bool:
        """Whether the commit, the first statement of *ending*, is known to be done."""
        return self._begun is not None and self._begun.has_ending_begun

    @property
    def _may_be_stored(self) -> bool:
        """Whether the work may be committed before any response has come back."""
        return self._is_ended and self._statements[0].ends_at_once(read_only=False)

    async def run(self, connection: asyncpg.Connection) -> list[Result]:
        """Run them on a leased *connection*, where the first may have begun; return their results.

        After a failure nothing more runs, and the lease must roll back.

        Raises:
            StatementFailed: Postgres refused a statement, or a parameter or a result does not fit.
            StatementConflict: another transaction was in its way.
            StatementEndedLease: it ended the transaction, or would have.
            SchemaChanged: its types changed in the meantime.
            OutdatedDescription: its types had changed before; run it again.
            ReadOnly: it writes and the lease is read-only.
            QueryTimeout: they ran longer than their timeout.
            LeaseLost: the connection broke.
        """
        results: list[Result] = []
        try:
            await self._run(connection, results)
        except PoolkeeperError as error:
            if len(self._statements) > 1:
                # The statement without a result.
                error.locate(len(results))
            raise
        return results

    async def _run(self, connection: asyncpg.Connection, results: list[Result]) -> None:
        """Run them; translate failures into this project's errors."""
        if self._begun is None:
            self._began_at = monotonic()
        try:
            with self._begun or ExtendedQuery(connection) as query:
                try:
                    if self._is_ended and query.has_reply:
                        await self._run_all(query, results)
                        return
                    async with asyncio.timeout(self._timeout + _GRACE):
                        await self._run_all(query, results)
                except TimeoutError as error:
                    await query.wait_idle(_CANCEL_DEADLINE)
                    if self._may_be_stored and query.reply.error is None:
                        raise LeaseLost from error
                    raise _timed_out(self._timeout) from error
        except CopyAttempted as error:
            raise StatementFailed("COPY is not supported here.", sqlstate="0A000") from error
        except ServerError as error:
            raise _failure(error, self._timeout, monotonic() - self._began_at) from error
        except OSError as error:
            raise LeaseLost from error

    async def _run_all(self, query: ExtendedQuery, results: list[Result]) -> None:
        room = MAX_BYTES
        for statement in self._statements:
            opened = await self._open(query, statement, is_first=not results, room=room)
            try:
                result = await statement.run(query, opened, max_bytes=room)
            except StatementFailed as error:
                if self._may_be_stored:
                    # A cancellation may be on its way; it must not hit another statement.
                    await query.wait_idle(_CANCEL_DEADLINE)
                    if query.has_ending_begun:
                        error.suggest(_stored(statement.sql, error))
                    else:
                        # Its commit failed, perhaps because of that; or the outcome is unknown.
                        with suppress(ServerError):
                            await query.wait_ended()
                raise
            results.append(result)
            room -= result.size
            if room < 0 and len(results) > 1:
                raise results_too_large()

    async def _open(
        self, query: ExtendedQuery, statement: Statement[Result], *, is_first: bool, room: int
    ) -> Reply:
        try:
            if self._begun is not None and is_first:
                opened = await query.receive()
            else:
                opening = self._opening if is_first else statement.opening()
                opened = await query.exchange(*opening, max_row_bytes=room)
        except ServerError as error:
            if query.reply.is_truncated and self._may_be_stored:
                # It was cancelled, and rolled back.
                await query.wait_idle(_CANCEL_DEADLINE)
                raise results_too_large() from error
            if query.reply.is_executed and is_failed_check(error.sqlstate):
                raise StatementEndedLease(LEFT_CONTEXT) from error
            if statement.is_outdated(query.reply):
                raise OutdatedDescription from error
            raise
        if statement.is_outdated(opened) or (self._is_ended and statement.is_cut(opened)):
            raise OutdatedDescription
        return opened


def _stored(sql: str, error: StatementFailed) -> str:
    """Say that a statement was committed although its result is lost."""
    cure = "Return less, for example with LIMIT. " * (error.sqlstate == PROGRAM_LIMIT_EXCEEDED)
    if command_of(sql) in _READS:
        return f"{cure}If a function that it called changed anything, that is stored."
    return f"{cure}What the statement changed is stored."


def _timed_out(timeout: float) -> QueryTimeout:
    return QueryTimeout(f"The statement ran longer than {timeout:g} s. Nothing was changed.")


def _failure(error: ServerError, timeout: float, elapsed: float) -> Exception:
    """Translate the server's error.

    The SQLSTATE is not enough, because a function may raise any: the raising routine counts.
    """
    if error.is_fatal:
        # Such as a `transaction_timeout` that somebody set for the database.
        return LeaseLost(
            f"Postgres ended the connection: {error.message}. Whether the work was committed is "
            "unknown."
        )
    # If messages are in another language, only the clock tells who cancelled it.
    is_cancelled = (
        error.sqlstate == "57014"
        and error.routine == "ProcessInterrupts"
        and error.message != _CANCELLED
    )
    if is_cancelled and elapsed >= timeout - _ROUNDING:
        return _timed_out(timeout)
    if error.sqlstate == "25006" and error.routine.startswith("PreventCommand"):
        return ReadOnly(f"The request is read-only: {error.message}")
    # DDL ran between preparation and execution.
    if error.sqlstate == "0A000" and error.routine == "RevalidateCachedQuery":
        return SchemaChanged()
    if _is_of_dropped_object(error):
        return SchemaChanged()
    position = error.fields.get("P", "")
    return driver.failure_of(
        error.sqlstate,
        error.message,
        hint=_hint(error),
        position=int(position) if position.isdigit() else None,
        fields=error.fields,
    )


def _is_of_dropped_object(error: ServerError) -> bool:
    """Whether Postgres itself missed an object that it has just seen, rather than a `RAISE`."""
    is_internal = error.sqlstate == "XX000" and error.routine != "exec_stmt_raise"
    return is_internal and error.message.startswith("cache lookup failed")


def _hint(error: ServerError) -> str | None:
    """Postgres' hint, or ours; and, if it is known, the parameter that the error is about."""
    if error.routine in _BINARY_OUTPUT or error.routine.endswith(_BINARY_INPUT):
        return _NOT_IN_RECORDS
    found = _OF_PARAMETER.search(error.fields.get("W", ""), 0, _MAX_CONTEXT)
    hints = (f"The value of {found[1]} was refused." if found else "", error.fields.get("H"))
    return " ".join(filter(None, hints)) or None
