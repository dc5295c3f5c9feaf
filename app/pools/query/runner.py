"""The query runner: statements of one transaction on a leased connection.

Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import monotonic
from typing import Generic

import asyncpg

from app.domain.errors import (
    LeaseLost,
    PoolkeeperError,
    QueryTimeout,
    ReadOnly,
    SchemaChanged,
    StatementFailed,
)
from app.pools import driver
from app.pools.query.descriptions import OutdatedDescription
from app.pools.query.rows import MAX_BYTES
from app.pools.query.statement import Result, Statement
from app.wire.backend_messages import ServerError
from app.wire.extended_query import CopyAttempted, ExtendedQuery

# Seconds. The server cancels the statement first; we do so this much later, and terminate the
# connection if the statement does not end within the deadline.
_GRACE = 1.0
_CANCEL_DEADLINE = 2.0
# The server counts whole milliseconds, we do not.
_ROUNDING = 0.002
_CANCELLED = "canceling statement due to user request"


class Query(Generic[Result]):
    """Statements, to be run once, one after the other."""

    def __init__(self, statements: Sequence[Statement[Result]], *, timeout: float) -> None:
        """Run *statements*, at least one; together they may take *timeout* seconds.

        Raises:
            StatementEndedLease: the first one would end the transaction.
            StatementFailed: it is not supported, or a parameter of it does not fit.
        """
        self._statements = statements
        self._timeout = timeout
        try:
            self._opening = statements[0].opening()
        except PoolkeeperError as error:
            if len(statements) > 1:
                error.statement = 0
            raise
        self._begun: ExtendedQuery | None = None
        self._is_ended = False
        self._began_at = 0.0

    @property
    def ends_at_once(self) -> bool:
        """Whether, as far as known, nothing is to be run after what `begin` sends."""
        return len(self._statements) == 1 and self._statements[0].ends_at_once

    async def begin(self, connection: asyncpg.Connection, statements: str, ending: str) -> None:
        """Begin a lease by *statements*, open the first one, and end the lease if that is known.

        All of it is one round trip.

        Raises:
            asyncpg.PostgresError, OSError: *statements* failed.
        """
        query = ExtendedQuery(connection)
        self._began_at = monotonic()
        self._is_ended = bool(ending)
        try:
            await query.begin(statements, *self._opening, max_row_bytes=MAX_BYTES, ending=ending)
        except ServerError as error:
            raise asyncpg.PostgresError.new(error.fields) from error
        self._begun = query

    async def wait_ended(self) -> None:
        """Wait until the *ending* of `begin` was run.

        Raises:
            asyncpg.PostgresError, OSError: it failed.
        """
        if self._begun is not None:
            try:
                await self._begun.wait_ended()
            except ServerError as error:
                raise asyncpg.PostgresError.new(error.fields) from error

    @property
    def is_in_transaction(self) -> bool:
        """Whether the transaction is open yet, after what `begin` sent."""
        return self._begun is not None and self._begun.is_in_transaction

    async def run(self, connection: asyncpg.Connection) -> list[Result]:
        """Run them on a leased *connection*, where the first may have begun; their results.

        After the first failure nothing more is run, and the lease must roll back.

        Raises:
            StatementFailed: Postgres refused one, or a parameter or a result does not fit.
            StatementConflict: another transaction was in its way.
            StatementEndedLease: it would end the transaction, or did.
            SchemaChanged: its types changed meanwhile.
            OutdatedDescription: they had changed before; run it again.
            ReadOnly: it writes and the lease is read-only.
            QueryTimeout: they ran longer than their timeout.
            LeaseLost: the connection broke.
        """
        results: list[Result] = []
        try:
            await self._run(connection, results)
        except PoolkeeperError as error:
            if len(self._statements) > 1:
                # The one that lacks its result.
                error.statement = len(results)
            raise
        return results

    async def _run(self, connection: asyncpg.Connection, results: list[Result]) -> None:
        """Run them; failures become this project's errors."""
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
            try:
                if self._begun is not None and not results:
                    opened = await query.receive()
                else:
                    opening = statement.opening() if results else self._opening
                    opened = await query.exchange(*opening, max_row_bytes=room)
            except ServerError as error:
                if statement.is_outdated(query.reply):
                    raise OutdatedDescription from error
                raise
            if statement.is_outdated(opened) or (self._is_ended and statement.is_cut(opened)):
                raise OutdatedDescription
            result = await statement.run(query, opened, max_bytes=room)
            results.append(result)
            room -= result.size
            if room < 0 and len(results) > 1:
                raise StatementFailed("The results are larger than 8 MiB.", sqlstate="54000")


def _timed_out(timeout: float) -> QueryTimeout:
    return QueryTimeout(f"The statement ran longer than {timeout:g} s.")


def _failure(error: ServerError, timeout: float, elapsed: float) -> Exception:
    """What the server's error means.

    The SQLSTATE is not enough, since a function may raise any: the routine that raised it counts.
    """
    if error.is_fatal:
        return LeaseLost()
    # Where messages are in another language, only the clock tells whose cancellation it was.
    is_cancelled = (
        error.sqlstate == "57014"
        and error.routine == "ProcessInterrupts"
        and error.message != _CANCELLED
    )
    if is_cancelled and elapsed >= timeout - _ROUNDING:
        return _timed_out(timeout)
    if error.sqlstate == "25006" and error.routine.startswith("PreventCommand"):
        return ReadOnly(f"The request is read-only: {error.message}")
    # DDL between what was prepared and its execution.
    if error.sqlstate == "0A000" and error.routine == "RevalidateCachedQuery":
        return SchemaChanged()
    if error.sqlstate == "XX000" and error.message.startswith("cache lookup failed"):
        return SchemaChanged()
    position = error.fields.get("P", "")
    return driver.failure_of(
        error.sqlstate,
        error.message,
        hint=error.fields.get("H"),
        position=int(position) if position.isdigit() else None,
        fields=error.fields,
    )
