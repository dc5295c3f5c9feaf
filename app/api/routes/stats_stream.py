"""Statistics as a stream of server-sent events: one event after each poll.

There is no queue: slow readers skip events and get the latest one. An event is rendered once for
all followers that can access the same tenants.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from app.api.auth.authenticator import Authenticator
from app.api.auth.key_scope import KeyScope
from app.api.auth.principal import Principal
from app.api.http.authentication import REQUIRE_READ
from app.api.http.dependencies import AuthenticatorDep, PrincipalDep, provided
from app.api.http.error_responses import problem_responses
from app.api.http.strict_route import StrictRoute
from app.api.views.stats import stats_event
from app.control.monitoring.snapshot import Snapshot, Snapshots
from app.domain.errors import TooManyStreams

# Between two events, a comment at this interval shows each side that the other is alive.
_KEEP_ALIVE_SECONDS = 15.0
_KEEP_ALIVE = b": keep-alive\n\n"
_EVENTS_PER_SECOND = 2000
# One key leaves room for others.
_MAX_STREAMS_OF_KEY = 50
_EXAMPLE = """event: stats
id: 417
data: {"as_of":"2026-11-20T09:12:34Z","sequence":417,"totals":{…},"servers":[…]}
"""

router = APIRouter(prefix="/v1", tags=["stats"], route_class=StrictRoute)


class StatsStreams:
    """All open streams."""

    def __init__(self, snapshots: Snapshots, limit: int) -> None:
        self.open = 0
        self._of_key: Counter[str | None] = Counter()
        self._snapshots = snapshots
        self._limit = limit
        self._rendered_of: Snapshot | None = None
        self._rendered: dict[frozenset[str] | None, bytes] = {}

    def limit_to(self, limit: int) -> None:
        """Lower the limit to *limit*, because other requests need connections, too."""
        self._limit = min(self._limit, limit)

    def register(self, principal: Principal) -> None:
        """Count a stream of *principal*, until `unregister`.

        Raises:
            TooManyStreams: there are too many streams, or too many with this key.
        """
        if self.open >= self._limit:
            raise TooManyStreams(f"{self.open} streams are open; try again later.")
        key = principal.key_id
        if key is not None and self._of_key[key] >= _MAX_STREAMS_OF_KEY:
            raise TooManyStreams(f"This key has {_MAX_STREAMS_OF_KEY} streams open.")
        self.open += 1
        self._of_key[key] += 1

    def unregister(self, principal: Principal) -> None:
        self.open -= 1
        self._of_key[principal.key_id] -= 1
        if not self._of_key[principal.key_id]:
            del self._of_key[principal.key_id]

    async def events(
        self, authenticator: Authenticator, authorization: list[str]
    ) -> AsyncIterator[bytes]:
        """The events of a stream, until its key loses its permission or the service stops."""
        snapshot: Snapshot | None = await self._snapshots.current()
        while snapshot is not None:
            principal = authenticator.authenticate(authorization)
            if not isinstance(principal, Principal) or KeyScope.READ not in principal.scopes:
                return
            sent = snapshot.sequence
            yield self._event(snapshot, principal.tenants)
            snapshot = None
            while snapshot is None and not self._snapshots.is_closed:
                try:
                    async with asyncio.timeout(_KEEP_ALIVE_SECONDS):
                        snapshot = await self._snapshots.wait_published(sent)
                except TimeoutError:
                    yield _KEEP_ALIVE
            # Not all streams in one iteration of the event loop.
            await asyncio.sleep(random.random() * self.open / _EVENTS_PER_SECOND)  # noqa: S311

    def _event(self, snapshot: Snapshot, tenants: frozenset[str] | None) -> bytes:
        if snapshot is not self._rendered_of:
            self._rendered_of, self._rendered = snapshot, {}
        if tenants not in self._rendered:
            data = stats_event(snapshot, tenants).model_dump_json()
            event = f"event: stats\nid: {snapshot.sequence}\ndata: {data}\n\n"
            self._rendered[tenants] = event.encode()
        return self._rendered[tenants]


class EventStream(StreamingResponse):
    """A stream that counts while it is sent."""

    media_type = "text/event-stream"

    def __init__(
        self, streams: StatsStreams, principal: Principal, events: AsyncIterator[bytes]
    ) -> None:
        super().__init__(events)
        self._streams = streams
        self._principal = principal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Registered only here: a request that ends before its response begins would never
        # unregister.
        self._streams.register(self._principal)
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._streams.unregister(self._principal)


@router.get(
    "/stats/stream",
    dependencies=[REQUIRE_READ],
    summary="Stream the service's statistics",
    response_class=StreamingResponse,
    responses=problem_responses()
    | {
        200: {
            "description": "Server-sent events, without end.",
            "content": {"text/event-stream": {"schema": {"type": "string"}, "example": _EXAMPLE}},
        }
    },
)
async def stream_stats(
    request: Request,
    streams: Annotated[StatsStreams, provided(StatsStreams)],
    authenticator: AuthenticatorDep,
    principal: PrincipalDep,
) -> Response:
    """Sends an event `stats` at once and after each poll: totals and servers as in `/v1/stats`.

    Totals cover the tenants that the key can access. Slow readers skip events and get the latest
    one. A comment every 15 seconds keeps the connection alive. The stream ends when the key loses
    its permission or the service stops.
    """
    if getattr(request.state, "is_head", False):
        return Response(media_type=EventStream.media_type)
    authorization = request.headers.getlist("authorization")
    return EventStream(streams, principal, streams.events(authenticator, authorization))
