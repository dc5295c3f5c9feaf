"""HTTP/1.1 connections to the active instance, with as few bytes and steps as possible.

Only what a slow reader leaves unread is buffered, and that only up to a limit.
"""

import asyncio
import os
import socket
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from typing import cast
from urllib.parse import SplitResult, urlsplit

import httptools
import structlog

from app.wire.tcp_keepalive import notice_silence

Headers = list[tuple[bytes, bytes]]

# In seconds; the active instance is near.
_CONNECT_DEADLINE = 2.0
# Unread response bytes of a client beyond which the connection is not read.
_MAX_UNSENT = 65_536
_MAX_IDLE = 100
# In seconds; an instance that is no longer active answers at once, or not at all.
_GRACE = 1.0
# In seconds: for room to write, and between two parts of a response. A stream has a comment every
# 15 s. Devices between the instances may acknowledge everything and pass on nothing.
_SILENCE = 45.0
# In seconds: while a response has not begun, how often the instance is probed, and how long a probe
# waits. Two probes without an answer mean that it is gone.
_LOOK_INTERVAL = 10.0
_LOOK_DEADLINE = 3.0
_MISSES = 2
_LOOK = b"GET /livez HTTP/1.1\r\nhost: %b\r\nconnection: close\r\n\r\n"


_log = structlog.get_logger(__name__)


class UpstreamLost(Exception):
    """The connection broke, or another instance is active now."""


class UpstreamSilent(UpstreamLost):
    """The connection is open, but the other side sends nothing, or stopped reading."""


