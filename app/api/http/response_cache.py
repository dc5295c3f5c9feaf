"""Responses from the latest snapshot: rendered once, sent to all dashboards with the same request.

`send_cached` answers before routing. A new or unusual request goes on to its route, whose response
is stored here. When many dashboards wait for a new snapshot, the first of each kind of request has
it rendered, and the others wait for that. What the tenants of a principal decide is in the key; a
route that shows more to some principals than to others for another reason must not use the cache.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any

from fastapi import Request, Response
from pydantic import BaseModel
from starlette.types import Scope, Send

from app.api.auth.key_scope import KeyScope
from app.api.auth.principal import Principal
from app.api.http.compression import MIN_BYTES, accepts_gzip, compress, encoded_etag
from app.api.http.etags import content_etag
from app.api.http.request_checks import HeaderValues
from app.api.http.sparse_fields import rendered
from app.control.monitoring.snapshot import Snapshot, Snapshots

# For each snapshot; beyond it, responses are rendered for each request.
MAX_BYTES = 16 * 1024 * 1024
# Fields with a snapshot's age; they are put before the stored body.
AGE_FIELDS = {"age_seconds", "stale"}
_JSON = (b"content-type", b"application/json")
# Requests with one of these headers are left to the route.
_UNUSUAL = {b"content-length", b"transfer-encoding"}

# Path, query, and the tenants that the principal can access.
CacheKey = tuple[str, bytes, frozenset[str] | None]


@dataclass(slots=True)
class CachedResponse:
    """A body without its age, if it has one, and the body that was last sent."""

    content: bytes
    has_age: bool = True
    age: int = -1
    body: bytes = b""
    etag: bytes = b""
    _compression: asyncio.Task[bytes] | None = None

    def set_age(self, age: int, *, stale: bool) -> None:
        """*age*: in whole seconds. The ETag is that of the whole body."""
        if age != self.age and (self.has_age or not self.body):
            self.age = age
            is_stale = b"true" if stale else b"false"
            fields = b'"age_seconds":%d,"stale":%s,' % (age, is_stale) if self.has_age else b""
            self.body = b"{%s%s" % (fields, self.content)
            self.etag = content_etag(self.body).encode()
            self._compression = None

    async def compressed(self) -> bytes:
        """The body in gzip format; compressed once for all that wait for it."""
        if self._compression is None:
            self._compression = asyncio.create_task(compress(self.body), name="response: compress")
        return await asyncio.shield(self._compression)


class ResponseCache:
    """The snapshots for responses, and the responses rendered from the latest one."""

    def __init__(self, snapshots: Snapshots, stale_after: float) -> None:
        """*stale_after*: seconds after which a snapshot is reported as stale."""
        self._snapshots = snapshots
        self._stale_after = stale_after
        self._of: Snapshot | None = None
        self._responses: dict[CacheKey, CachedResponse] = {}
        self._bytes = 0
        # By path: one of its responses at a time.
        self._rendering: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def snapshot(self) -> Snapshot:
        """Return a snapshot that shows every change made before this call."""
        return self._snapshots.fresh or await self._snapshots.current()

    def invalidate(self) -> None:
        """Note a change: the next response is rendered from a new snapshot."""
        self._snapshots.invalidate()

    def is_stale(self, age: float) -> bool:
        return age > self._stale_after

    def age_fields(self, snapshot: Snapshot) -> dict[str, Any]:
        age = age_of(snapshot)
        return {"as_of": snapshot.as_of, "age_seconds": age, "stale": self.is_stale(age)}

    async def get(self, key: CacheKey) -> CachedResponse | None:
        """The stored response to *key*, if the current snapshot has one.

        It waits for a new snapshot only if the previous one had a response to *key*.
        """
        if key not in self._responses:
            return None
        snapshot = await self.snapshot()
        if snapshot is not self._of or (response := self._responses.get(key)) is None:
            return None
        age = age_of(snapshot)
        response.set_age(age, stale=self.is_stale(age))
        return response

    async def respond(
        self,
        request: Request,
        make: Callable[[Snapshot], Awaitable[BaseModel]],
        *,
        exclude: set[str] | None = None,
    ) -> Response:
        """Respond with what *make* makes of the snapshot; its items without the *exclude* fields.

        It takes several turns of the event loop. Others who want the same wait for it.
        """
        key = cache_key(request.scope)
        async with self._rendering[request.scope["path"]]:
            if (stored := await self.get(key)) is None:
                snapshot = await self.snapshot()
                page = await make(snapshot)
                body = await rendered(page, {"items": exclude or set()}, without=AGE_FIELDS)
                has_age = type(page).model_fields.keys() >= AGE_FIELDS
                stored = CachedResponse(body[1:], has_age=has_age)
                age = age_of(snapshot)
                stored.set_age(age, stale=self.is_stale(age))
                self._store(snapshot, key, stored)
        headers = {"ETag": stored.etag.decode()}
        return Response(stored.body, headers=headers, media_type="application/json")

    def _store(self, snapshot: Snapshot, key: CacheKey, response: CachedResponse) -> None:
        if snapshot is not self._of:
            if self._of is not None and snapshot.sequence < self._of.sequence:
                return  # a newer one was taken in the meantime
            self._of, self._responses, self._bytes = snapshot, {}, 0
        # As it is stored, and as it is sent.
        self._bytes += 2 * len(response.content)
        if self._bytes <= MAX_BYTES:
            self._responses[key] = response


def age_of(snapshot: Snapshot) -> int:
    """In whole seconds."""
    return int(monotonic() - snapshot.at)


def cache_key(scope: Scope) -> CacheKey:
    principal: Principal = scope["state"]["principal"]
    return scope["path"], scope["query_string"], principal.tenants


async def send_cached(scope: Scope, given: HeaderValues, send: Send) -> bool:
    """Send the cached response to a GET, if there is one and its principal may read it."""
    cache: ResponseCache | None = scope["app"].state.response_cache
    principal: Principal = scope["state"]["principal"]
    is_usual = KeyScope.READ in principal.scopes and _UNUSUAL.isdisjoint(given)
    response = await cache.get(cache_key(scope)) if cache is not None and is_usual else None
    if response is None:
        return False
    body, etag = response.body, response.etag
    if known := given.get(b"if-none-match"):
        tag = ",".join(known).encode("latin-1")
        if tag not in {etag, encoded_etag(etag)}:
            return False
        await _send(send, 304, b"", (b"etag", tag))
    elif len(body) >= MIN_BYTES and accepts_gzip(given):
        body, etag = await response.compressed(), encoded_etag(etag)
        await _send(send, 200, body, _JSON, (b"content-encoding", b"gzip"), (b"etag", etag))
    else:
        await _send(send, 200, body, _JSON, (b"etag", etag))
    return True


async def _send(send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    length = (b"content-length", str(len(body)).encode())
    sized = [*headers, length] if body else headers
    await send({"type": "http.response.start", "status": status, "headers": sized})
    await send({"type": "http.response.body", "body": body})
