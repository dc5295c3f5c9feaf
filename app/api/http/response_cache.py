"""Answers rendered of the newest snapshot: made once, sent to all dashboards that ask the same.

`Shortcut` answers before any route is looked for; whoever asks something new, or asks for it in
an unusual way, goes on to the route, which puts its answer here. A new snapshot is waited for by
all dashboards at once: the first of those who ask the same has it rendered.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from time import monotonic

from fastapi import Request, Response
from pydantic import BaseModel
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.auth.api_key import KeyScope
from app.api.auth.principal import Principal
from app.api.http.dependencies import Service
from app.control.monitoring.snapshot import Snapshot

# Of one snapshot; beyond it answers are rendered for each who asks.
MAX_BYTES = 16 * 1024 * 1024
# Polls after which a snapshot is stale.
_STALE_POLLS = 2
# What the age of a snapshot goes into; it is put in front of what is kept.
AGE_FIELDS = {"age_seconds", "stale"}
# Requests that bring one of these are the route's.
_UNUSUAL = {b"content-length", b"idempotency-key", b"transfer-encoding"}

CacheKey = tuple[str, bytes, frozenset[str] | None]


@dataclass(slots=True)
class CachedResponse:
    """What a question is answered with, and the same as it was sent last."""

    content: bytes
    age: int = -1
    body: bytes = b""
    tag: bytes = b""

    def set_age(self, age: int, *, stale: bool) -> None:
        """Tell this age, in whole seconds; the tag is that of the whole body."""
        if age != self.age:
            self.age = age
            told = b"true" if stale else b"false"
            self.body = b'{"age_seconds":%d,"stale":%s,%s' % (age, told, self.content)
            self.tag = b'"%s"' % blake2b(self.body, digest_size=12).hexdigest().encode()


class ResponseCache:
    """Answers of one snapshot, by question."""

    def __init__(self) -> None:
        """Keep nothing yet."""
        self._of: Snapshot | None = None
        self._answers: dict[CacheKey, CachedResponse] = {}
        self._bytes = 0

    def get(self, snapshot: Snapshot, question: CacheKey) -> CachedResponse | None:
        """What was answered of *snapshot*."""
        return self._answers.get(question) if snapshot is self._of else None

    def has_seen(self, question: CacheKey) -> bool:
        """Whether it was answered of the newest snapshot of which anything was."""
        return question in self._answers

    def store(self, snapshot: Snapshot, question: CacheKey, answer: CachedResponse) -> None:
        """Answer the same again, if there is room; what was of another snapshot is forgotten."""
        if snapshot is not self._of:
            self._of, self._answers, self._bytes = snapshot, {}, 0
        # As it is kept, and as it is sent.
        self._bytes += 2 * len(answer.content)
        if self._bytes <= MAX_BYTES:
            self._answers[question] = answer


def age_of(snapshot: Snapshot) -> int:
    """How old it is, in whole seconds."""
    return int(monotonic() - snapshot.at)


def is_stale(service: Service, age: float) -> bool:
    """Whether polls should have brought something newer than that long ago."""
    return age > _STALE_POLLS * service.limits.poll_interval


def render_response(
    request: Request,
    snapshot: Snapshot,
    model: BaseModel,
    *,
    leave_out: set[str] | None = None,
) -> Response:
    """*model*, which was made of *snapshot*, and its items without some of their fields."""
    service: Service = request.app.state.service
    caller: Principal = request.state.caller
    rendered: ResponseCache = request.app.state.rendered
    without: dict[str, object] = dict.fromkeys(AGE_FIELDS, True)
    if leave_out:
        without["items"] = {"__all__": leave_out}
    text = model.model_dump_json(exclude=without)  # type: ignore[arg-type]
    answer = CachedResponse(text.encode()[1:])
    age = age_of(snapshot)
    answer.set_age(age, stale=is_stale(service, age))
    question = (request.url.path, request.scope["query_string"], caller.tenants)
    rendered.store(snapshot, question, answer)
    headers = {"ETag": answer.tag.decode()}
    return Response(answer.body, headers=headers, media_type="application/json")


class CachedResponses:
    """Answers what was answered before, of the same snapshot, to somebody who may see as much."""

    def __init__(self, app: ASGIApp) -> None:
        """Stand before *app*, and after whoever knows the caller."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer, or pass the request on."""
        is_read = scope["type"] == "http" and scope["method"] == "GET"
        answer = await _known(scope) if is_read else None
        if answer is None:
            await self._app(scope, receive, send)
            return
        tags = [value for name, value in scope["headers"] if name == b"if-none-match"]
        headers = [(b"etag", answer.tag)]
        if tags and tags != [answer.tag]:
            await self._app(scope, receive, send)
            return
        if not tags:
            length = str(len(answer.body)).encode()
            headers += [(b"content-length", length), (b"content-type", b"application/json")]
        status, body = (304, b"") if tags else (200, answer.body)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def _known(scope: Scope) -> CachedResponse | None:
    state = scope["app"].state
    service: Service | None = getattr(state, "service", None)
    caller: Principal = scope["state"]["caller"]
    if service is None or KeyScope.READ not in caller.scopes:
        return None
    rendered: ResponseCache = state.rendered
    question = (scope["path"], scope["query_string"], caller.tenants)
    if not rendered.has_seen(question):
        return None
    if not _UNUSUAL.isdisjoint([name for name, _ in scope["headers"]]):
        return None
    snapshot = service.snapshots.fresh or await service.snapshots.current()
    answer = rendered.get(snapshot, question)
    if answer is not None:
        age = age_of(snapshot)
        answer.set_age(age, stale=is_stale(service, age))
    return answer
