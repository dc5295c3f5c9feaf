"""Tells whether a commit succeeded, even if a later statement fails.

If one of several statements fails, asyncpg does not tell which of them succeeded before.
"""

from __future__ import annotations

from struct import Struct
from types import TracebackType
from typing import Self

import asyncpg

from app.wire.connection import PacedInterceptor

# Maximum number of bytes kept. Notices that a commit raises come before its completion.
_MAX_BYTES = 64 * 1024
_header = Struct("!BI").unpack_from
_HEADER = 5
_COMMAND_COMPLETE, _COMMITTED = ord("C"), b"COMMIT\0"


class CommitWatch(PacedInterceptor):
    """Keeps the first bytes that a connection receives in a block, and passes all on to asyncpg.

    They are parsed only on request, so a block without errors pays nothing for it.
    """

    def __init__(self, connection: asyncpg.Connection) -> None:
        """Watch *connection*, which must be idle when the block starts."""
        super().__init__(connection)
        self._pieces: list[bytes] = []
        self._room = _MAX_BYTES

    def __enter__(self) -> Self:
        self._transport.set_protocol(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._transport.set_protocol(self._driver)

    def _take_piece(self, data: bytes) -> None:
        """Keep *data* as far as there is room, and pass it on to asyncpg."""
        if self._room > 0:
            self._pieces.append(data[: self._room])
            self._room -= len(data)
        self._driver.data_received(data)

    @property
    def has_committed(self) -> bool:
        """Whether a COMMIT in the block succeeded, rather than rolled back."""
        data = b"".join(self._pieces)
        at = 0
        while len(data) - at >= _HEADER:
            kind, length = _header(data, at)
            if kind == _COMMAND_COMPLETE and data[at + _HEADER : at + 1 + length] == _COMMITTED:
                return True
            at += 1 + length
        return False
