"""A statement from JSON to JSON: its parameters and its results are JSON values."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from app.domain.errors import StatementFailed
from app.pools.query.descriptions import Description, TenantDescriptions
from app.pools.query.pg_literals import literal
from app.pools.query.pg_types import PgType, look_up_types
from app.pools.query.rows import FIRST_ROWS, Rows, first_execution
from app.pools.query.statement import Statement, have_many_parts
from app.wire.extended_query import ExtendedQuery
from app.wire.reply import Reply


class StatementResult(NamedTuple):
    """The result of a statement.

    Attributes:
        columns: a JSON array of objects, each with the name and the type of a column.
        rows: JSON arrays in UTF-8; each piece has one array, or several joined by commas.
        row_count: number of rows returned, or changed if the statement returns none.
        truncated: whether there were more rows than requested, or than fit into a response.
        status: Postgres' command tag; None for a statement that returns columns.
    """

    columns: bytes
    rows: tuple[bytes, ...]
    row_count: int
    truncated: bool
    status: str | None
    size: int


class JsonStatement(Statement[StatementResult]):
    """A statement of the query endpoint."""

    def __init__(
        self,
        sql: str,
        params: Sequence[object],
        *,
        max_rows: int,
        descriptions: TenantDescriptions | None,
    ) -> None:
        """Fetch up to *max_rows* rows.

        *descriptions* are those of the tenant's statements; None: neither use nor keep any.

        A string binds to a parameter of any type as its text form. Numbers other than int keep the
        digits that `str` shows.

        Raises:
            StatementFailed: Postgres cannot take the text.
        """
        super().__init__(sql, params)
        self._max_rows = max_rows
        self._descriptions = descriptions
        # The description with which it was executed at once.
        self._known: Description | None = None

    def opening(self) -> tuple[bytes, ...]:
        known = None if self._descriptions is None else self._descriptions.find(self.sql)
        self._known = None
        if known is None:
            return super().opening()
        # It was run before, so it is not a refused one.
        opening = self._preparation()
        if len(known.parameters) != len(self._params) or have_many_parts(self._params):
            return opening
        try:
            values = self._encoded_at_once(partial(_literals, known.parameters))
        except StatementFailed:
            # Postgres may have more to say about it.
            return opening
        self._known = known
        return *opening, *first_execution(values, max_rows=self._max_rows)

    def ends_at_once(self, *, read_only: bool) -> bool:
        return read_only and self._known is not None and self._known.is_short

    def is_cut(self, opened: Reply) -> bool:
        if opened.command_tag is not None or opened.row_count > self._max_rows:
            return False
        if self._descriptions is not None:
            self._descriptions.forget(self.sql)
        return True

    def is_outdated(self, opened: Reply) -> bool:
        known = self._known
        if self._descriptions is None or known is None or known.is_of(opened):
            return False
        self._descriptions.forget(self.sql)
        return True

    async def run(self, query: ExtendedQuery, opened: Reply, *, max_bytes: int) -> StatementResult:
        description = self._known or await self._describe(query, opened)
        is_query = description.returns_rows
        rows = Rows(query, description.types, max_rows=self._max_rows, max_bytes=max_bytes)
        if self._known is not None:
            tag = await rows.take(opened, is_query=is_query)
        else:
            values = await self._encoded(partial(_literals, description.parameters))
            tag = await rows.fetch(values, is_query=is_query)
            if self._descriptions is not None:
                is_short = is_query and not rows.truncated and rows.count < FIRST_ROWS
                self._descriptions.keep(self.sql, replace(description, is_short=is_short))
        count, status = rows.count, None
        if not is_query:
            last = (tag or "").rpartition(" ")[2]
            count, status = int(last) if last.isdigit() else 0, tag
        elif not description.types and not rows.truncated:
            command = (tag or "").rpartition(" ")[0]
            status = f"{command} {count}"  # Postgres' own is of the last batch
        return StatementResult(
            columns=description.columns,
            rows=tuple(rows.written),
            row_count=count,
            truncated=rows.truncated,
            status=status,
            size=rows.size + len(description.columns),
        )

    async def _describe(self, query: ExtendedQuery, opened: Reply) -> Description:
        """Raises StatementFailed if it takes another number of parameters."""
        parameters = opened.parameters()
        taken, given = len(parameters), len(self._params)
        if taken != given:
            raise StatementFailed(
                f"The statement takes {taken} parameter{'' if taken == 1 else 's'}, "
                f"and {given} {'was' if given == 1 else 'were'} given.",
                sqlstate="08P01",
            )
        oids = {*parameters, *(each.oid for each in opened.fields())}
        return Description.of(opened, await look_up_types(query, oids))


def _literals(types: Sequence[PgType], params: Sequence[object]) -> Iterable[str | None]:
    return map(literal, params, types)
