"""A statement of a tenant: how it is prepared, independent of the format of its values.

It is prepared, so it is exactly one statement. Parameters and results travel as text, exactly as
Postgres reads and writes them; no setting of the connection is changed for it.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, Protocol, TypeVar

from app.domain.errors import StatementFailed
from app.pools.query.rows import MAX_BYTES
from app.pools.query.unsupported import refusal
from app.wire.extended_query import ExtendedQuery
from app.wire.frontend_messages import DESCRIBE, bind, execute, parse
from app.wire.reply import Reply

# Formats of values that read back exactly, whatever the role, the database or an earlier statement
# of the transaction prefers; and NULL is not a string in an array. DateStyle ISO alone keeps the
# tenant's order of day and month in input.
OUTPUT_SETTINGS = {
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "array_nulls": "on",
    "client_encoding": "UTF8",
}
_SET = "select " + ", ".join(
    f"pg_catalog.set_config('{name}', '{value}', true)" for name, value in OUTPUT_SETTINGS.items()
)
# Before each statement, and around its preparation and execution.
_SET_FORMS = parse(_SET) + bind() + execute()
# Parameters with more parts than this are converted to text in another thread.
_MAX_INLINE_PARTS = 2000


class Outcome(Protocol):
    """The result of a statement."""

    @property
    def size(self) -> int:
        """Its approximate size in a response, in bytes."""


Result = TypeVar("Result", bound=Outcome)

Literals = Callable[[Sequence[object]], Iterable[str | None]]
"""Writes parameters as text of their types."""


class Statement(ABC, Generic[Result]):
    """A statement to be run once."""

    def __init__(self, sql: str, params: Sequence[object]) -> None:
        """Run *sql* with *params*, JSON values.

        Raises:
            StatementFailed: Postgres cannot take the text.
        """
        _encode(sql, "The statement")
        self.sql = sql
        self._params = params

    def opening(self) -> tuple[bytes, ...]:
        """The first messages: they prepare it, and perhaps execute it too.

        Raises:
            StatementEndedLease: it would end the transaction.
            StatementFailed: it is not supported, or a parameter does not fit.
        """
        if (error := refusal(self.sql)) is not None:
            raise error
        return self._preparation()

    def _preparation(self) -> tuple[bytes, ...]:
        """The messages that prepare it."""
        return _SET_FORMS, parse(self.sql), DESCRIBE

    def ends_at_once(self, *, read_only: bool) -> bool:  # noqa: ARG002 - for those that do
        """Whether its opening executes it to the end, as far as known.

        Unless it is *read_only*, its changes may be stored before its result is checked: then the
        server is asked to cancel it as soon as its result is too large.
        """
        return False

    def is_cut(self, opened: Reply) -> bool:  # noqa: ARG002 - same
        """Whether its opening did not execute it to the end after all."""
        return False

    def is_outdated(self, opened: Reply) -> bool:  # noqa: ARG002 - for those that take something
        """Whether the reply to its opening, *opened*, contradicts an assumption of the opening."""
        return False

    @abstractmethod
    async def run(self, query: ExtendedQuery, opened: Reply, *, max_bytes: int) -> Result:
        """Run it; *opened* is the reply to its opening.

        *max_bytes*: limit for its rows, as JSON.

        Raises:
            StatementFailed: a parameter or a result does not fit.
            StatementEndedLease: it ended the transaction.
            SchemaChanged: its types changed in the meantime.
            ServerError, OSError: from the query.
        """

    async def _encoded(self, literals: Literals) -> list[bytes | None]:
        """Encode the parameters for the server, as *literals* writes them."""
        if have_many_parts(self._params):
            return await asyncio.to_thread(self._encoded_at_once, literals)
        return self._encoded_at_once(literals)

    def _encoded_at_once(self, literals: Literals) -> list[bytes | None]:
        values: list[bytes | None] = []
        room = MAX_BYTES
        texts = iter(literals(self._params))
        while len(values) < len(self._params):
            try:
                text = next(texts)
                values.append(None if text is None else _encode(text, "The text"))
            except StatementFailed as error:
                raise StatementFailed(
                    f"Parameter ${len(values) + 1}: {error.detail}", sqlstate=error.sqlstate
                ) from error
            room -= len(values[-1] or b"")
            # A literal may be many times as long as its JSON.
            if room < 0:
                raise StatementFailed("The parameters are too large.", sqlstate="54000")
        return values


def have_many_parts(params: Sequence[object]) -> bool:
    """Whether converting them to text takes so long that another thread has to do it."""
    remaining: list[object] = [params]
    parts = 0
    while remaining and parts <= _MAX_INLINE_PARTS:
        each = remaining.pop()
        parts += 1
        if isinstance(each, str):
            parts += len(each) // 100
        elif isinstance(each, int):
            # Numbers of a thousand digits and more; the time grows with the square of their length.
            parts += (each.bit_length() // 512) ** 2
        elif isinstance(each, dict):
            parts += len(each)
            remaining.extend(each.values())
        elif isinstance(each, list | tuple):
            parts += len(each) // 2
            remaining.extend(each)
    return parts > _MAX_INLINE_PARTS


def _encode(text: str, what: str) -> bytes:
    """Encode *text* for a server, which accepts neither NUL nor half a surrogate pair."""
    if "\x00" in text:
        raise StatementFailed(f"{what} contains a NUL character.", sqlstate="22021")
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise StatementFailed(f"{what} is not valid Unicode.", sqlstate="22021") from error