class Upstream(asyncio.Protocol):
    """A connection with one request at a time.

    Attributes:
        keeps_alive: whether the other side takes another request after this one.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.is_lost = self._is_silent = False
        self.status = 0
        self.headers: Headers = []
        self.has_begun = False
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._is_head = self._is_complete = self.keeps_alive = False
        self._chunks: deque[bytes] = deque()
        self._unsent = 0
        self._arrived: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self.idle_since = 0.0

    # -- a request and its response ----------------------------------------------------------

    def begin(self, method: str, head: bytes) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self.status, self.headers = 0, []
        self._is_head = method == "HEAD"
        self.has_begun = self._is_complete = self.keeps_alive = False
        self._write(head)

    async def write(self, data: bytes) -> None:
        """Send a part of the body, once there is room.

        Raises:
            UpstreamLost: the connection broke.
        """
        if self._writable is not None and not self.is_lost:
            try:
                async with asyncio.timeout(_SILENCE):
                    await self._writable
            except TimeoutError as error:
                raise self._silence() from error
        self._write(data)

    async def respond(self, seconds: float, is_there: Callable[[], Awaitable[bool]]) -> None:
        """Wait up to *seconds* until `status` and `headers` are those of the response.

        In the meantime, *is_there* probes whether the instance can be reached.

        Raises:
            UpstreamLost: the connection broke before that.
            UpstreamSilent: nothing came.
        """
        loop = asyncio.get_running_loop()
        due, misses = loop.time() + seconds, 0
        while not self.has_begun:
            left = due - loop.time()
            if left <= 0.0 or misses == _MISSES:
                raise self._silence()
            if not await self.arrives(min(left, _LOOK_INTERVAL)):
                misses = 0 if await is_there() else misses + 1

    async def read(self) -> bytes:
        """Read the next part of the body; empty at its end.

        Raises:
            UpstreamLost: the connection broke before its end.
        """
        while not self._chunks:
            if self._is_complete:
                return b""
            if not await self.arrives(_SILENCE):
                raise self._silence()
        data = b"".join(self._chunks)
        self._chunks.clear()
        self._unsent = 0
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
        return data

    @property
    def is_ended(self) -> bool:
        """Whether the response has been read to its end."""
        return self._is_complete and not self._chunks

    @property
    def is_open(self) -> bool:
        """Whether requests can be sent, as far as known."""
        transport = self._transport
        return not (self.is_lost or transport is None or transport.is_closing())

    @property
    def is_reusable(self) -> bool:
        """Whether another request may follow."""
        return self._is_complete and self.keeps_alive and self.is_open

    def close(self) -> None:
        """Close the connection; a request that waits for it gets UpstreamLost."""
        if self._transport is not None:
            self._transport.abort()
        self._lose()

    def _write(self, data: bytes) -> None:
        if not self.is_open or self._transport is None:
            raise self._loss()
        self._transport.write(data)

    async def arrives(self, seconds: float) -> bool:
        """Wait up to *seconds*; return whether a part of the response arrived.

        Raises:
            UpstreamLost: the connection broke before that.
        """
        if self.is_lost:
            raise self._loss()
        self._arrived = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(seconds):
                await self._arrived
        except TimeoutError:
            return False
        finally:
            self._arrived = None
        return True

    def _silence(self) -> UpstreamLost:
        """Close the connection, because nothing comes."""
        self._is_silent = True
        self.close()
        return self._loss()

    def _loss(self) -> UpstreamLost:
        return UpstreamSilent() if self._is_silent else UpstreamLost()

    def _wake(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    def _lose(self) -> None:
        self.is_lost = True
        self._wake()
        self.resume_writing()

    # -- asyncio's callbacks -----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's class is not a subclass
        # A response may take as long as it likes, if only the other end is there.
        notice_silence(transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        self._lose()

    def data_received(self, data: bytes) -> None:
        if self._parser is None or self._is_complete:
            self.close()  # nobody asked for it
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.close()
        if self._unsent > _MAX_UNSENT and self._transport is not None:
            self._transport.pause_reading()
        self._wake()

    def pause_writing(self) -> None:
        self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    # -- the parser's callbacks --------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        parser = self._parser
        assert parser is not None  # noqa: S101 - it is the one that calls
        status = parser.get_status_code()
        if status < 200:  # noqa: PLR2004 - an interim response
            self.headers = []
            return
        self.status, self.has_begun = status, True
        self.keeps_alive = parser.should_keep_alive()
        if self._is_head:  # its length is that of the response to GET
            self._is_complete = True

    def on_body(self, data: bytes) -> None:
        self._chunks.append(data)
        self._unsent += len(data)

    def on_message_complete(self) -> None:
        if self.has_begun:
            self._is_complete = True


class Upstreams:
    """The connections to the active instance, kept open between requests.

    Attributes:
        trouble: why none could be opened at the last try; None if one was.
    """

    def __init__(self, *, keep_alive: float) -> None:
        """Do not reuse a connection that was idle for *keep_alive* seconds."""
        self.trouble: str | None = None
        self._keep_alive = keep_alive
        self._idle: deque[Upstream] = deque()
        self._open: set[Upstream] = set()
        self._grace: asyncio.TimerHandle | None = None
        # The URL that answered the last probe, and when.
        self._answered, self._answered_at = "", 0.0
        self._tls: ssl.SSLContext | None = None

    async def connect(self, url: str) -> Upstream:
        """Return a connection to *url*, an idle one if possible.

        Raises:
            OSError: it cannot be opened.
        """
        loop = asyncio.get_running_loop()
        while self._idle:
            upstream = self._idle.pop()
            is_fresh = loop.time() - upstream.idle_since < self._keep_alive
            if is_fresh and upstream.url == url and upstream.is_open:
                return upstream
            self.discard(upstream)
        return await self._open_to(url)

    async def is_there(self, url: str) -> bool:
        """Whether *url* answers, or did so recently."""
        now = asyncio.get_running_loop().time()
        if self._answered == url and now - self._answered_at < _LOOK_INTERVAL:
            return True
        if not await self.answers(url):
            return False
        self._answered, self._answered_at = url, now
        return True

    async def answers(self, url: str) -> bool:
        """Whether *url* answers a quick request now, on a new connection."""
        upstream: Upstream | None = None
        try:
            async with asyncio.timeout(_LOOK_DEADLINE):
                upstream = await self._open_to(url)
                upstream.begin("GET", _LOOK % (urlsplit(url).hostname or "").encode())
                return await upstream.arrives(_LOOK_DEADLINE)
        except (OSError, UpstreamLost):
            return False
        finally:
            if upstream is not None:
                self.discard(upstream)

    async def _open_to(self, url: str) -> Upstream:
        loop, parts = asyncio.get_running_loop(), urlsplit(url)
        try:
            async with asyncio.timeout(_CONNECT_DEADLINE):
                _, upstream = await loop.create_connection(
                    lambda: Upstream(url),
                    parts.hostname or "",
                    parts.port or (443 if parts.scheme == "https" else 80),
                    ssl=self._tls_of(parts),
                )
        except OSError as error:
            self._note(url, _reason(error))
            raise
        self._note(url, None)
        self._open.add(upstream)
        return upstream

    def _note(self, url: str, trouble: str | None) -> None:
        if trouble is not None and trouble != self.trouble:
            _log.warning("active instance unreachable", url=url, reason=trouble)
        elif trouble is None and self.trouble is not None:
            _log.info("active instance reachable", url=url)
        self.trouble = trouble

    def release(self, upstream: Upstream) -> None:
        """Keep a connection whose response has ended; close it if it cannot be reused."""
        if upstream.is_reusable and len(self._idle) < _MAX_IDLE:
            upstream.idle_since = asyncio.get_running_loop().time()
            self._idle.append(upstream)
        else:
            self.discard(upstream)

    def discard(self, upstream: Upstream) -> None:
        self._open.discard(upstream)
        upstream.close()

    def keep_only(self, url: str | None) -> None:
        """Close the connections to other instances; those in use, after a grace period.

        An instance that hands over still refuses the requests sent to it; they are then sent
        elsewhere.
        """
        others = {each for each in self._open if each.url != url}
        for upstream in others.intersection(self._idle):
            self.discard(upstream)
        self._idle = deque(each for each in self._idle if each.url == url)
        self._end_grace()
        if others & self._open:
            loop = asyncio.get_running_loop()
            self._grace = loop.call_later(_GRACE, self._discard_others, url)

    def close(self) -> None:
        self._end_grace()
        self._discard_others(None)
        self._idle.clear()

    def _discard_others(self, url: str | None) -> None:
        for upstream in [each for each in self._open if each.url != url]:
            self.discard(upstream)

    def _end_grace(self) -> None:
        if self._grace is not None:
            self._grace.cancel()

    def _tls_of(self, parts: SplitResult) -> ssl.SSLContext | None:
        if parts.scheme != "https":
            return None
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls


def _reason(error: OSError) -> str:
    match error:
        case ssl.SSLCertVerificationError():
            return f"its certificate is not accepted here ({error.verify_message})"
        case ssl.SSLError():
            return f"TLS with it fails ({error.reason})"
        case TimeoutError():
            return f"it does not answer within {_CONNECT_DEADLINE:g} s"
        case socket.gaierror():
            return "its host name cannot be resolved"
    # The loop itself words what several addresses answered.
    return os.strerror(error.errno) if error.errno else "no address of it can be reached"
