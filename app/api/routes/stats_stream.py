"""The statistics as a stream of server-sent events; what is sent is the matter of `streams.py`."""

from __future__ import annotations

from collections.abc import AsyncIterator

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from app.api.auth.authenticator import REQUIRE_READ
from app.api.auth.principal import Principal
from app.api.http.dependencies import AuthenticatorDep, PrincipalDep, ServiceDep
from app.api.http.error_responses import problem_responses
from app.api.http.strict_route import StrictRoute
from app.api.routes.streams import StatsStreams

_EXAMPLE = """event: beat
id: 417
data: {"as_of":"2026-11-20T09:12:34Z","sequence":417,"totals":{…},"servers":[…]}
"""

router = APIRouter(prefix="/v1", tags=["stats"], route_class=StrictRoute)


class EventStream(StreamingResponse):
    """The response that goes on."""

    media_type = "text/event-stream"

    def __init__(
        self, streams: StatsStreams, caller: Principal, events: AsyncIterator[bytes]
    ) -> None:
        """Send *events* to *caller*, who is counted among *streams* meanwhile."""
        super().__init__(events)
        self._streams = streams
        self._caller = caller

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them until either end has enough.

        Counted only here: a request that ends before its response begins would never leave.

        Raises:
            TooManyStreams: nothing was sent.
        """
        self._streams.register(self._caller)
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._streams.unregister(self._caller)


@router.get(
    "/stats/stream",
    dependencies=[REQUIRE_READ],
    summary="Follow the service's statistics",
    response_class=StreamingResponse,
    responses=problem_responses()
    | {
        200: {
            "description": "Server-sent events without an end.",
            "content": {"text/event-stream": {"schema": {"type": "string"}, "example": _EXAMPLE}},
        }
    },
)
async def stream_stats(
    request: Request, service: ServiceDep, door: AuthenticatorDep, caller: PrincipalDep
) -> Response:
    """An event `beat` at once, and one after each poll: totals and servers as in `/v1/stats`.

    For a key that is bound to tenants the totals are of these alone. Who reads slowly misses
    beats and gets the newest; a comment every 15 seconds keeps the connection alive. The stream
    ends when the key does, or the service.
    """
    if getattr(request.state, "is_head", False):
        return Response(media_type=EventStream.media_type)
    authorization = request.headers.getlist("authorization")
    return EventStream(service.streams, caller, service.streams.events(door, authorization))
