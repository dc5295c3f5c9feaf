"""Anonymous records: only their binary form has the types of their fields.

Postgres itself formats the fields' values: we send its binary values back as parameters, and it
returns them as text.
"""

from collections.abc import Generator, Iterator
from typing import TypeAlias

from app.domain.errors import StatementFailed
from app.pools.query.pacing import PieceJoiner
from app.pools.query.pg_json import decode, to_json
from app.pools.query.pg_types import RECORD, RECORD_ARRAY, VECTORS, look_up_types
from app.pools.query.too_large import row_too_large
from app.wire.backend_messages import column_values
from app.wire.extended_query import ExtendedQuery
from app.wire.frontend_messages import BINARY, bind, execute, parse

_UNKNOWN, _TEXT = 705, 25
# Postgres sends an empty vector, in so many bytes, but does not read it.
_EMPTY_VECTOR_BYTES = 20
_MAX_DEPTH = 16
# Postgres takes 1664 columns at most.
_VALUES_PER_QUERY = 1000
_PARTS = 1000
# Each of these is a Python object of its own here.
_MAX_VALUES = 50_000

Leaf: TypeAlias = tuple[int, bytes]
Tree: TypeAlias = "Leaf | list[Tree] | None"


class AnonymousRecords:
    """The records of a result: read all records of a batch, resolve them, then write them."""

    def __init__(self, query: ExtendedQuery, joiner: PieceJoiner) -> None:
        """Ask the server through *query*; this uses its unnamed statement."""
        self._query = query
        self._joiner = joiner
        self._json: dict[Leaf, str] = {}
        self._unresolved: dict[Leaf, None] = {}
        self._parts = self._objects = 0

    def read(self, data: bytes, oid: int) -> Generator[None, None, Tree]:
        """Parse a record or an array of records into a tree, in steps.

        Raises:
            StatementFailed: it is nested too deeply, or has too many values.
        """
        # A view, because each level would copy all that is inside.
        return self._read(memoryview(data), oid, 0)

    def _read(self, data: memoryview, oid: int, depth: int) -> Generator[None, None, Tree]:
        if depth > _MAX_DEPTH:
            raise StatementFailed(
                f"A record is nested more than {_MAX_DEPTH} levels deep; cast it to text or json.",
                sqlstate="54001",
            )
        if oid == RECORD:
            return (yield from self._fields(data, depth))
        if oid == RECORD_ARRAY:
            return (yield from self._elements(data, depth))
        leaf = (oid if oid != _UNKNOWN else _TEXT, bytes(data))
        if oid in VECTORS and len(data) <= _EMPTY_VECTOR_BYTES:
            self._json[leaf] = "[]"
        if leaf not in self._json and leaf not in self._unresolved:
            self._unresolved[leaf] = None
            self._count(1)
        return leaf

    async def resolve(self, *, max_bytes: int) -> None:
        """Fetch the text of every value read since, and convert it to JSON.

        Raises:
            StatementFailed: it is longer than *max_bytes*.
            ServerError, OSError: from the query.
        """
        leaves, self._unresolved = list(self._unresolved), {}
        types = await look_up_types(self._query, {oid for oid, _ in leaves})
        for at in range(0, len(leaves), _VALUES_PER_QUERY):
            some = leaves[at : at + _VALUES_PER_QUERY]
            listed = ", ".join(f"${number}" for number in range(1, len(some) + 1))
            reply = await self._query.exchange(
                # A domain's base type: a stored value may violate the domain's checks by now.
                parse(f"select {listed}", types=[types[oid].oid for oid, _ in some]),
                bind([data for _, data in some], parameter_format=BINARY),
                execute(),
                max_row_bytes=max_bytes,
            )
            if reply.is_truncated:
                raise row_too_large()
            max_bytes -= len(reply.rows[0])
            for leaf, text in zip(some, column_values(reply.rows[0]), strict=True):
                pieces = to_json(decode(text or b""), types[leaf[0]])
                self._json[leaf] = (await self._joiner.join(pieces)).decode()
        # The trees are written next, and then dropped; the texts are kept.
        self._objects = len(self._json)

    def pieces(self, tree: Tree) -> Iterator[str]:
        """The JSON of *tree*, in pieces."""
        if tree is None:
            yield "null"
        elif isinstance(tree, tuple):
            yield self._json[tree]
        else:
            separator = "["
            for part in tree:
                yield separator
                yield from self.pieces(part)
                separator = ","
            yield "]" if tree else "[]"

    def _fields(self, data: memoryview, depth: int) -> Generator[None, None, Tree]:
        self._count(1)
        fields: list[Tree] = []
        at = 4
        for _ in range(_int(data, 0)):
            part, at = yield from self._part(data, at + 4, _int(data, at), depth)
            fields.append(part)
        return fields

    def _elements(self, data: memoryview, depth: int) -> Generator[None, None, Tree]:
        dimensions, oid = _int(data, 0), _int(data, 8)
        sizes = [_int(data, 12 + 8 * number) for number in range(dimensions)]
        at = 12 + 8 * dimensions
        elements: list[Tree] = []
        while at < len(data):
            part, at = yield from self._part(data, at, oid, depth)
            elements.append(part)
        for size in reversed(sizes[1:]):
            self._count(len(elements) // size)
            elements = [elements[first : first + size] for first in range(0, len(elements), size)]
        return elements

    def _part(
        self, data: memoryview, at: int, oid: int, depth: int
    ) -> Generator[None, None, tuple[Tree, int]]:
        """Parse the value whose length is at *at*; return its tree and its end."""
        self._parts += 1
        if self._parts % _PARTS == 0:
            yield
        length, begin = int.from_bytes(data[at : at + 4], "big", signed=True), at + 4
        if length < 0:
            return None, begin
        end = begin + length
        return (yield from self._read(data[begin:end], oid, depth + 1)), end

    def _count(self, objects: int) -> None:
        """Count *objects* that are kept until everything is resolved."""
        self._objects += objects
        if self._objects > _MAX_VALUES:
            raise StatementFailed(
                f"There are more than {_MAX_VALUES} values in records without a type; "
                "cast the records to a composite type.",
                sqlstate="54000",
            )


def _int(data: memoryview, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "big")
