"""Records without a type of their own: only their binary form says what their fields are.

The form of a field's value is then asked of Postgres itself: what it wrote in binary is given
back to it as a parameter, and comes out as text.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Iterator
from typing import TypeAlias

from app.domain.errors import StatementFailed
from app.pools.query.pg_json import decode, to_json
from app.pools.query.pg_types import RECORD, RECORD_ARRAY, look_up_types
from app.wire.extended_query import BINARY, ExtendedQuery, bind, column_values, execute, parse

_UNKNOWN = 705
_DEEPEST = 16
# Postgres takes 1664 columns at most.
_AT_A_TIME = 1000
_PARTS = 1000
# Each is an object of its own here.
_MOST_VALUES = 50_000

Leaf: TypeAlias = tuple[int, bytes]
Tree: TypeAlias = "Leaf | list[Tree] | None"


class AnonymousRecords:
    """The records of an answer; read all of a batch, resolve them, then write them."""

    def __init__(self, query: ExtendedQuery) -> None:
        """Ask what is to be asked by *query*, whose unnamed statement is used for it."""
        self._query = query
        self._shown: dict[Leaf, list[str]] = {}
        self._unknown: list[Leaf] = []
        self._oids: set[int] = set()
        self._parts = self._made = 0

    def read(self, data: bytes, oid: int) -> Generator[None, None, Tree]:
        """The tree of a record or of an array of records, in steps.

        Raises:
            StatementFailed: it is nested too deeply.
        """
        return self._read(data, oid, 0)

    async def resolve(self, *, max_bytes: int) -> None:
        """Ask for the text of every value read since, and make JSON of it.

        Raises:
            StatementFailed: it is more than *room* bytes.
            ServerError, OSError: as the query has them.
        """
        kinds = await look_up_types(self._query, self._oids)
        unknown, self._unknown = self._unknown, []
        # Their trees are written next, and forgotten; the texts are not.
        self._made = len(self._shown)
        for at in range(0, len(unknown), _AT_A_TIME):
            some = unknown[at : at + _AT_A_TIME]
            listed = ", ".join(f"${number}" for number in range(1, len(some) + 1))
            reply = await self._query.exchange(
                parse(f"select {listed}", types=[oid for oid, _ in some]),
                bind([data for _, data in some], parameter_format=BINARY),
                execute(),
                max_row_bytes=max_bytes,
            )
            if reply.is_truncated:
                raise StatementFailed("A single row is too large to be shown.", sqlstate="54000")
            max_bytes -= len(reply.rows[0])
            for leaf, text in zip(some, column_values(reply.rows[0]), strict=True):
                for _ in to_json(decode(text or b""), kinds[leaf[0]], self._shown[leaf]):
                    await asyncio.sleep(0)

    def write(self, tree: Tree, out: list[str]) -> Iterator[None]:
        """Append the JSON of *tree* to *out*, in steps."""
        if tree is None:
            out.append("null")
        elif isinstance(tree, tuple):
            out.extend(self._shown[tree])
        else:
            out.append("[")
            for number, part in enumerate(tree):
                if number:
                    out.append(",")
                yield from self.write(part, out)
                self._parts += 1
                if self._parts % _PARTS == 0:
                    yield
            out.append("]")

    def _read(self, data: bytes, oid: int, depth: int) -> Generator[None, None, Tree]:
        if depth > _DEEPEST:
            raise StatementFailed(
                f"A record is nested more than {_DEEPEST} levels deep; cast it to text or json.",
                sqlstate="54001",
            )
        if oid == RECORD:
            return (yield from self._fields(data, depth))
        if oid == RECORD_ARRAY:
            return (yield from self._array(data, depth))
        leaf = (oid if oid != _UNKNOWN else 25, data)
        if leaf not in self._shown:
            self._shown[leaf] = []
            self._unknown.append(leaf)
            self._oids.add(leaf[0])
            self._count(1)
        return leaf

    def _fields(self, data: bytes, depth: int) -> Generator[None, None, Tree]:
        self._count(1)
        fields: list[Tree] = []
        at = 4
        for _ in range(_int(data, 0)):
            oid, length = _int(data, at), _signed(data, at + 4)
            at += 8
            field = data[at : at + max(0, length)]
            fields.append((yield from self._read(field, oid, depth + 1)) if length >= 0 else None)
            at += max(0, length)
            self._parts += 1
            if self._parts % _PARTS == 0:
                yield
        return fields

    def _array(self, data: bytes, depth: int) -> Generator[None, None, Tree]:
        dimensions = _int(data, 0)
        oid = _int(data, 8)
        sizes = [_int(data, 12 + 8 * number) for number in range(dimensions)]
        at = 12 + 8 * dimensions
        found: list[Tree] = []
        while at < len(data):
            length = _signed(data, at)
            at += 4
            part = data[at : at + max(0, length)]
            found.append((yield from self._read(part, oid, depth + 1)) if length >= 0 else None)
            at += max(0, length)
            self._parts += 1
            if self._parts % _PARTS == 0:
                yield
        for size in reversed(sizes[1:]):
            self._count(len(found) // size)
            found = [found[first : first + size] for first in range(0, len(found), size)]
        return found

    def _count(self, values: int) -> None:
        """Count what becomes an object of its own until all is resolved."""
        self._made += values
        if self._made > _MOST_VALUES:
            raise StatementFailed(
                f"There are more than {_MOST_VALUES} values in records without a type; "
                "cast the records to a composite type.",
                sqlstate="54000",
            )


def _int(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "big")


def _signed(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "big", signed=True)
