"""The connections of HTTP clients: how many there may be, and how long each may keep us waiting.

A client gets a deadline for its headers and one for reading its answer. When there are too many,
the connection that is longest without a complete request is closed to make room for the new one;
one whose request is under way, a stream included, is never closed for that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from time import monotonic
from typing import Protocol

# How many may wait above the limit, and be answered above it: a probe must always be heard.
_SPARE = 8


class CloseReason(StrEnum):
    """Why a connection was closed by us before its client had done with it."""

    HEADER_TIMEOUT = "header_timeout"
    SEND_TIMEOUT = "send_timeout"
    EVICTED = "made_room"
    REFUSED = "refused"
    MALFORMED = "malformed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientLimits:
    """What clients may do.

    Attributes:
        max_connections: most connections; None for as many as the descriptors allow.
        header_timeout: seconds for the headers of a request to arrive.
        send_timeout: seconds without a byte being read of what is sent.
        keep_alive: seconds between an answer and the next request.
    """

    max_connections: int | None = None
    header_timeout: float = 10.0
    send_timeout: float = 60.0
    keep_alive: int = 5


class ClientConnection(Protocol):
    """A connection, as far as it is counted here."""

    @property
    def awaits_headers(self) -> bool:
        """Whether the headers of a request have begun to come, or should have."""

    @property
    def unsent_bytes(self) -> int:
        """What waits for the client to read."""

    def close_for(self, reason: CloseReason) -> None:
        """Close it at once."""


class ClientConnections:
    """Every connection, and those among them that owe something."""

    def __init__(self, limits: ClientLimits, most: Callable[[], int]) -> None:
        """Begin without any; *most* is asked for each new one, since it may change."""
        self._limits = limits
        self._most = most
        self.closed: Counter[CloseReason] = Counter()
        self._all: set[ClientConnection] = set()
        # Those without a complete request, and since when; the longest first.
        self._waiting: dict[ClientConnection, float] = {}
        # Those that do not read, what they have not read, and since when.
        self._unread: dict[ClientConnection, tuple[int, float]] = {}

    @property
    def count(self) -> int:
        """How many connections there are."""
        return len(self._all)

    @property
    def serving(self) -> int:
        """How many of them have a complete request that is not answered yet."""
        return len(self._all) - len(self._waiting)

    @property
    def limit(self) -> int:
        """How many there may be at this moment."""
        return self._most()

    @property
    def is_overloaded(self) -> bool:
        """Whether more requests are under way than there may be connections."""
        return self.serving > self._most()

    def add(self, connection: ClientConnection) -> None:
        """Take in a new connection, for which another may have to go."""
        most = self._most()
        # While all are at work a few may wait yet, so that a probe is not closed for the next one.
        if len(self._all) >= most and len(self._waiting) >= _SPARE:
            self._close(next(iter(self._waiting)), CloseReason.EVICTED)
        self._all.add(connection)
        self._waiting[connection] = monotonic()
        if len(self._all) > most + 2 * _SPARE:
            self._close(connection, CloseReason.REFUSED)

    def remove(self, connection: ClientConnection) -> None:
        """Forget a connection that is closed."""
        self._all.discard(connection)
        self._waiting.pop(connection, None)
        self._unread.pop(connection, None)

    def mark_waiting(self, connection: ClientConnection) -> None:
        """Note that from now on *connection* has no complete request."""
        if connection in self._all:
            self._waiting.pop(connection, None)
            self._waiting[connection] = monotonic()

    def mark_serving(self, connection: ClientConnection) -> None:
        """Note that *connection* has a complete request."""
        self._waiting.pop(connection, None)

    def mark_stalled(self, connection: ClientConnection) -> None:
        """Note that *connection* takes nothing of its answer."""
        if connection in self._all:
            self._unread.setdefault(connection, (connection.unsent_bytes, monotonic()))

    def mark_reading(self, connection: ClientConnection) -> None:
        """Note that *connection* has read."""
        self._unread.pop(connection, None)

    def close_late(self) -> None:
        """Close whoever is too late; to be called about once a second."""
        now = monotonic()
        for connection, since in tuple(self._waiting.items()):
            if now - since < self._limits.header_timeout:
                break
            if connection.unsent_bytes:
                self.mark_stalled(connection)
            elif connection.awaits_headers:
                self._close(connection, CloseReason.HEADER_TIMEOUT)
        for connection, (before, since) in tuple(self._unread.items()):
            unsent = connection.unsent_bytes
            if not unsent:
                self.mark_reading(connection)
            elif unsent < before:
                self._unread[connection] = (unsent, now)
            elif now - since >= self._limits.send_timeout:
                self._close(connection, CloseReason.SEND_TIMEOUT)

    def _close(self, connection: ClientConnection, reason: CloseReason) -> None:
        self.remove(connection)
        self.closed[reason] += 1
        connection.close_for(reason)
