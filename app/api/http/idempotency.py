"""Idempotency-Key: an action sent twice is done once, and answered alike both times.

Answers are kept in memory: a request may be repeated for 24 hours, or until the service
restarts, or until its caller has brought a thousand other keys, or all callers together 64 MiB
of answers. That needs no catalog, so
actions that work without it work with a key too. Kept is what an action answered, be it that
it cannot be done; not what says that the request was never looked at (400, 401, 422 …), that it
should be tried again (429) or that something went wrong (5xx): the same key tries again then.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import OrderedDict, defaultdict
from dataclasses import dataclass, field
from time import monotonic
from typing import Annotated

from fastapi import Header, Request, Response
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.auth.principal import Principal
from app.api.http.error_responses import problem_response
from app.domain.errors import IdempotencyKeyReused, ReplayTooLarge, RequestInFlight

RETENTION_SECONDS = 24 * 3600.0
MAX_KEYS = 1000
MAX_BODY_BYTES = 64 * 1024
# Of all callers' bodies together.
MAX_TOTAL_BYTES = 64 * 1024 * 1024
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_BAD_KEY = "An Idempotency-Key is 1 to 255 visible ASCII characters, given once."
_KEPT_STATUSES = frozenset({200, 201, 202, 204, 404, 409, 412})
_KEPT_HEADERS = frozenset({b"content-type", b"etag", b"location"})

# Who they are, and the tenants that exist for them: an answer tells of no others.
Owner = tuple[str, frozenset[str] | None]


@dataclass(slots=True)
class StoredResponse:
    """What is sent again; *body* is None when it was too large to be kept."""

    status: int
    headers: dict[str, str]
    body: bytes | None


@dataclass(slots=True)
class KeyedRequest:
    """The first request with a key; *answer* is None while it is under way."""

    fingerprint: bytes
    at: float
    response: StoredResponse | None = None


@dataclass(slots=True)
class ResponseStore:
    """Every caller's attempts by key, oldest first."""

    by_owner: defaultdict[Owner, OrderedDict[str, KeyedRequest]] = field(
        default_factory=lambda: defaultdict(OrderedDict)
    )
    # What was answered, the earliest first, and how large each is.
    _sizes: OrderedDict[tuple[Owner, str], int] = field(default_factory=OrderedDict)
    _bytes: int = 0

    def begin(self, caller: Owner, key: str, fingerprint: bytes) -> KeyedRequest | StoredResponse:
        """A new attempt, or the answer to the one before.

        Raises:
            RequestInFlight, IdempotencyKeyReused, ReplayTooLarge
        """
        attempts = self.by_owner[caller]
        self._forget_old(caller, attempts)
        before = attempts.get(key)
        if before is None:
            attempts[key] = KeyedRequest(fingerprint, monotonic())
            return attempts[key]
        if before.fingerprint != fingerprint:
            raise IdempotencyKeyReused
        if before.response is None:
            raise RequestInFlight
        if before.response.body is None:
            raise ReplayTooLarge
        return before.response

    def end(self, caller: Owner, key: str, answer: StoredResponse | None) -> None:
        """Keep what an attempt came to; None: nothing that another attempt should be told."""
        if answer is None:
            del self.by_owner[caller][key]
            return
        self.by_owner[caller][key].response = answer
        size = len(answer.body or b"")
        self._sizes[caller, key] = size
        self._bytes += size
        while self._bytes > MAX_TOTAL_BYTES:
            self._forget(*next(iter(self._sizes)))

    def _forget_old(self, caller: Owner, attempts: OrderedDict[str, KeyedRequest]) -> None:
        too_old = monotonic() - RETENTION_SECONDS
        surplus = len(attempts) - MAX_KEYS + 1
        gone: list[str] = []
        for key, attempt in attempts.items():
            if len(gone) >= surplus and attempt.at > too_old:
                break
            if attempt.response is not None:
                gone.append(key)
        for key in gone:
            self._forget(caller, key)

    def _forget(self, caller: Owner, key: str) -> None:
        del self.by_owner[caller][key]
        self._bytes -= self._sizes.pop((caller, key))


