"""Idempotency-Key: an action sent twice is done once and gets the same response both times.

Responses are kept in memory for 24 hours: until a restart at most, the newest 1000 keys of each
caller, 64 MiB of all callers together. Actions that work without the catalog thus work with a key
too. Final responses are stored, refusals included; not those to requests that were never
processed (400, 401, 422 …), should be retried (429) or failed (5xx): the same key tries again.
Of a response with a password, only that there was one is kept.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import OrderedDict, defaultdict
from dataclasses import dataclass
from time import monotonic
from typing import Annotated

from fastapi import Header, Request, Response
from starlette.types import Message, Scope

from app.api.auth.principal import Principal
from app.api.http.error_responses import problem_response
from app.api.http.request_checks import HeaderValues
from app.domain.errors import (
    Conflict,
    IdempotencyKeyReused,
    ReplayHoldsSecret,
    ReplayTooLarge,
    RequestInFlight,
)

RETENTION_SECONDS = 24 * 3600.0
MAX_KEYS = 1000
MAX_BODY_BYTES = 64 * 1024
# Of all callers together.
MAX_TOTAL_BYTES = 64 * 1024 * 1024
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_INVALID_KEY = "Send one Idempotency-Key of 1 to 255 visible ASCII characters."
_SUCCESSES = frozenset({200, 201, 202, 204})
_STORED_STATUSES = _SUCCESSES | {404, 409, 412}
_STORED_HEADERS = frozenset({b"content-type", b"etag", b"location"})

# A caller and the tenants they can access: a response shows no others.
Owner = tuple[str, frozenset[str] | None]


@dataclass(slots=True)
class StoredResponse:
    """A response to send again; *body* is None when it was not stored, for the reason *refusal*."""

    status: int
    headers: dict[str, str]
    body: bytes | None
    refusal: type[Conflict] = ReplayTooLarge


@dataclass(slots=True)
class KeyedRequest:
    """The first request with a key; *response* is None while it is in flight."""

    fingerprint: bytes
    at: float
    response: StoredResponse | None = None


class ResponseStore:
    """Every caller's requests by key, oldest first."""

    def __init__(self) -> None:
        self.by_owner: defaultdict[Owner, OrderedDict[str, KeyedRequest]] = defaultdict(OrderedDict)
        # The size of each stored response, in the order in which they were stored.
        self._sizes: OrderedDict[tuple[Owner, str], int] = OrderedDict()
        self._bytes = 0

    def begin(self, owner: Owner, key: str, fingerprint: bytes) -> StoredResponse | None:
        """The response to the same request before; None for a new request, which is in flight now.

        Raises:
            RequestInFlight, IdempotencyKeyReused, ReplayTooLarge, ReplayHoldsSecret
        """
        requests = self.by_owner[owner]
        self._drop_old(owner, requests)
        before = requests.get(key)
        if before is None:
            requests[key] = KeyedRequest(fingerprint, monotonic())
            return None
        if before.fingerprint != fingerprint:
            raise IdempotencyKeyReused
        if before.response is None:
            raise RequestInFlight
        if before.response.body is None:
            raise before.response.refusal
        return before.response

    def end(self, owner: Owner, key: str, response: StoredResponse | None) -> None:
        """Store the response to a request; without one, the key is free again."""
        if response is None:
            del self.by_owner[owner][key]
            return
        self.by_owner[owner][key].response = response
        size = len(response.body or b"")
        self._sizes[owner, key] = size
        self._bytes += size
        while self._bytes > MAX_TOTAL_BYTES:
            self._drop(*next(iter(self._sizes)))

    def _drop_old(self, owner: Owner, requests: OrderedDict[str, KeyedRequest]) -> None:
        expiry = monotonic() - RETENTION_SECONDS
        surplus = len(requests) - MAX_KEYS + 1
        old: list[str] = []
        for key, request in requests.items():
            if len(old) >= surplus and request.at > expiry:
                break
            if request.response is not None:
                old.append(key)
        for key in old:
            self._drop(owner, key)

    def _drop(self, owner: Owner, key: str) -> None:
        del self.by_owner[owner][key]
        self._bytes -= self._sizes.pop((owner, key))


class ResponseReplayed(Exception):
    """The request was answered before."""

    def __init__(self, response: StoredResponse) -> None:
        super().__init__()
        self.response = response


