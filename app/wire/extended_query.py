"""Postgres' extended query protocol on an asyncpg connection: text in, text out.

asyncpg converts everything to Python values, which cannot represent all of Postgres' values; it
keeps a batch of rows in memory before its size is known; and a COPY leaves it waiting. While an
`ExtendedQuery` is entered, this file reads the connection's transport instead, message by message,
unnoticed by asyncpg. See "Message Flow" and "Message Formats" in Postgres' manual, chapter 55. It
does not judge what a statement or its failure means for callers.
"""

# mypy: disable-error-code="attr-defined"
# ruff: noqa: SLF001 - asyncpg has no public name for its transport; `tests/pools/test_connection.py`

import asyncio
from functools import lru_cache
from typing import NamedTuple

import asyncpg

from app.wire.backend_messages import HEADER, ServerError, error_fields, header
from app.wire.frontend_messages import (
    COPY_FAIL,
    FLUSH,
    SYNC,
    close,
    execution,
    executions,
    simple_query,
)
from app.wire.relay import PacedInterceptor
from app.wire.reply import Reply

# The most that is kept of an error, and of a statement's description.
_MAX_ERROR_BYTES = 64 * 1024
_MAX_DESCRIPTION_BYTES = 4 * 1024 * 1024
# Encodings with which asyncpg fails, because Python lacks them.
_UNKNOWN_ENCODINGS = frozenset({"EUC_TW", "MULE_INTERNAL"})
# The deadline of a cancel request, in seconds.
_CANCEL_DEADLINE = 5.0
_DATA_ROW, _COMMAND_COMPLETE, _READY = b"DCZ"
_ERROR, _PARAMETERS, _COLUMNS, _SETTING, _CLOSE_COMPLETE, _COPY_OUT = b"EtTS3H"
# Nothing of these is kept: ParseComplete, BindComplete, NoData, PortalSuspended,
# EmptyQueryResponse, and the data of a COPY.
_SILENT = frozenset(b"12nsId")
# For the last statement before an ending, every message that completes it counts; of the rest, only
# that the ending has begun.
_COMPLETIONS = frozenset(b"sI")
_SILENT_IN_STATEMENT = _SILENT - _COMPLETIONS
_SILENT_IN_CHECK = _SILENT | frozenset(b"CDTN")
_SILENT_IN_ENDING = _SILENT | frozenset(b"DTN")
# Errors, notices, notifications and the data of a COPY.
_BRIEF = frozenset(b"ENAd")


class CopyAttempted(Exception):
    """The statement is a COPY to or from its client, and was cancelled."""


class Ending(NamedTuple):
    """The end of a lease, sent together with its statement.

    Attributes:
        check: a statement that runs only if everything before it succeeded.
        statements: these run after it in any case, in one round of the simple protocol.
    """

    check: str
    statements: str


