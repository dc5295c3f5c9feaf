"""Tables of desired state: each row has a generation that counts its changes.

One class writes all of them, so that all treat If-Match, repetition and races alike.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import RowMapping, Table, and_, false, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.catalog.audit_log import record
from app.catalog.database import Database
from app.domain.audit import AuditEvent
from app.domain.errors import CatalogUnavailable, ImmutableField, StaleVersion

# Unconfirmed creations that are remembered of a table; a client repeats a request soon.
_MOST = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteResult:
    """A row after the write, and what the write did."""

    row: RowMapping
    created: bool
    changed: bool


class VersionedTable:
    """Optimistic writes of one table with a `generation` and an `updated_at`."""

    def __init__(self, database: Database, table: Table) -> None:
        self._database = database
        self._table = table
        # Keys of rows whose creation may have been committed, though the response was lost.
        self._unconfirmed: dict[Any, None] = {}

    async def write(
        self,
        *,
        fixed: Mapping[str, Any],
        values: Mapping[str, Any],
        event: AuditEvent | None,
        expected_generation: int | None,
        also: Callable[[AsyncConnection], Awaitable[None]] | None = None,
    ) -> WriteResult:
        """Insert the row, change it, or leave an identical one alone, in a transaction.

        The row stays locked until the transaction ends: of two callers that expect the same
        generation, the second one finds another.

        Args:
            fixed: columns set once, among them the primary key.
            values: columns that may change; a change makes the generation grow by one.
            event: recorded in the same transaction, if anything changes.
            expected_generation: 0: the row must not exist; None: no version check.
            also: done in the same transaction, whether anything changes or not.

        Raises:
            StaleVersion: the row's generation is not the expected one, and this write did not make
                it.
            ImmutableField: the row has another value in one of the *fixed* columns.
        """
        [key] = (fixed[column.name] for column in self._table.primary_key)
        async with (
            self._creation(key, expected_generation) as expected,
            self._database.transaction() as connection,
        ):
            written = await _write(connection, self._table, fixed, values, expected)
            if written.changed and event is not None:
                await record(connection, event)
            if also is not None:
                await also(connection)
            return written

    @asynccontextmanager
    async def _creation(
        self, key: object, expected_generation: int | None
    ) -> AsyncIterator[int | None]:
        """Around a write's transaction: the generation that it is to expect, None for any.

        Nobody knows of a creation without a response, and reads do not show it either: it can be
        repeated, also by who creates and never changes.
        """
        is_repetition = expected_generation == 0 and key in self._unconfirmed
        try:
            yield None if is_repetition else expected_generation
        except CatalogUnavailable:
            if not expected_generation:
                self._unconfirmed[key] = None
                if len(self._unconfirmed) > _MOST:
                    del self._unconfirmed[next(iter(self._unconfirmed))]
            raise
        self._unconfirmed.pop(key, None)


async def _write(
    connection: AsyncConnection,
    table: Table,
    fixed: Mapping[str, Any],
    values: Mapping[str, Any],
    expected: int | None,
) -> WriteResult:
    if not expected:
        fresh = await _insert_or_lock(connection, table, {**fixed, **values})
        if fresh is not None:
            return WriteResult(row=fresh, created=True, changed=True)
    this_row = and_(*(column == fixed[column.name] for column in table.primary_key))
    result = await connection.execute(select(table).where(this_row).with_for_update())
    row = result.mappings().one_or_none()
    if row is None or not (
        expected in (None, row["generation"]) or _is_repetition(row, {**fixed, **values}, expected)
    ):
        raise StaleVersion
    for name, value in fixed.items():
        if row[name] != value:
            raise ImmutableField(f"The {name} is {row[name]} and cannot change.")
    if all(row[name] == value for name, value in values.items()):
        return WriteResult(row=row, created=False, changed=False)
    change = (
        update(table)
        .where(this_row)
        .values(**values, generation=table.c.generation + 1, updated_at=func.now())
    )
    result = await connection.execute(change.returning(table))
    return WriteResult(row=result.mappings().one(), created=False, changed=True)


def _is_repetition(row: RowMapping, written: Mapping[str, Any], expected: int | None) -> bool:
    """Whether *row* is what the same write made of the *expected* generation.

    The response to its commit may have been lost: then that one is all that its caller knows. Of
    several who create the row, still only one does.
    """
    if not expected:
        return False
    is_next: bool = row["generation"] == expected + 1
    return is_next and all(row[name] == value for name, value in written.items())


async def _insert_or_lock(
    connection: AsyncConnection, table: Table, values: Mapping[str, Any]
) -> RowMapping | None:
    """Insert the row and return it; lock an existing one without changing it."""
    key = [column.name for column in table.primary_key]
    statement = (
        insert(table)
        .values(**values)
        .on_conflict_do_update(
            index_elements=key, set_={name: values[name] for name in key}, where=false()
        )
        .returning(table)
    )
    row: RowMapping | None = (await connection.execute(statement)).mappings().one_or_none()
    return row
