"""Tells whether a commit succeeded, even if a later statement fails.

If one of several statements fails, asyncpg does not tell which of them succeeded before.
"""

import asyncpg

from app.wire.backend_messages import HEADER, IDLE, IN_TRANSACTION, READY, header
from app.wire.relay import PacedInterceptor

# Maximum number of bytes kept, and of an error passed on.
_MAX_BYTES = 64 * 1024
_COMMAND_COMPLETE, _NOTICE, _ERROR = b"CNE"
_COMMITTED = b"COMMIT\0"
# The end of a reply without an error: its last statement is complete, and no setting follows.
_ENDED = b"C\0\0\0\rSELECT 1\0" + READY + IDLE
# The end of an error whose end is missing. Only functions raise such long errors, and these have a
# context.
_CUT = b"\0W...\0\0"


class CommitWatch(PacedInterceptor):
    """Keeps the first bytes that a connection receives in a block, and passes the reply to asyncpg.

    They are parsed only on request, so a block without errors pays nothing for it. A deferred
    trigger of a tenant may raise gigabytes, of which asyncpg would make Python strings: if the
    reply does not arrive at once, notices are dropped, and long errors are cut.

    With *tells_begun*, asyncpg believes after a block without errors that it is in a transaction:
    the next one begins together with its first statement, and after an error in that, what asyncpg
    does depends on it. The last statement of such a block returns one row.
    """

    # The beginning of a message, or the number of bytes left of it and whether they are passed.
    _beginning, _left, _passes = b"", 0, True

    def __init__(self, connection: asyncpg.Connection, *, tells_begun: bool = False) -> None:
        """Watch *connection*, which must be idle when the block starts."""
        super().__init__(connection)
        self._tells_begun = tells_begun
        self._pieces: list[bytes] = []
        self._room = _MAX_BYTES

    def _hand_back(self) -> None:
        """Let asyncpg read again, unless the rest of a message is still to come."""
        if not self._is_in_message:
            self._relay.pass_to(self._driver)

    @property
    def _is_in_message(self) -> bool:
        return bool(self._left or self._beginning)

    def _take_piece(self, data: bytes) -> None:
        """Keep *data* as far as there is room, and pass it on to asyncpg."""
        if self._is_in_message or data[-len(READY) - 1 : -1] != READY:
            data = self._without_floods(data)
        if self._room > 0:
            self._pieces.append(data[: self._room])
            self._room -= len(data)
        if self._tells_begun and data.endswith(_ENDED):
            data = data[:-1] + IN_TRANSACTION
        if data:
            self._driver.data_received(data)
        if self._is_left and self._relay.reader is self:
            self._hand_back()

    def _without_floods(self, data: bytes) -> bytes:
        """Leave out the notices in *data*, and all but the beginning of a long error."""
        data, self._beginning = self._beginning + data, b""
        passed = []
        at, size = 0, len(data)
        while at < size:
            if not self._left:
                if size - at < HEADER:
                    break
                kind, length = header(data, at)
                if kind == _ERROR and length > _MAX_BYTES:
                    if size - at < _MAX_BYTES:
                        break
                    passed.append(_cut(data[at + HEADER : at + _MAX_BYTES]))
                    self._passes = False
                else:
                    self._passes = kind != _NOTICE
                self._left = 1 + length
            end = min(size, at + self._left)
            if self._passes:
                passed.append(data[at:end])
            self._left -= end - at
            at = end
        self._beginning = data[at:]
        return b"".join(passed)

    @property
    def has_committed(self) -> bool:
        """Whether a COMMIT in the block succeeded, rather than rolled back."""
        data = b"".join(self._pieces)
        at = 0
        while len(data) - at >= HEADER:
            kind, length = header(data, at)
            if kind == _COMMAND_COMPLETE and data[at + HEADER : at + 1 + length] == _COMMITTED:
                return True
            at += 1 + length
        return False


def _cut(body: bytes) -> bytes:
    """An error with the beginning of its fields, *body*."""
    # The last character may be incomplete.
    fields = body.decode(errors="ignore").encode().rstrip(b"\0") + _CUT
    return b"E" + (len(fields) + 4).to_bytes(4, "big") + fields