class ExtendedQuery(PacedInterceptor):
    """Reads a connection inside a block; leave it only after every exchange has its reply.

    If a cancellation leaves it earlier, the server is asked to cancel too, and remaining messages
    are discarded; asyncpg reads again once the server is done.

    Attributes:
        reply: the latest reply, including a failed one, but not that of an ending.
        has_ending_begun: whether the first statement of an ending ran, whatever happened to the
            others.
    """

    def __init__(self, connection: asyncpg.Connection) -> None:
        super().__init__(connection)
        self._connection = connection
        self._loop = connection._loop
        self._buffer = bytearray()
        self._skip = 0
        self._silent = _SILENT
        self._max_row_bytes = self._room = 0
        self._reply = Reply()
        self._answered: asyncio.Future[Reply] | None = None
        # For `begin`: how many statements must still complete, and what comes after them.
        self._beginning = 0
        self._begun: asyncio.Future[None] | None = None
        self._awaited: asyncio.Future[Reply] | None = None
        self._ended: asyncio.Future[Reply] | None = None
        self.reply = self._reply
        self._cancelled: asyncio.Future[None] | None = None
        self._is_handed_back = False
        self._ends_copy = self._cancels_excess = self.has_ending_begun = False

    def _leave(self) -> None:
        self._is_left = True
        self._hand_back()

    async def exchange(self, *messages: bytes, max_row_bytes: int = 0) -> Reply:
        """Send *messages* and wait for the reply; up to *max_row_bytes* of its rows are kept.

        Raises:
            ServerError: the server refused one of them, and ignored the rest.
            CopyAttempted: one of them is a COPY.
            OSError: the connection is gone.
        """
        if self._transport.is_closing():
            raise ConnectionResetError("The connection is closed.")
        answered = self._expect_reply(max_row_bytes)
        self._transport.write(b"".join((*messages, SYNC)))
        return await self._reply_of(answered)

    def _expect_reply(self, max_row_bytes: int) -> asyncio.Future[Reply]:
        self._reply, self._max_row_bytes, self._room = Reply(), max_row_bytes, max_row_bytes
        self._answered = self._loop.create_future()
        return self._answered

    async def begin(
        self,
        statements: str,
        *messages: bytes,
        max_row_bytes: int = 0,
        ending: Ending | None = None,
        cancels_excess: bool = False,
    ) -> None:
        """Read the connection from now on, and run *statements*, if any, separated by "; ".

        *messages* are sent with them; the server processes them only if all statements succeeded.
        `receive` their reply inside a block. If this fails, asyncpg reads the connection again.

        An *ending* is sent too, and `wait_ended` returns its outcome. With *cancels_excess*, the
        server is asked to cancel at the first row that cannot be kept.

        Raises:
            ServerError: one of the statements failed.
            OSError: the connection is gone.
        """
        self._relay.pass_to(self)
        self._awaited = self._expect_reply(max_row_bytes)
        end = SYNC
        if ending is not None:
            self._ended = self._loop.create_future()
            end = _ending_messages(ending)
            self._silent, self._cancels_excess = _SILENT_IN_STATEMENT, cancels_excess
        if not statements:
            self._transport.write(b"".join((*messages, end)))
            return
        steps, self._beginning = executions(statements)
        self._begun = self._loop.create_future()
        self._transport.write(b"".join((steps, FLUSH, *messages, end)))
        try:
            await self._begun
        except asyncio.CancelledError:
            if self._answered is not None:
                self._cancel()
            self._leave()
            raise
        except BaseException:
            try:
                if self._ended is not None:
                    await asyncio.wait([self._ended])
            finally:
                self._leave()
            raise

    async def receive(self) -> Reply:
        """Return the reply to the messages of `begin`; raises as `exchange` does."""
        if self._awaited is None:
            raise ConnectionResetError("Nothing was sent.")
        return await self._reply_of(self._awaited)

    @property
    def has_reply(self) -> bool:
        """Whether `receive` returns without waiting."""
        return self._awaited is not None and self._awaited.done()

    async def wait_ended(self) -> None:
        """Wait until the statements of the ending have run, inside a block or after it.

        Raises:
            ServerError: one of its statements failed.
            OSError: the connection is gone.
        """
        if self._ended is None:
            raise ConnectionResetError("Nothing was sent.")
        await self._reply_of(self._ended)

    async def _reply_of(self, answered: asyncio.Future[Reply]) -> Reply:
        try:
            reply: Reply = await answered
        except asyncio.CancelledError:
            if self._answered is answered:
                # It was cancelled with us, and its reply is still to come.
                self._answered = self._loop.create_future()
                self._cancel()
            raise
        if reply.is_copy:
            await self.wait_idle(_CANCEL_DEADLINE)
            raise CopyAttempted
        if reply.error is not None:
            # Not that one: frames that its traceback has would refer to it, in a cycle.
            raise ServerError(reply.error.fields)
        return reply

    async def wait_idle(self, seconds: float) -> None:
        """Wait until the server is done with cancelled work; terminate the connection otherwise."""
        waiting = [each for each in (self._answered, self._cancelled) if each is not None]
        # A cancel request that is still under way might hit the next statement.
        pending = (await asyncio.wait(waiting, timeout=seconds))[1] if waiting else ()
        if pending:
            self._connection.terminate()

    def _take_piece(self, data: bytes) -> None:
        """Process complete messages, and skip those that are not kept."""
        if self._is_handed_back:
            self._driver.data_received(data)
            return
        if self._skip:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            data = data[skipped:]
        if self._buffer:
            self._buffer += data
            del self._buffer[: self._take_complete(self._buffer)]
        else:
            # Nearly always whole messages arrive, which need no copy.
            self._buffer += data[self._take_complete(data) :]
        if self._is_left:
            self._hand_back()

    def _take_complete(self, data: bytes | bytearray) -> int:
        """Process the complete messages at the beginning of *data*; return where they end."""
        at, size = 0, len(data)
        while size - at >= HEADER:
            kind, length = header(data, at)
            body, end = at + HEADER, at + 1 + length
            if kind in self._silent:
                if end > size:
                    self._skip = end - size
                    return size
                at = end
                continue
            most = self._room if kind == _DATA_ROW else _max_bytes(kind)
            if end - body > most:
                if kind == _ERROR and size - body < most:
                    break  # its beginning identifies it
                self._take_beginning(kind, bytes(data[body : body + max(0, most)]))
                self._skip = max(0, end - size)
                at = min(end, size)
                continue
            if end > size:
                break
            if kind == _DATA_ROW:
                self._room -= end - body
                self._reply.keep(bytes(data[body:end]))
            elif kind == _SETTING:
                self._take_setting(bytes(data[at:end]))
            else:
                self._take(kind, bytes(data[body:end]))
            at = end
        return at

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        answered, self._answered = self._answered, None
        lost = ConnectionResetError("The server hung up, or does not speak Postgres.")
        # The event loop's own error may quote received data.
        lost.__cause__ = exc
        if self._begun is not None and not self._begun.done():
            self._begun.set_exception(self._reply.error or lost)
        if answered is not self._ended:
            self.reply = self._reply
        if answered is not None and not answered.done() and self._reply.error is not None:
            answered.set_result(self._reply)
        for each in (answered, self._ended):
            if each is not None and not each.done():
                each.set_exception(lost)
                each.exception()  # perhaps nobody waits any more

    def _take_beginning(self, kind: int, body: bytes) -> None:
        """Keep the permitted part of a message that is too long."""
        if kind == _DATA_ROW:
            # No later row is kept either, however small.
            self._reply.is_truncated, self._room = True, -1
            if self._cancels_excess:
                self._cancel()
        else:
            self._take(kind, body)

    def _take(self, kind: int, body: bytes) -> None:
        reply = self._reply
        if kind == _COMMAND_COMPLETE:
            self._complete(body[:-1].decode("utf-8", "replace"))
        elif kind in _COMPLETIONS:
            self._complete(None)
        elif kind == _READY and not self._ends_copy:
            reply.transaction_status = body.decode()
            self._finish()
        elif kind == _COLUMNS:
            reply.row_description = body
        elif kind == _PARAMETERS:
            self._room, status = self._max_row_bytes, reply.parameter_status
            self._reply = Reply(parameter_description=body, parameter_status=status)
        elif kind == _ERROR:
            reply.error = ServerError(error_fields(body))
        elif kind in b"GW":
            reply.is_copy = True
            # The server ignores the Sync that was sent if it waits for COPY data, but not if it
            # failed before, perhaps by a trigger. Only the CloseComplete tells which it was.
            self._ends_copy = True
            self._transport.write(COPY_FAIL + SYNC + close() + SYNC)
        elif kind == _CLOSE_COMPLETE:
            self._ends_copy = False
        elif kind == _COPY_OUT:
            reply.is_copy = True
            self._cancel()

    def _complete(self, command_tag: str | None) -> None:
        """Note an executed statement, perhaps one of those of `begin`; None if rows are left."""
        self._reply.command_tag = command_tag
        if self._beginning:
            self._beginning -= 1
            if not self._beginning and self._begun is not None and not self._begun.done():
                self._begun.set_result(None)
        elif self._ended is not None and self._answered is self._ended:
            self.has_ending_begun, self._silent = True, _SILENT_IN_CHECK
        elif self._ended is not None and self._reply.parameter_description:
            self._reply.is_executed, self._silent = True, _SILENT_IN_CHECK

    def _take_setting(self, message: bytes) -> None:
        """Pass the setting to asyncpg too, which must know the encoding."""
        name, _, value = message[HEADER:-1].decode("utf-8", "replace").partition("\0")
        self._reply.parameter_status[name] = value
        if value not in _UNKNOWN_ENCODINGS:
            self._driver.data_received(message)

    def _finish(self) -> None:
        answered, reply = self._answered, self._reply
        self._answered = None
        if answered is not self._ended:
            self.reply = reply
            if self._ended is not None and not self._ended.done():
                self._answered, self._reply, self._room = self._ended, Reply(), 0
                self._silent = _SILENT_IN_ENDING
        if self._beginning and self._begun is not None and not self._begun.done():
            # All statements run to their end, unless one fails.
            self._begun.set_exception(reply.error or ConnectionResetError("No answer."))
        self._beginning = 0
        if answered is not None and not answered.done():
            answered.set_result(reply)

    def _hand_back(self) -> None:
        """Let asyncpg read again, unless messages are still to come that are not for it."""
        if self._answered is not None or self._skip or self._is_handed_back:
            return
        self._is_handed_back = True
        self._relay.pass_to(self._driver)
        if self._buffer:
            self._driver.data_received(bytes(self._buffer))
            self._buffer.clear()

    def _cancel(self) -> None:
        """Ask the server, over another connection, to cancel the present work; once."""
        if self._cancelled is not None:
            return
        self._cancelled = self._loop.create_future()
        self._connection._cancel_current_command(self._cancelled)


@lru_cache(maxsize=256)
def _ending_messages(ending: Ending) -> bytes:
    return execution(ending.check) + SYNC + simple_query(ending.statements)


def _max_bytes(kind: int) -> int:
    """How long a message of this kind, except rows, may be to be kept whole."""
    return _MAX_ERROR_BYTES if kind in _BRIEF else _MAX_DESCRIPTION_BYTES