class KeyReservation:
    """One request's use of its key.

    Attributes:
        has_secret: a success has a password, and is not to be stored.
    """

    def __init__(self, store: ResponseStore, owner: Owner, key: str) -> None:
        self._store = store
        self._owner = owner
        self._key = key
        self._is_active = False
        self._response: StoredResponse | None = None
        self.has_secret = False

    def begin(self, fingerprint: bytes) -> None:
        """Reserve the key.

        Raises:
            ResponseReplayed: the same request was answered before.
            RequestInFlight, IdempotencyKeyReused, ReplayTooLarge, ReplayHoldsSecret
        """
        stored = self._store.begin(self._owner, self._key, fingerprint)
        if stored is not None:
            raise ResponseReplayed(stored)
        self._is_active = True

    def record(self, message: Message) -> None:
        """Keep what is sent, if it is to be stored."""
        if not self._is_active:
            return
        if message["type"] == "http.response.start":
            headers = {
                name.decode("latin-1"): value.decode("latin-1")
                for name, value in message["headers"]
                if name.lower() in _STORED_HEADERS
            }
            is_dry_run = any(name.lower() == b"dry-run" for name, _ in message["headers"])
            if message["status"] in _STORED_STATUSES and not is_dry_run:
                is_secret = self.has_secret and message["status"] in _SUCCESSES
                self._response = (
                    StoredResponse(message["status"], headers, None, ReplayHoldsSecret)
                    if is_secret
                    else StoredResponse(message["status"], headers, b"")
                )
        elif self._response is not None and self._response.body is not None:
            body = self._response.body + message.get("body", b"")
            self._response.body = body if len(body) <= MAX_BODY_BYTES else None

    def end(self) -> None:
        if self._is_active:
            self._store.end(self._owner, self._key, self._response)


def reservation_for(
    store: ResponseStore, scope: Scope, given: HeaderValues
) -> KeyReservation | Response | None:
    """What a request's key reserves once its route asks for it; 400 for an invalid one."""
    keys = given.get(b"idempotency-key")
    if keys is None:
        return None
    if len(keys) > 1 or not _KEY.fullmatch(keys[0]):
        return problem_response(Request(scope), 400, "bad-idempotency-key", _INVALID_KEY)
    principal: Principal = scope["state"]["principal"]
    owner = (principal.key_id or principal.name, principal.tenants)
    return KeyReservation(store, owner, keys[0])


async def reserve_key(
    request: Request,
    _: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            max_length=255,
            description="1 to 255 visible ASCII characters. A repeated request with the same key "
            "is not carried out again: it gets the first response, with "
            "`Idempotency-Replayed: true`. Keys are kept for 24 hours, until a restart at most, "
            "and the newest 1000 per caller.",
        ),
    ] = None,
) -> None:
    """Reserve the request's key, if it has one.

    Raises:
        ResponseReplayed, RequestInFlight, IdempotencyKeyReused, ReplayTooLarge, ReplayHoldsSecret
    """
    reservation: KeyReservation | None = request.scope["state"].get("reservation")
    if reservation is not None:
        body = await _canonical_body(request)
        query = sorted(request.query_params.multi_items())
        parts = [request.method, request.scope["path"], query, body]
        # Where numbers keep their digits, they have a type of their own.
        canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=repr)
        reservation.begin(hashlib.sha256(canonical.encode()).digest())


async def _canonical_body(request: Request) -> object:
    """What identifies the body: its JSON, but of a long one its bytes, which take no time."""
    body = await request.body()
    if len(body) > MAX_BODY_BYTES:
        return hashlib.sha256(body).hexdigest()
    return await request.json() if body else None


async def mark_secret(request: Request) -> None:
    """Store no success of the request: a repetition gets 409 `replay-holds-secret`."""
    reservation: KeyReservation | None = request.scope["state"].get("reservation")
    if reservation is not None:
        reservation.has_secret = True


async def replay(_: Request, replayed: Exception) -> Response:
    """The stored response, marked as a replay."""
    assert isinstance(replayed, ResponseReplayed)  # noqa: S101 - Starlette's signature is wider
    stored = replayed.response
    headers = {**stored.headers, "Idempotency-Replayed": "true"}
    return Response(stored.body, stored.status, headers)