class ResponseReplayed(Exception):
    """The request was answered before."""

    def __init__(self, answer: StoredResponse) -> None:
        """Keep the answer."""
        super().__init__()
        self.response = answer


class Idempotency:
    """Keeps the answers to requests that come with a key; `claim` says to which."""

    def __init__(self, app: ASGIApp) -> None:
        """Listen to the answers of *app*."""
        self._app = app
        self._answers = ResponseStore()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; if it claims its key, keep its answer."""
        keys = Headers(scope=scope).getlist("idempotency-key") if scope["type"] == "http" else []
        if not keys:
            await self._app(scope, receive, send)
            return
        if len(keys) > 1 or not _KEY.fullmatch(keys[0]):
            refusal = problem_response(Request(scope), 400, "bad-idempotency-key", _BAD_KEY)
            await refusal(scope, receive, send)
            return
        caller: Principal = scope["state"]["caller"]
        owner = (caller.key_id or caller.name, caller.tenants)
        claimed = KeyReservation(self._answers, owner, keys[0])
        scope["state"]["claim"] = claimed

        async def send_heard(message: Message) -> None:
            claimed.record(message)
            await send(message)

        try:
            await self._app(scope, receive, send_heard)
        finally:
            claimed.end()


class KeyReservation:
    """One request's hold on its key."""

    def __init__(self, answers: ResponseStore, caller: Owner, key: str) -> None:
        """Nothing is held before `begin`."""
        self._answers = answers
        self._caller = caller
        self._key = key
        self._is_held = False
        self._heard: StoredResponse | None = None

    def begin(self, fingerprint: bytes) -> None:
        """Hold the key.

        Raises:
            Repeated: with the answer to the same request before.
            RequestInFlight, IdempotencyKeyReused, ReplayTooLarge
        """
        found = self._answers.begin(self._caller, self._key, fingerprint)
        if isinstance(found, StoredResponse):
            raise ResponseReplayed(found)
        self._is_held = True

    def record(self, message: Message) -> None:
        """Note what is answered."""
        if not self._is_held:
            return
        if message["type"] == "http.response.start":
            headers = {
                name.decode("latin-1"): value.decode("latin-1")
                for name, value in message["headers"]
                if name.lower() in _KEPT_HEADERS
            }
            is_dry = any(name.lower() == b"dry-run" for name, _ in message["headers"])
            if message["status"] in _KEPT_STATUSES and not is_dry:
                self._heard = StoredResponse(message["status"], headers, b"")
        elif self._heard is not None and self._heard.body is not None:
            body = self._heard.body + message.get("body", b"")
            self._heard.body = body if len(body) <= MAX_BODY_BYTES else None

    def end(self) -> None:
        """Let the key go, with what was answered."""
        if self._is_held:
            self._answers.end(self._caller, self._key, self._heard)


async def reserve_key(
    request: Request,
    _: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            max_length=255,
            description="1 to 255 visible ASCII characters: the same request with the same key is "
            "done once, and answered again with `Idempotency-Replayed: true`. Kept for 24 hours, "
            "until a restart at most, and the newest 1000 of each caller.",
        ),
    ] = None,
) -> None:
    """Hold the key that came with the request, if one did.

    Raises:
        Repeated, RequestInFlight, IdempotencyKeyReused, ReplayTooLarge
    """
    held: KeyReservation | None = getattr(request.state, "claim", None)
    if held is not None:
        body = await request.json() if await request.body() else None
        query = sorted(request.query_params.multi_items())
        parts = [request.method, request.scope["path"], query, body]
        # Where numbers keep their digits, they are of a type of their own.
        canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=repr)
        held.begin(hashlib.sha256(canonical.encode()).digest())


async def replay(_: Request, repeated: Exception) -> Response:
    """The answer of the first time, marked."""
    assert isinstance(repeated, ResponseReplayed)  # noqa: S101 - Starlette's signature is wider
    answer = repeated.response
    headers = {**answer.headers, "Idempotency-Replayed": "true"}
    return Response(answer.body, answer.status, headers)
