"""A connection to PgBouncer's console: simple queries over its Unix socket.

Drivers do not fit: the console has no extended query protocol, and asyncpg needs it. PgBouncer
takes the user `pgbouncer` without a password, over the Unix socket, from a process of its own user
id. The kernel tells it the *effective* one at the time of connecting.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

from app.node.errors import CommandRefused, ConsoleLost, NothingListens

Row = dict[str, str | None]
T = TypeVar("T")

# Of a connect or an answer, in seconds. A RELOAD of 5,000 entries takes a third of a second.
DEADLINE_SECONDS = 10.0

_PROTOCOL = 196_608
_STARTUP = b"user\0pgbouncer\0database\0pgbouncer\0\0"
_HEADER = struct.Struct("!cI")
_PEER_CREDENTIALS = struct.Struct("iII")
_READ_BYTES = 1 << 18
# Rows that are read between two turns of the event loop, which may be the service's.
_SLICE = 500


class Console:
    """One connection; `connect()` makes it, `close()` ends it, at once.

    Attributes:
        pid: of the process that listens at the other end.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._is_ready = False
        # What has arrived of a message.
        self._rest = b""
        # By command, what was made of each row of its last answer.
        self._made: dict[str, dict[bytes, Any]] = {}
        # Answers come in the order of the commands, and do not say whose they are.
        self._turn = asyncio.Lock()
        credentials = writer.get_extra_info("socket").getsockopt(
            socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size
        )
        self.pid: int = _PEER_CREDENTIALS.unpack(credentials)[0]

    @classmethod
    async def connect(cls, path: Path, *, uid: int | None = None) -> Self:
        """Connect as the user *uid*, our own if None, and log in.

        Raises:
            NothingListens: no process has the socket.
            ConsoleLost: one does, and does not answer or does not let us in.
        """
        try:
            reader, writer = await asyncio.open_unix_connection(sock=_connected(path, uid))
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise NothingListens(f"No PgBouncer listens at {path}.") from error
        except OSError as error:
            raise ConsoleLost(f"PgBouncer's console at {path} does not answer: {error}") from error
        console = cls(reader, writer)
        try:
            writer.write(struct.pack("!II", len(_STARTUP) + 8, _PROTOCOL) + _STARTUP)
            await console._answers(1)
        except CommandRefused as error:
            raise ConsoleLost(f"PgBouncer's console refuses the agent: {error}") from error
        finally:
            if not console._is_ready:
                console.close()
        return console

    async def rows(
        self, command: str, make: Callable[[Row], T], *, is_polled: bool = False
    ) -> list[T]:
        """What *make* makes of each row that a SHOW command shows.

        Args:
            is_polled: whether it is asked every second, always with the same function. Most rows
                of a thousand are those of the last answer then, and are not read again.

        Raises:
            CommandRefused: PgBouncer answered with an error; the console can be used again.
            ConsoleLost: it did not answer.
        """
        async with self._turn:
            self.send(command)
            [(names, bodies)] = await self._answers(1)
        known = self._made.get(command, {}) if is_polled else {}
        made: dict[bytes, T] = {}
        for number, body in enumerate(bodies, start=1):
            made[body] = known[body] if body in known else make(_row(names, body))
            if number % _SLICE == 0:
                await asyncio.sleep(0)
        if is_polled:
            self._made[command] = made
        return [made[body] for body in bodies]

    async def run(self, *commands: str) -> list[list[Row]]:
        """Send commands together, and return the rows of each.

        PgBouncer executes what it receives at once before it looks at any client again.

        Raises:
            CommandRefused: the first error, after all were answered.
            ConsoleLost: not all were answered.
        """
        async with self._turn:
            self.send(*commands)
            answers = await self._answers(len(commands))
        return [[_row(names, body) for body in bodies] for names, bodies in answers]

    def send(self, *commands: str) -> None:
        """Send commands without waiting for an answer; `close()` may follow.

        Raises:
            ConsoleLost: the connection is closed.
        """
        if self.is_closed:
            raise ConsoleLost("The connection to PgBouncer's console is closed.")
        texts = [command.encode() + b"\0" for command in commands]
        self._writer.write(b"".join(_HEADER.pack(b"Q", len(text) + 4) + text for text in texts))

    @property
    def is_closed(self) -> bool:
        return self._writer.is_closing()

    def close(self) -> None:
        """End the connection, once what was sent is delivered. Safe twice."""
        self._writer.close()

    async def _answers(self, count: int) -> list[tuple[list[str], list[bytes]]]:
        """Read until PgBouncer was ready for another command *count* times: columns and rows."""
        answers: list[tuple[list[str], list[bytes]]] = []
        refusal: CommandRefused | None = None
        names: list[str] = []
        rows: list[bytes] = []
        self._is_ready = False
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                while len(answers) < count:
                    for kind, body in self._arrived(await self._reader.read(_READ_BYTES)):
                        if kind == b"D":  # most are
                            rows.append(body)
                            continue
                        match kind:
                            case b"T":
                                names = _column_names(body)
                            case b"E":
                                refusal = refusal or CommandRefused(_error_message(body))
                            case b"Z":
                                answers.append((names, rows))
                                rows = []
                            case _:  # parameters, notices, completed commands
                                pass
        except (TimeoutError, OSError, EOFError) as error:
            self.close()
            if refusal is not None:
                raise refusal from error
            raise ConsoleLost(f"PgBouncer's console does not answer: {error!r}") from error
        self._is_ready = True
        if refusal is not None:
            raise refusal
        return answers

    def _arrived(self, data: bytes) -> list[tuple[bytes, bytes]]:
        """Kinds and bodies of the messages that are whole now: a thousand at a time."""
        if not data:
            raise EOFError("it closed the connection")
        messages: list[tuple[bytes, bytes]] = []
        data, at = self._rest + data, 0
        unpack, header, arrived = _HEADER.unpack_from, _HEADER.size, len(data)
        while at + header <= arrived:
            kind, length = unpack(data, at)
            end = at + 1 + length
            if end > arrived:
                break
            messages.append((kind, data[at + header : end]))
            at = end
        self._rest = data[at:]
        return messages


def quoted(name: str) -> str:
    """A name of an entry, as commands of the console have it."""
    return '"' + name.replace('"', '""') + '"'


def _connected(path: Path, uid: int | None) -> socket.socket:
    """A socket at *path*, whose other end sees the user *uid*.

    The effective user of the whole process changes for a moment. So this waits for nothing: a
    Unix socket is connected at once, or refused.

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


def _column_names(body: bytes) -> list[str]:
    names, at = [], 2
    for _ in range(int.from_bytes(body[:2])):
        end = body.index(0, at)
        names.append(body[at:end].decode())
        at = end + 19  # the zero, and six fields of no interest
    return names


def _row(names: Sequence[str], body: bytes) -> Row:
    row: Row = {}
    at = 2
    for name in names:
        length = int.from_bytes(body[at : at + 4], signed=True)
        at += 4
        if length < 0:
            row[name] = None
        else:
            row[name] = body[at : at + length].decode()
            at += length
    return row


def _error_message(body: bytes) -> str:
    fields = {field[:1]: field[1:] for field in body.split(b"\0") if field}
    return fields.get(b"M", b"no message").decode(errors="replace")
