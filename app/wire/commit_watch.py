"""Whether a commit was done, known also if something after it fails.

asyncpg tells of several statements that one of them failed, and not how far they came.
"""

from __future__ import annotations

from struct import Struct
from types import TracebackType
from typing import Self

import asyncpg

from app.wire.connection import PacedInterceptor

# Of what is kept; notices that a commit raises come before its completion.
_MAX_BYTES = 64 * 1024
_header = Struct("!BI").unpack_from
_HEADER = 5
_COMMAND_COMPLETE, _COMMITTED = ord("C"), b"COMMIT\0"


class CommitWatch(PacedInterceptor):
    """Keeps, for a block, the beginning of what a connection receives, and passes it to asyncpg.

    It is read only if somebody asks, which costs nothing where all goes well.
    """

    def __init__(self, connection: asyncpg.Connection) -> None:
        """Watch *connection*, which must be idle when the block begins."""
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
        """Keep it as far as there is room, and let asyncpg read it."""
        if self._room > 0:
            self._pieces.append(data[: self._room])
            self._room -= len(data)
        self._driver.data_received(data)

    @property
    def has_committed(self) -> bool:
        """Whether a COMMIT was completed within the block, and did not roll back instead."""
        data = b"".join(self._pieces)
        at = 0
        while len(data) - at >= _HEADER:
            kind, length = _header(data, at)
            if kind == _COMMAND_COMPLETE and data[at + _HEADER : at + 1 + length] == _COMMITTED:
                return True
            at += 1 + length
        return False
