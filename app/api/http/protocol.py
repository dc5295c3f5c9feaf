"""HTTP on one connection: uvicorn's protocol, with limits on what a client can make us buffer.

The parser, httptools, has no limits, and would start every request that a client sends ahead. So it
gets one request at a time, and each head only once it is complete.
"""

import asyncio
import re
import socket
import struct
import sys
from collections.abc import Callable
from functools import lru_cache
from itertools import starmap
from typing import Any

import httptools
from uvicorn._types import ASGISendEvent
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import (
    HEADER_RE,
    HEADER_VALUE_RE,
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from app.api.http.body_limits import MAX_QUERY_BYTES
from app.api.http.client_connections import ClientConnections, CloseReason
from app.api.http.error_responses import PROBLEM_MEDIA_TYPE, Problem
from app.api.http.request_checks import (
    AMBIGUOUS_LENGTH,
    HEADERS_TOO_LARGE,
    MAX_HEADER_BYTES,
    MAX_PATH_BYTES,
    URI_TOO_LONG,
)

# For each connection. The event loop's default is 64 KiB, which is a hundred events of a stream.
_MAX_UNSENT_BYTES = 8192
# The number of chunks parsed in one round of the event loop: tiny ones take some milliseconds.
_PIECE_BYTES = 4096
# The most bytes received while a request is in progress; beyond them the connection is not read.
_MAX_HELD_BYTES = 65_536
# Includes the longest path and query, the method and the version.
_MAX_REQUEST_LINE = MAX_PATH_BYTES + MAX_QUERY_BYTES + 64
_NO_LINGERING = struct.pack("ii", 1, 0)
# After a response to an incomplete request: the client may notice it only after sending more.
_LINGER_SECONDS = 2.0
_RETRYABLE = frozenset({408, 503})
_LATE = "The headers did not arrive in time."
_FULL = "All connections are in use."

_OF_CONNECTION = frozenset({b"connection", b"transfer-encoding"})

_END_OF_HEAD = re.compile(rb"\n\r?\n")
# The upgrade header that we recognise; without it, the parser would take the following bytes for
# another protocol's.
_UPGRADE = re.compile(rb"(?i)\nupgrade:[^\n]*")
_BEGINNING = re.compile(rb"[A-Za-z\r\n]")
# The host and port in a target such as `http://host/path`; the header must name the same.
_AUTHORITY = re.compile(rb"[^/?#]*://([^/?#]*)")

# A status, a problem code and a sentence.
_Refusal = tuple[int, str, str]
_MALFORMED = 400, "malformed-request", "The request is not valid HTTP (RFC 9112)."
_UNKNOWN_METHOD = 501, "unknown-method", "This request method is not known."
_UNKNOWN_ENCODING = (
    501,
    "unknown-transfer-encoding",
    "The only Transfer-Encoding that is understood is chunked.",
)
_HEAD_TOO_LARGE = 431, "headers-too-large", HEADERS_TOO_LARGE
_URI_TOO_LONG = 414, "uri-too-long", URI_TOO_LONG
_AMBIGUOUS = 400, "ambiguous-length", AMBIGUOUS_LENGTH
# Messages of the parser; everything else is malformed.
_PARSER_REFUSALS = {
    "Duplicate Content-Length": _AMBIGUOUS,
    "Content-Length can't be present with Transfer-Encoding": _AMBIGUOUS,
    "Transfer-Encoding can't be present with Content-Length": _AMBIGUOUS,
    "Invalid `Transfer-Encoding` header value": _UNKNOWN_ENCODING,
    "Request has invalid `Transfer-Encoding`": _UNKNOWN_ENCODING,
}


class _Refused(Exception):
    """A parser callback read something that we do not accept."""

    def __init__(self, refusal: _Refusal) -> None:
        super().__init__()
        self.refusal = refusal


class _ResponseWriter:
    """Writes a response's head together with the following bytes: one system call instead of two.

    It replaces the transport while uvicorn writes a response.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        close: Callable[[], None],
    ) -> None:
        """*close* ends the connection once everything is written."""
        self._transport = transport
        self._loop = loop
        self._close = close
        self._held = b""
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        if self._held:
            self._held += data
            self._flush()
        elif data:
            self._held = data
            self._loop.call_soon(self._flush)

    def close(self) -> None:
        self._flush()
        self._close()

    def _flush(self) -> None:
        held, self._held = self._held, b""
        # uvloop raises RuntimeError if the client disconnected after the head was written.
        if held and not self.is_closing():
            self._transport.write(held)


class _Cycle(RequestResponseCycle):
    """Uvicorn's cycle of a request and its response, with cached header lines.

    Nearly all lines are the same for all responses, and uvicorn checks each one for invalid
    characters.
    """

    async def send(self, message: ASGISendEvent) -> None:
        if message["type"] != "http.response.start" or self.response_started:
            await super().send(message)
            return
        headers = [*self.default_headers, *message.get("headers", ())]
        values = dict(headers)
        is_usual = b"content-length" in values and _OF_CONNECTION.isdisjoint(values)
        if not is_usual or self.disconnected or self.flow.write_paused:
            await super().send(message)
            return
        lines = b"".join(starmap(_line, headers))
        end = b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n"
        self.response_started, self.waiting_for_100_continue = True, False
        self.expected_content_length = int(values[b"content-length"])
        self.chunked_encoding = False
        self.transport.write(STATUS_LINE[message["status"]] + lines + end)


@lru_cache(maxsize=256)
def _line(name: bytes, value: bytes) -> bytes:
    """Format a header line; raises RuntimeError for invalid characters."""
    if HEADER_RE.search(name) or HEADER_VALUE_RE.search(value):
        raise RuntimeError("Invalid HTTP header.")
    return b"%b: %b\r\n" % (name.lower(), value)


class HttpProtocol(HttpToolsProtocol):
    """HTTP that buffers almost nothing for clients that do not read, or do not finish a request.

    A stream waits for slow readers instead: a thousand of them cost little memory, and get the
    latest event. During a request the connection is still read, so that its end is noticed; bytes
    that come then belong to the next request, and wait.
    """

    def __init__(self, *arguments: Any, clients: ClientConnections, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._clients = clients
        self._held = bytearray()
        self._next_parse: asyncio.Handle | None = None
        # Nothing came yet, or nothing since the last response.
        self._is_idle = True
        self._is_lingering = False
        self._on_disconnect: Callable[[], None] | None = None
        # State of the request: whether its head, or a chunked body, is being parsed; the remaining
        # bytes of a body of known length; and the bytes since the last byte of a body: head, chunk
        # sizes, trailers.
        self._in_head = True
        self._in_chunks = False
        self._left_of_body = 0
        self._framing_bytes = 0

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
        if self._on_disconnect is not None:
            self._on_disconnect()

    def notify_disconnect(self, callback: Callable[[], None] | None) -> None:
        """Call *callback* when the client disconnects, or now if it has; None: stop that."""
        self._on_disconnect = callback
        if callback is not None and self.cycle.disconnected:
            callback()

    def abort(self) -> None:
        """Break the connection, so that the client does not take a part for the whole."""
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._is_lingering:
            return
        self._unset_keepalive_if_required()
        self._held += data
        if self._next_parse is None:
            self._parse()

    def on_response_complete(self) -> None:
        """Continue with the next request, if it has already come."""
        self._is_idle = True
        self._clients.mark_waiting(self)
        super().on_response_complete()
        if self.has_whole_request:
            self._clients.mark_serving(self)
        elif self._held and self._next_parse is None:
            self._parse()

    def on_header(self, name: bytes, value: bytes) -> None:
        # Trailers would change the headers of a request in progress.
        if self._in_head:
            self.headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """Start a request, unless two readers could interpret its head differently."""
        headers = dict(self.headers)
        if self.parser.should_upgrade():  # CONNECT; nothing else upgrades without the header
            raise _Refused(_UNKNOWN_METHOD)
        version = self.parser.get_http_version()
        hosts = [value for name, value in self.headers if name == b"host"]
        if version not in {"1.0", "1.1"} or (version == "1.1" and len(hosts) != 1):
            raise _Refused(_MALFORMED)
        target = _AUTHORITY.match(self.url)
        if target is not None and [target[1].lower()] != [host.lower() for host in hosts]:
            raise _Refused(_MALFORMED)
        encoding = headers.get(b"transfer-encoding")
        if encoding is not None and encoding.lower() != b"chunked":
            raise _Refused(_UNKNOWN_ENCODING)
        self.expect_100_continue = headers.get(b"expect", b"").lower() == b"100-continue"
        self.scope["state"]["connection"] = self
        super().on_headers_complete()
        # It has not started.
        self.cycle.__class__ = _Cycle
        self.cycle.transport = _ResponseWriter(  # type: ignore[assignment]
            self.transport, self.loop, self._close
        )
        self._in_head = False
        self._in_chunks = encoding is not None
        self._left_of_body = int(headers.get(b"content-length", b"0"))

    def on_body(self, body: bytes) -> None:
        self._framing_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_head, self._in_chunks, self._framing_bytes = True, False, 0
        # If the response is already complete, uvicorn leaves it as it is.
        self.cycle.more_body = False

    def _parse(self) -> None:
        """Parse a piece of what arrived, unless it must wait until a request has its response."""
        self._next_parse = None
        left = _PIECE_BYTES
        while left > 0 and not (self.has_whole_request or self._is_over):
            piece = self._next_piece()
            if not piece:
                break
            left -= len(piece)
            super().data_received(piece)
        if self._is_over:
            return
        if self.has_whole_request:
            self._clients.mark_serving(self)
        elif self._is_idle and self.cycle is not None:
            self._clients.mark_waiting(self)
        self._is_idle = False
        if self._held and left <= 0 and not self.has_whole_request:
            self._next_parse = self.loop.call_soon(self._parse)
        if len(self._held) > _MAX_HELD_BYTES:
            self.flow.pause_reading()
        elif not self._held and not self._has_full_body:
            self.flow.resume_reading()

    def _next_piece(self) -> bytes:
        """The next piece to parse; it never extends beyond the end of a request."""
        if self._in_head:
            return self._next_head()
        if not self._in_chunks:
            piece = self._take(self._left_of_body)
            self._left_of_body -= len(piece)
            return piece
        # A request ends with a line; the same line may also be a part of its body.
        piece = self._take(self._held.find(b"\n", 0, _PIECE_BYTES) + 1 or _PIECE_BYTES)
        self._framing_bytes += len(piece)
        return (
            self._refuse_head(_HEAD_TOO_LARGE) if self._framing_bytes > MAX_HEADER_BYTES else piece
        )

    def _next_head(self) -> bytes:
        """A complete head; nothing if it is incomplete, or can never be complete."""
        if not _BEGINNING.match(self._held):
            return self._refuse_head(_MALFORMED) if self._held else b""
        headers = self._held.find(b"\n") + 1
        end = _END_OF_HEAD.search(self._held, 0, headers + MAX_HEADER_BYTES)
        if end is not None:
            return _UPGRADE.sub(b"", self._take(end.end()))
        if len(self._held) - headers > (MAX_HEADER_BYTES if headers else _MAX_REQUEST_LINE):
            return self._refuse_head(_HEAD_TOO_LARGE if headers else _URI_TOO_LONG)
        return b""

    def _take(self, size: int) -> bytes:
        piece = bytes(self._held[:size])
        del self._held[:size]
        return piece

    def _refuse_head(self, refusal: _Refusal) -> bytes:
        self._clients.count_closed(CloseReason.MALFORMED)
        self._refuse(*refusal)
        return b""

    def pause_writing(self) -> None:
        super().pause_writing()
        self._clients.mark_stalled(self)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._clients.mark_reading(self)

    def _unsupported_upgrade_warning(self) -> None:
        """Ignore it: strangers must not fill the log; the request is handled as HTTP."""

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - a problem says it instead
        """Refuse malformed requests; uvicorn calls this while it handles the parser's error."""
        error = sys.exception()
        if isinstance(error, httptools.HttpParserInvalidMethodError):
            refusal = _UNKNOWN_METHOD
        elif error is not None and isinstance(error.__context__, _Refused):
            refusal = error.__context__.refusal
        else:
            refusal = _PARSER_REFUSALS.get(str(error), _MALFORMED)
        self._refuse_head(refusal)

    def close_for(self, reason: CloseReason) -> None:
        """Close the connection at once, with a response if the client may be waiting for one."""
        if reason is CloseReason.HEADER_TIMEOUT and not self._is_idle:
            self._refuse(408, "request-timeout", _LATE)
        elif reason is CloseReason.REFUSED:
            self._refuse(503, "overloaded", _FULL)
        if self.unsent_bytes:
            # The rest will not be read: the kernel must drop it too.
            connection = self.transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGERING)
            self.transport.abort()
        else:
            self.transport.close()

    @property
    def has_whole_request(self) -> bool:
        """Whether a request has completely arrived and has no response yet."""
        cycle = self.cycle
        return cycle is not None and not (cycle.response_complete or cycle.more_body)

    @property
    def _has_full_body(self) -> bool:
        """Whether more of a body arrived than is kept for the application to read."""
        return self.cycle is not None and len(self.cycle.body) > HIGH_WATER_LIMIT

    def _refuse(self, status: int, code: str, detail: str) -> None:
        """Respond without the application, unless a response has begun; then close."""
        if self._is_over:
            return
        cycle = self.cycle
        is_between = cycle is None or (cycle.response_complete and not cycle.more_body)
        if is_between or not cycle.response_started:
            self.transport.write(_problem(status, code, detail))
        if is_between:
            self._linger()
        else:
            self.transport.close()  # the application notices

    @property
    def _is_over(self) -> bool:
        """Whether received bytes are ignored from now on."""
        return self._is_lingering or self.transport.is_closing()

    def _close(self) -> None:
        """Close the connection after a response."""
        if self.cycle.more_body:
            self._linger()
        else:
            self.transport.close()

    def _linger(self) -> None:
        """Close the connection, but let the client keep sending for a moment.

        Otherwise the kernel resets it, and the client may lose the response (RFC 9112, 9.6).
        """
        if self._is_over:
            return
        self._is_lingering = True
        self._held.clear()
        self.flow.resume_reading()
        self.transport.write_eof()
        self.loop.call_later(_LINGER_SECONDS, self.transport.close)


def _problem(status: int, code: str, detail: str) -> bytes:
    is_retryable = status in _RETRYABLE
    problem = Problem.of(status, code, detail, instance="", request_id=None, retryable=is_retryable)
    body = problem.model_dump_json(exclude_none=True).encode()
    head = (
        f"HTTP/1.1 {status} {problem.title}\r\ncontent-type: {PROBLEM_MEDIA_TYPE}\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body
