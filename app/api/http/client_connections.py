"""Connections of HTTP clients: how many there may be, and how long each may keep us waiting.

A client has a deadline for sending its headers, and one for reading its response. If there are too
many connections, a new one replaces the one that has been without a complete request for longest; a
connection with a request in progress, streams included, is never replaced. Unread responses take a
bounded amount of memory: beyond it, the connections with most unread bytes are closed.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from time import monotonic
from typing import Protocol

# How many may wait beyond the limit, and be answered beyond it: a probe must always get through.
_SPARE = 8


class CloseReason(StrEnum):
    """Why we closed a client's connection."""

    HEADER_TIMEOUT = "header_timeout"
    SEND_TIMEOUT = "send_timeout"
    EVICTED = "evicted"
    REFUSED = "refused"
    MALFORMED = "malformed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientLimits:
    """Limits for clients.

    Attributes:
        max_connections: None for as many as the file descriptors allow.
        header_timeout: seconds within which the headers of a request must arrive.
        send_timeout: seconds that a client may read nothing of its response.
        max_unsent: bytes that all clients together may leave unread.
        keep_alive: seconds between a response and the next request.
    """

    max_connections: int | None = None
    header_timeout: float = 10.0
    send_timeout: float = 60.0
    max_unsent: int = 256 * 1024 * 1024
    keep_alive: int = 75


class ClientConnection(Protocol):
    """A connection, as far as limits need it."""

    @property
    def awaits_headers(self) -> bool:
        """Whether request headers have begun to arrive, or should have."""

    @property
    def unsent_bytes(self) -> int:
        """Bytes that wait for the client to read them."""

    def close_for(self, reason: CloseReason) -> None:
        """Close it at once."""


class ClientConnections:
    """All connections; those without a complete request, and those that do not read."""

    def __init__(self, limits: ClientLimits, limit: Callable[[], int]) -> None:
        """Call *limit* at each new connection, because it may change."""
        self._limits = limits
        self._limit = limit
        self._latest_limit = 0
        self.closed: Counter[CloseReason] = Counter()
        self._all: set[ClientConnection] = set()
        # Connections without a complete request, and since when; the longest first.
        self._waiting: dict[ClientConnection, float] = {}
        # Connections that do not read, their unread bytes, and since when.
        self._stalled: dict[ClientConnection, tuple[int, float]] = {}

    @property
    def count(self) -> int:
        return len(self._all)

    @property
    def serving(self) -> int:
        """Number of connections with a complete request and no response yet."""
        return len(self._all) - len(self._waiting)

    @property
    def limit(self) -> int:
        """The present limit."""
        return self._limit()

    @property
    def is_overloaded(self) -> bool:
        """Whether there are more requests in progress than allowed connections."""
        # The limit changes only with a server's budget: it is not computed for each request.
        return self.serving > self._latest_limit and self.serving > self._limit()

    def add(self, connection: ClientConnection) -> None:
        """Count a new connection; another one may have to go."""
        limit = self._latest_limit = self._limit()
        # Even if all are serving, a few may wait: a probe must not be closed for the next one.
        if len(self._all) >= limit and len(self._waiting) >= _SPARE:
            self._close(next(iter(self._waiting)), CloseReason.EVICTED)
        self._all.add(connection)
        self._waiting[connection] = monotonic()
        if len(self._all) > limit + 2 * _SPARE:
            self._close(connection, CloseReason.REFUSED)

    def remove(self, connection: ClientConnection) -> None:
        self._all.discard(connection)
        self._waiting.pop(connection, None)
        self._stalled.pop(connection, None)

    def mark_waiting(self, connection: ClientConnection) -> None:
        """From now on, *connection* has no complete request."""
        if connection in self._all:
            self._waiting.pop(connection, None)
            self._waiting[connection] = monotonic()

    def mark_serving(self, connection: ClientConnection) -> None:
        """*connection* has a complete request."""
        self._waiting.pop(connection, None)

    def mark_stalled(self, connection: ClientConnection) -> None:
        """*connection* does not read its response."""
        if connection in self._all:
            self._stalled.setdefault(connection, (connection.unsent_bytes, monotonic()))

    def mark_reading(self, connection: ClientConnection) -> None:
        self._stalled.pop(connection, None)

    def close_late(self) -> None:
        """Close connections beyond their deadlines; call it about once a second."""
        now = monotonic()
        for connection, since in tuple(self._waiting.items()):
            if now - since < self._limits.header_timeout:
                break
            if connection.unsent_bytes:
                self.mark_stalled(connection)
            elif connection.awaits_headers:
                self._close(connection, CloseReason.HEADER_TIMEOUT)
        for connection, (before, since) in tuple(self._stalled.items()):
            unsent = connection.unsent_bytes
            if not unsent:
                self.mark_reading(connection)
            elif unsent < before:
                self._stalled[connection] = (unsent, now)
            elif now - since >= self._limits.send_timeout:
                self._close(connection, CloseReason.SEND_TIMEOUT)
        self._close_largest()

    def _close_largest(self) -> None:
        """Close connections that do not read until the unread bytes are within the limit."""
        unsent = {connection: connection.unsent_bytes for connection in self._stalled}
        surplus = sum(unsent.values()) - self._limits.max_unsent
        for connection in sorted(unsent, key=unsent.__getitem__, reverse=True):
            if surplus <= 0:
                return
            surplus -= unsent[connection]
            self._close(connection, CloseReason.SEND_TIMEOUT)

    def count_closed(self, reason: CloseReason) -> None:
        self.closed[reason] += 1

    def _close(self, connection: ClientConnection, reason: CloseReason) -> None:
        self.remove(connection)
        self.count_closed(reason)
        connection.close_for(reason)
