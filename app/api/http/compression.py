"""Responses compressed with gzip, for clients that accept it.

Only responses to GET that come in one piece and are not small. They contain no secrets and no data
of tenants, so nothing can be guessed from their length (breachattack.com). A response with
`no-store` may contain some, and is not compressed. A compressed response is another representation
of its resource, with its own strong ETag: the plain one with the suffix `-gzip`.
"""

import asyncio
import zlib
from collections.abc import Sequence
from functools import lru_cache

from starlette.types import Message, Send

from app.api.http.request_checks import HeaderValues

# Smaller ones are sent as they are: they fit into a few packets.
MIN_BYTES = 4096
# JSON becomes a sixth; higher levels take up to four times as long for a tenth of the rest.
_LEVEL = 1
_GZIP = 31  # zlib's window bits: the largest window, in gzip's format
# Compressed at once. Larger ones in a thread, as a megabyte takes 10 ms.
_MAX_INLINE = 32 * 1024
_TYPES = (b"application/json", b"application/openmetrics-text", b"text/plain")


def accepts_gzip(given: HeaderValues) -> bool:
    """Whether these request headers accept a compressed response."""
    values = given.get(b"accept-encoding")
    return values is not None and _names_gzip(",".join(values))


@lru_cache(maxsize=256)
def _names_gzip(header: str) -> bool:
    """Whether an Accept-Encoding accepts gzip, by name or by `*`, with a weight above zero."""
    weights = {}
    for coding in header.lower().split(","):
        name, _, parameter = coding.partition(";")
        key, _, value = parameter.partition("=")
        weights[name.strip()] = value.strip(" 0.") if key.strip() == "q" else "1"
    return bool(weights.get("gzip", weights.get("*")))


async def compress(body: bytes) -> bytes:
    """Compress *body* to gzip format without blocking the event loop."""
    if len(body) <= _MAX_INLINE:
        return zlib.compress(body, _LEVEL, _GZIP)
    return await asyncio.to_thread(zlib.compress, body, _LEVEL, _GZIP)


def encoded_etag(tag: bytes) -> bytes:
    return tag[:-1] + b'-gzip"'


class GzipSender:
    """Sends a response, compressed if that is worthwhile."""

    def __init__(self) -> None:
        # The start of a response, held until its body comes.
        self._start: Message | None = None

    async def send(self, message: Message, send: Send) -> None:
        if message["type"] == "http.response.start" and _is_compressible(message):
            self._start = message
            return
        start, self._start = self._start, None
        if start is not None:
            body = message.get("body", b"")
            if len(body) >= MIN_BYTES and not message.get("more_body", False):
                message = {**message, "body": await compress(body)}
                start = {**start, "headers": _headers(start["headers"], len(message["body"]))}
            await send(start)
        await send(message)


def _is_compressible(start: Message) -> bool:
    headers = dict(start["headers"])
    return (
        start["status"] == 200  # noqa: PLR2004 - OK
        and headers.get(b"content-type", b"").startswith(_TYPES)
        and b"content-encoding" not in headers
        and headers.get(b"cache-control") != b"no-store"
    )


def _headers(headers: Sequence[tuple[bytes, bytes]], length: int) -> list[tuple[bytes, bytes]]:
    encoded = [(b"content-encoding", b"gzip"), (b"content-length", str(length).encode())]
    for name, value in headers:
        if name == b"etag":
            encoded.append((name, encoded_etag(value)))
        elif name != b"content-length":
            encoded.append((name, value))
    return encoded
