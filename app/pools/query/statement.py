"""One statement of a tenant: how it is prepared, whatever is made of its values.

It is prepared, so it is exactly one. Parameters and results travel as text, so each is what
Postgres itself reads and writes; nothing of the connection is changed for it.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, Protocol, TypeVar

from app.domain.errors import StatementFailed
from app.pools.query.rows import MAX_BYTES
from app.pools.query.unsupported import refusal
from app.wire.extended_query import ExtendedQuery
from app.wire.frontend_messages import bind, describe, execute, parse
from app.wire.reply import Reply

# The forms of values that read back exactly, whatever the role, the database or an earlier
# statement of the transaction prefers; and NULL is no string in an array. With ISO alone the order
# of day and month in what is read stays the tenant's.
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
_DESCRIBE = describe()
# Parameters of more parts than this become text in another thread.
_MAX_INLINE_PARTS = 2000


class Outcome(Protocol):
    """What a statement returned."""

    @property
    def size(self) -> int:
        """Its bytes in a response, about."""


Result = TypeVar("Result", bound=Outcome)

Literals = Callable[[Sequence[object]], Iterable[str | None]]
"""Writes parameters as the text of their types."""


class Statement(ABC, Generic[Result]):
    """A statement, to be run once."""

    def __init__(self, sql: str, params: Sequence[object]) -> None:
        """Run *sql* with *params*, JSON values.

        Raises:
            StatementFailed: Postgres takes no such text.
        """
        _encode(sql, "The statement")
        self.sql = sql
        self._params = params

    def opening(self) -> tuple[bytes, ...]:
        """The messages with which it begins: to prepare it, perhaps to execute it too.

        Raises:
            StatementEndedLease: it would end the transaction.
            StatementFailed: it is not supported, or a parameter does not fit.
        """
        if (error := refusal(self.sql)) is not None:
            raise error
        return self._preparation()

    def _preparation(self) -> tuple[bytes, ...]:
        """The messages that prepare it."""
        return _SET_FORMS, parse(self.sql), _DESCRIBE

    def ends_at_once(self, *, read_only: bool) -> bool:  # noqa: ARG002 - for those that do
        """Whether its opening executes it to its end, as far as known.

        Unless it is *read_only*, it may be stored before its result is looked at: then the server
        is asked to stop it once its result is too large.
        """
        return False

    def is_cut(self, opened: Reply) -> bool:  # noqa: ARG002 - same
        """Whether its opening did not execute it to its end after all."""
        return False

    def is_outdated(self, opened: Reply) -> bool:  # noqa: ARG002 - for those that take something
        """Whether its opening took something for granted that the reply, *opened*, denies."""
        return False

    @abstractmethod
    async def run(self, query: ExtendedQuery, opened: Reply, *, max_bytes: int) -> Result:
        """Run it; *opened* is the reply to its opening.

        *max_bytes*: of its rows, as JSON.

        Raises:
            StatementFailed: a parameter or a result does not fit.
            StatementEndedLease: it ended the transaction.
            SchemaChanged: its types changed meanwhile.
            ServerError, OSError: as the query raises them.
        """

    async def _encoded(self, literals: Literals) -> list[bytes | None]:
        """The parameters for the server, as *literals* writes them."""
        if have_many_parts(self._params):
            return await asyncio.to_thread(self._encoded_at_once, literals)
        return self._encoded_at_once(literals)

    def _encoded_at_once(self, literals: Literals) -> list[bytes | None]:
        values: list[bytes | None] = []
        room = MAX_BYTES
        for text in literals(self._params):
            values.append(None if text is None else _encode(text, "A parameter"))
            room -= len(values[-1] or b"")
            # A literal may be many times as long as its JSON.
            if room < 0:
                raise StatementFailed("The parameters are too large.", sqlstate="54000")
        return values


def have_many_parts(params: Sequence[object]) -> bool:
    """Whether they take so long to become text that another thread has to do it."""
    remaining: list[object] = [params]
    parts = 0
    while remaining and parts <= _MAX_INLINE_PARTS:
        each = remaining.pop()
        parts += 1
        if isinstance(each, str):
            parts += len(each) // 100
        elif isinstance(each, int):
            # Of a thousand digits and more; the time grows with their square.
            parts += (each.bit_length() // 512) ** 2
        elif isinstance(each, dict):
            parts += len(each)
            remaining.extend(each.values())
        elif isinstance(each, list | tuple):
            parts += len(each) // 2
            remaining.extend(each)
    return parts > _MAX_INLINE_PARTS


def _encode(text: str, what: str) -> bytes:
    """*text* for a server, which takes neither NUL nor half of a surrogate pair."""
    if "\x00" in text:
        raise StatementFailed(f"{what} contains a NUL character.", sqlstate="22021")
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise StatementFailed(f"{what} is not valid Unicode.", sqlstate="22021") from error
