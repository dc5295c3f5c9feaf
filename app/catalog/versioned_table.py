"""Tables of desired state: each row has a generation that counts its changes.

One class writes all of them, so that If-Match, repetitions and races work the same everywhere.
"""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar, Generic, TypeVar

from sqlalchemy import RowMapping, Table, and_, false, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.catalog.audit_log import record
from app.catalog.database import Database, Store
from app.catalog.in_doubt_writes import InDoubtWrites
from app.domain.audit import AuditEvent
from app.domain.errors import ImmutableField, StaleVersion

K = TypeVar("K")
V = TypeVar("V")


class VersionedTable(Store, ABC, Generic[K, V]):
    """Values that are rows of a table with the columns `generation` and `updated_at`."""

    table: ClassVar[Table]

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._writes: InDoubtWrites[K] = InDoubtWrites(database)

    @abstractmethod
    def _value(self, row: RowMapping) -> V:
        """The value of a row."""

    async def load(self) -> tuple[V, ...]:
        """Load all of them, by their keys."""
        statement = select(self.table).order_by(*self.table.primary_key)
        return await self._database.load(statement, self._value)

    @property
    def in_doubt(self) -> tuple[K, ...]:
        """Keys of rows that `read` may find changed, by a write whose response was lost."""
        return self._writes.keys

    async def read(self, key: K) -> V | None:
        """The value of *key*, which is not in doubt any more; None if there is none."""
        [column] = self.table.primary_key
        this_row = select(self.table).where(column == key).with_for_update()
        async with self._writes.reading(key) as connection:
            row = (await connection.execute(this_row)).mappings().one_or_none()
        return None if row is None else self._value(row)

    async def _write(
        self,
        *,
        fixed: Mapping[str, Any],
        values: Mapping[str, Any],
        event: AuditEvent | None,
        expected_generation: int | None,
        also: Callable[[AsyncConnection], Awaitable[None]] | None = None,
    ) -> tuple[V, bool]:
        """Insert the row, change it, or leave an identical one unchanged, in one transaction.

        Return its value, and whether the row is new. The row stays locked until the transaction
        ends: if two callers expect the same generation, the second finds another one.

        Args:
            fixed: columns that are set once, the primary key included.
            values: columns that may change; a change increments the generation.
            event: recorded in the same transaction if anything changes.
            expected_generation: 0: the row must not exist; None: no version check.
            also: runs in the same transaction, whether or not anything changes.

        Raises:
            StaleVersion: the row's generation is not the expected one, and this write did not
                create it.
            ImmutableField: the row has another value in one of the *fixed* columns.
        """
        [key] = (fixed[column.name] for column in self.table.primary_key)
        # A creation in doubt can be repeated, even by a caller that only creates and never changes:
        # nobody knows about it yet.
        is_repetition = expected_generation == 0 and self._writes.may_have_created(key)
        expected = None if is_repetition else expected_generation
        async with self._writes.writing(key) as connection:
            row, is_created, is_changed = await _write(
                connection, self.table, fixed, values, expected
            )
            if is_created:
                self._writes.note_creation(key)
            if is_changed and event is not None:
                await record(connection, event)
            if also is not None:
                await also(connection)
            return self._value(row), is_created


async def _write(
    connection: AsyncConnection,
    table: Table,
    fixed: Mapping[str, Any],
    values: Mapping[str, Any],
    expected: int | None,
) -> tuple[RowMapping, bool, bool]:
    """Write a row; return it, whether it was created, and whether it was created or changed."""
    if not expected:
        fresh = await _insert_or_lock(connection, table, {**fixed, **values})
        if fresh is not None:
            return fresh, True, True
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
        return row, False, False
    change = (
        update(table)
        .where(this_row)
        .values(**values, generation=table.c.generation + 1, updated_at=func.now())
    )
    result = await connection.execute(change.returning(table))
    return result.mappings().one(), False, True


def _is_repetition(row: RowMapping, written: Mapping[str, Any], expected: int | None) -> bool:
    """Whether *row* is the result of the same write on the *expected* generation.

    The response to its commit may have been lost, so that its caller knows only the expected
    generation. If several create the row, still only one succeeds.
    """
    if not expected:
        return False
    is_next: bool = row["generation"] == expected + 1
    return is_next and all(row[name] == value for name, value in written.items())


async def _insert_or_lock(
    connection: AsyncConnection, table: Table, values: Mapping[str, Any]
) -> RowMapping | None:
    """Insert the row and return it; lock an existing row without changing it."""
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
