"""HTTP on one connection: uvicorn's parser, with bounds on what a client can make us keep.

It builds on what uvicorn's protocols have in common, whichever parser they use.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from typing import Any

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.h11_impl import H11Protocol

from app.api.http.client_connections import ClientConnections, CloseReason
from app.api.http.error_responses import PROBLEM_MEDIA_TYPE, Problem, status_title
from app.api.http.request_checks import HEADERS_TOO_LARGE

# Of each connection. Asyncio would keep 64 KiB, which is a hundred events of a stream.
_MAX_UNSENT_BYTES = 8192
# Parsed in one round of the event loop: in tiny chunks they take 10 ms.
_PIECE_BYTES = 4096
# Received while a request is in progress; beyond it the connection is not read.
_MAX_HELD_BYTES = 65_536
_NO_LINGERING = struct.pack("ii", 1, 0)
_MALFORMED = "malformed-request", "The request is not HTTP as RFC 9112 has it."
# What the parser refuses, by its status.
_REFUSED = {
    431: ("headers-too-large", HEADERS_TOO_LARGE),
    501: ("unknown-transfer-encoding", "The only Transfer-Encoding that is understood is chunked."),
}
_RETRYABLE = frozenset({408, 503})
_LATE = "The headers did not arrive in time."
_FULL = "All connections are in use."


class HttpProtocol(H11Protocol):
    """HTTP, which buffers next to nothing for clients that do not read, or do not finish.

    A stream waits for them instead: a thousand slow readers of one cost little memory, and get its
    latest event. While a request is in progress the connection is still read, so that its end is
    noticed; what comes then belongs to the next request, and waits.
    """

    def __init__(self, *arguments: Any, clients: ClientConnections, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._clients = clients
        self._held = bytearray()
        self._next_parse: asyncio.Handle | None = None
        # Nothing came yet, or nothing since the last response.
        self._is_idle = True

    @property
    def awaits_headers(self) -> bool:
        return self.cycle is None or (self.cycle.response_complete and not self._is_idle)

    @property
    def unsent_bytes(self) -> int:
        return self.transport.get_write_buffer_size()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        transport.set_write_buffer_limits(high=_MAX_UNSENT_BYTES)
        super().connection_made(transport)
        self._clients.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._clients.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._held += data
        if self._next_parse is None:
            self._parse()

    def on_response_complete(self) -> None:
        """Go on with the next request, if it came already."""
        self._is_idle = True
        self._clients.mark_waiting(self)
        super().on_response_complete()
        if self._has_whole_request:
            self._clients.mark_serving(self)
        elif self._held and self._next_parse is None:
            self._parse()

    def _parse(self) -> None:
        """Parse a piece of what came, unless it has to wait until a request has its response."""
        self._next_parse = None
        if self.transport.is_closing():
            return
        if not self._has_whole_request:
            piece = bytes(self._held[:_PIECE_BYTES])
            del self._held[:_PIECE_BYTES]
            super().data_received(piece)
            if self._has_whole_request:
                self._clients.mark_serving(self)
            elif self._is_idle and self.cycle is not None:
                self._clients.mark_waiting(self)
            self._is_idle = False
            if self._held and not self._has_whole_request:
                self._next_parse = self.loop.call_soon(self._parse)
        if len(self._held) > _MAX_HELD_BYTES:
            self.flow.pause_reading()
        elif not self._held and not self._has_full_body:
            self.flow.resume_reading()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._clients.mark_stalled(self)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._clients.mark_reading(self)

    def _unsupported_upgrade_warning(self) -> None:
        """Strangers must not fill the log; the request is handled as HTTP."""

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - a problem says it instead
        """Refuse what cannot be parsed; uvicorn calls this while it handles the parser's error."""
        self._clients.count_closed(CloseReason.MALFORMED)
        status = getattr(sys.exception(), "error_status_hint", 400)
        self._refuse(status, *_REFUSED.get(status, _MALFORMED))

    def close_for(self, reason: CloseReason) -> None:
        """Close the connection at once, with a response if the client may be waiting for one."""
        if reason is CloseReason.HEADER_TIMEOUT and not self._is_idle:
            self._refuse(408, "request-timeout", _LATE)
        elif reason is CloseReason.REFUSED:
            self._refuse(503, "overloaded", _FULL)
        if self.unsent_bytes:
            # It will not be read: the kernel must drop it as well.
            connection = self.transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGERING)
            self.transport.abort()
        else:
            self.transport.close()

    @property
    def _has_whole_request(self) -> bool:
        cycle = self.cycle
        return cycle is not None and not (cycle.response_complete or cycle.more_body)

    @property
    def _has_full_body(self) -> bool:
        """Whether more of a body came than is kept for the application to read."""
        return self.cycle is not None and len(self.cycle.body) > HIGH_WATER_LIMIT

    def _refuse(self, status: int, code: str, detail: str) -> None:
        """Respond without the application, unless a response has begun; and close."""
        cycle = self.cycle
        is_between = cycle is None or (cycle.response_complete and not cycle.more_body)
        if is_between or not cycle.response_started:
            self.transport.write(_problem(status, code, detail))
        self.transport.close()


def _problem(status: int, code: str, detail: str) -> bytes:
    problem = Problem(
        type=f"urn:poolkeeper:problem:{code}",
        title=status_title(status),
        status=status,
        detail=detail,
        instance="",
        code=code,
        request_id=None,
        retryable=status in _RETRYABLE,
    )
    body = problem.model_dump_json(exclude_none=True).encode()
    head = (
        f"HTTP/1.1 {status} {problem.title}\r\ncontent-type: {PROBLEM_MEDIA_TYPE}\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body
