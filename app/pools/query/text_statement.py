"""A statement whose values are Postgres' own text, as drivers in other languages read it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from json.encoder import encode_basestring

from app.pools.query.pg_literals import untyped_literal
from app.pools.query.pg_types import RECORD_ARRAY, PgType, look_up_types
from app.pools.query.rows import Rows, first_execution
from app.pools.query.statement import Statement, have_many_parts
from app.pools.query.unsupported import command_of
from app.wire.backend_messages import ResultField
from app.wire.extended_query import ExtendedQuery
from app.wire.reply import Reply

# The approximate size of a column's description in a response.
_FIELD_BYTES = 200
_COPY = "COPY"
_TEXT = PgType(oid=25, name="text")
_TEXTS = PgType(oid=1009, name="text[]", shape="array", element=_TEXT)
# bool, int2, int4, float4, float8, json and jsonb: types that JSON has, too.
_JSON_TYPES = frozenset({16, 21, 23, 700, 701, 114, 3802})


@dataclass(frozen=True, slots=True, kw_only=True)
class TextResult:
    """The result of a statement.

    Attributes:
        fields: its columns.
        rows: JSON arrays, or objects with the columns' names as keys, in UTF-8; each piece has one,
            or several joined by commas.
        command: the first word of Postgres' command tag; empty for an empty statement.
        row_count: rows returned or changed; None if the statement does not count rows.
    """

    fields: tuple[ResultField, ...]
    rows: tuple[bytes, ...]
    command: str
    row_count: int | None
    size: int


class TextStatement(Statement[TextResult]):
    """A statement of Neon's protocol: all of its rows, or none."""

    def __init__(
        self,
        sql: str,
        params: Sequence[object],
        *,
        as_arrays: bool,
        raw_text: bool,
        is_alone: bool,
    ) -> None:
        """Return rows *as_arrays* or as objects.

        If it *is_alone*, it is committed with its execution, as Neon's own server does: its changes
        are stored even if its result is too large.

        With *raw_text* every value is a string or null. Otherwise booleans, small integers, floats,
        JSON and arrays of these are JSON values. Each parameter is text of whatever type the
        statement needs, see `untyped_literal`.

        Raises:
            StatementFailed: Postgres cannot take the text.
        """
        super().__init__(sql, params)
        self._as_arrays = as_arrays
        self._raw_text = raw_text
        self._is_alone = is_alone

    @cached_property
    def _is_executed_at_once(self) -> bool:
        """Whether it is executed before its types are known, which saves a round trip."""
        return self._raw_text and not have_many_parts(self._params)

    @cached_property
    def _is_committed_at_once(self) -> bool:
        """Whether it is executed to the end at once; not if it might read the data of a COPY."""
        may_be_copy = command_of(self.sql) in {"", _COPY}
        return self._is_alone and self._is_executed_at_once and not may_be_copy

    def opening(self) -> tuple[bytes, ...]:
        if not self._is_executed_at_once:
            return super().opening()
        values = self._encoded_at_once(_literals)
        return (*super().opening(), *first_execution(values, is_only=self._is_committed_at_once))

    def ends_at_once(self, *, read_only: bool) -> bool:  # noqa: ARG002 - see is_alone
        return self._is_committed_at_once

    async def run(self, query: ExtendedQuery, opened: Reply, *, max_bytes: int) -> TextResult:
        fields = opened.fields()
        types = [_TEXT] * len(fields)
        if not self._raw_text:
            found = await look_up_types(query, {each.oid for each in fields})
            types = [_as_json(found[each.oid]) for each in fields]
        keys = None
        if not self._as_arrays:
            keys = [f"{encode_basestring(each.name)}:" for each in fields]
        rows = Rows(query, types, max_rows=None, max_bytes=max_bytes, keys=keys)
        is_query = opened.row_description is not None
        if self._is_executed_at_once:
            tag = await rows.take(opened, is_query=is_query)
        else:
            tag = await rows.fetch(await self._encoded(_literals), is_query=is_query)
        tag = tag or ""
        last = tag.rpartition(" ")[2]
        row_count = int(last) if last.isdigit() else None
        if row_count is not None and is_query:
            row_count = rows.count  # Postgres' own is of the last batch
        return TextResult(
            fields=fields,
            rows=tuple(rows.written),
            command=tag.partition(" ")[0],
            row_count=row_count,
            size=rows.size + _FIELD_BYTES * len(fields),
        )


def _literals(params: Sequence[object]) -> Iterable[str | None]:
    return map(untyped_literal, params)


def _as_json(kind: PgType) -> PgType:
    """The output type of a value: its own if JSON has such values, else text."""
    if kind.oid == RECORD_ARRAY:
        return _TEXTS
    if kind.shape == "array" and kind.element is not None:
        element = _as_json(kind.element)
        return replace(kind, element=replace(element, delimiter=kind.element.delimiter))
    return kind if kind.shape == "scalar" and kind.oid in _JSON_TYPES else _TEXT
