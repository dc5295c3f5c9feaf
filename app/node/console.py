"""A connection to PgBouncer's console: simple queries over its Unix socket.

Drivers do not fit: the console has no extended query protocol, and asyncpg needs it. Over the Unix
socket, PgBouncer lets the user `pgbouncer` in without a password if the process has PgBouncer's own
user id. The kernel reports the *effective* user id at the time of connecting.
"""

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

from app.node.errors import CommandRefused, ConsoleLost, NothingListens
from app.node.messages import HEADER, Row, error_message, whole_messages
from app.node.polled_rows import PolledRows

T = TypeVar("T")

# The deadline of a connect or an answer, in seconds. A RELOAD of 5,000 entries takes a third of a
# second.
DEADLINE_SECONDS = 10.0

_PROTOCOL = 196_608
_STARTUP = b"user\0pgbouncer\0database\0pgbouncer\0application_name\0%s\0\0"
_PEER_CREDENTIALS = struct.Struct("iII")
_READ_BYTES = 1 << 18
# Rows read between two turns of the event loop, which may be the service's.
_SLICE = 500
# The ends of a SHOW command's answer, and of any answer. No text in a row can look like the first.
_SHOWN = b"C\0\0\0\x09SHOW\0Z\0\0\0\x05I"
_READY = b"Z\0\0\0\x05I"


class Console:
    """A connection; `connect()` opens it, `close()` ends it at once.

    Attributes:
        pid: process id of the listener.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._is_ready = False
        # The last answer by command.
        self._polled: dict[str, PolledRows[Any]] = {}
        # Answers come in the order of the commands, and do not name them.
        self._turn = asyncio.Lock()
        credentials = writer.get_extra_info("socket").getsockopt(
            socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size
        )
        self.pid: int = _PEER_CREDENTIALS.unpack(credentials)[0]

    @classmethod
    async def connect(cls, path: Path, *, uid: int | None = None, name: str = "") -> Self:
        """Connect as the user *uid*, our own if None, and log in as the application *name*.

        Raises:
            NothingListens: no process listens on the socket.
            PermissionError: the user may not enter the socket's directory.
            ConsoleLost: a process listens, but does not answer, or does not let us in.
        """
        try:
            reader, writer = await asyncio.open_unix_connection(sock=_connected(path, uid))
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise NothingListens(f"No PgBouncer listens at {path}.") from error
        except PermissionError:
            raise
        except OSError as error:
            raise ConsoleLost(f"PgBouncer's console at {path} does not answer: {error}") from error
        console = cls(reader, writer)
        try:
            startup = _STARTUP % name.encode()
            writer.write(struct.pack("!II", len(startup) + 8, _PROTOCOL) + startup)
            await console._completed(1)
        except CommandRefused as error:
            raise ConsoleLost(f"PgBouncer's console refuses the agent: {error}") from error
        finally:
            if not console._is_ready:
                console.close()
        return console

    async def rows(
        self, command: str, make: Callable[[Row], T], *, is_polled: bool = False
    ) -> list[T]:
        """Convert each row of a SHOW command with *make*.

        Args:
            is_polled: whether this command runs every second, always with the same function. Then
                most rows equal those of the last answer, and are not read again.

        Raises:
            CommandRefused: PgBouncer answered with an error; the console can be used again.
            ConsoleLost: it did not answer.
        """
        async with self._turn:
            self.send(command)
            answer = await self._shown()
        polled = (
            self._polled.setdefault(command, PolledRows(make)) if is_polled else PolledRows(make)
        )
        made: list[T] = []
        turn = _SLICE
        for rows in polled.read(answer):
            made += rows
            if len(made) >= turn:
                turn += _SLICE
                await asyncio.sleep(0)
        return made

    async def run(self, *commands: str) -> None:
        """Send commands together.

        PgBouncer executes all commands that arrive together before it serves any client again.

        Raises:
            CommandRefused: the first error, after all have been answered.
            ConsoleLost: not all have been answered.
        """
        async with self._turn:
            self.send(*commands)
            await self._completed(len(commands))

    def send(self, *commands: str) -> None:
        """Send commands without waiting for an answer; `close()` may follow.

        Raises:
            ConsoleLost: the connection is closed.
        """
        if self.is_closed:
            raise ConsoleLost("The connection to PgBouncer's console is closed.")
        texts = [command.encode() + b"\0" for command in commands]
        self._writer.write(b"".join(HEADER.pack(b"Q", len(text) + 4) + text for text in texts))

    @property
    def is_closed(self) -> bool:
        return self._writer.is_closing()

    def close(self) -> None:
        """End the connection once sent commands are delivered. Safe to call twice."""
        self._writer.close()

    async def _completed(self, count: int) -> None:
        """Read until PgBouncer has been ready for another command *count* times."""
        refusal: CommandRefused | None = None
        rest, self._is_ready = b"", False
        async with self._reading():
            while count:
                data = await self._reader.read(_READ_BYTES)
                if not data:
                    self.close()
                    raise refusal or EOFError("it closed the connection")
                messages, rest = whole_messages(rest + data)
                for kind, body in messages:
                    if kind == b"E":
                        refusal = refusal or CommandRefused(error_message(body))
                    count -= kind == b"Z"
        self._is_ready = True
        if refusal is not None:
            raise refusal

    async def _shown(self) -> bytes:
        """Read the complete answer to a SHOW command."""
        answer, is_refused = bytearray(), False
        async with self._reading():
            while not answer.endswith(_READY if is_refused else _SHOWN):
                data = await self._reader.read(_READ_BYTES)
                if not data:
                    raise EOFError("it closed the connection")
                answer += data
                is_refused = answer.startswith(b"E")
        if is_refused:
            raise CommandRefused(error_message(answer[HEADER.size :]))
        return bytes(answer)

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[None]:
        """Close the connection if an answer is incomplete or late, or nobody waits for it."""
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                yield
        except (TimeoutError, OSError, EOFError) as error:
            self.close()
            raise ConsoleLost(f"PgBouncer's console does not answer: {error!r}") from error
        except asyncio.CancelledError:
            # Otherwise the rest of this answer would be taken for the next command's.
            self.close()
            raise


def quoted(name: str) -> str:
    """Quote the name of an entry for commands of the console."""
    return '"' + name.replace('"', '""') + '"'


def _connected(path: Path, uid: int | None) -> socket.socket:
    """Connect a socket to *path* as the user *uid*.

    The effective user of the whole process changes for a moment. So this must not wait: a Unix
    socket is connected or refused at once.

    Raises:
        OSError: nothing listens there, or too many connects wait.
    """
    own = os.geteuid()
    end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    end.settimeout(0)
    try:
        if uid not in (None, own):
            os.seteuid(uid)
        end.connect(str(path))
    except BaseException:
        end.close()
        raise
    finally:
        os.seteuid(own)
    return end
