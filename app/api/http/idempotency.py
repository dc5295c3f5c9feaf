"""Idempotency-Key: an action sent twice is done once and gets the same response both times.

Responses are kept in memory for 24 hours, but not beyond a restart: the newest 1000 keys of each
caller, and 64 MiB for all callers together, of which the caller with most of it loses its oldest.
So actions that work without the catalog also work with a key. Final responses are stored, refusals
included. Responses are not stored if the request was not processed (400, 401, 422 …), should be
retried (429) or failed (5xx): then the same key tries again. For a response with a password, only
the fact that it was sent is stored.
"""

import hashlib
import json
import re
from collections import Counter, OrderedDict, defaultdict
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
# For all callers together.
MAX_TOTAL_BYTES = 64 * 1024 * 1024
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_INVALID_KEY = "Send one Idempotency-Key of 1 to 255 visible ASCII characters."
_KEYED_METHODS = frozenset({"POST", "DELETE"})
_SUCCESSES = frozenset({200, 201, 202, 204})
_STORED_STATUSES = _SUCCESSES | {404, 409, 412}
_STORED_HEADERS = frozenset({b"content-type", b"etag", b"location"})

# A caller and the tenants they can access: a stored response shows no others.
Owner = tuple[str, frozenset[str] | None]


@dataclass(slots=True)
class StoredResponse:
    """A response to send again; *body* is None if it was not stored, because of *refusal*."""

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
    """All callers' requests by key, oldest first."""

    def __init__(self) -> None:
        self.by_owner: defaultdict[Owner, OrderedDict[str, KeyedRequest]] = defaultdict(OrderedDict)
        # The size of each stored response, in the order of storing; and their sums.
        self._sizes: defaultdict[Owner, dict[str, int]] = defaultdict(dict)
        self._bytes: Counter[Owner] = Counter()

    def begin(self, owner: Owner, key: str, fingerprint: bytes) -> StoredResponse | None:
        """Return the stored response to the same request; None for a new request, now in flight.

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
        """Store the response to a request; without a response, the key is free again."""
        if response is None:
            del self.by_owner[owner][key]
            return
        self.by_owner[owner][key].response = response
        size = len(response.body or b"")
        self._sizes[owner][key] = size
        self._bytes[owner] += size
        while self._bytes.total() > MAX_TOTAL_BYTES:
            # Otherwise one caller could make the actions of others be done twice.
            [(largest, _)] = self._bytes.most_common(1)
            self._drop(largest, next(iter(self._sizes[largest])))

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
        self._bytes[owner] -= self._sizes[owner].pop(key)


class ResponseReplayed(Exception):
    """The request was already answered."""

    def __init__(self, response: StoredResponse) -> None:
        super().__init__()
        self.response = response


class KeyReservation:
    """A request's use of its idempotency key.

    Attributes:
        has_secret: a successful response has a password and must not be stored.
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
            ResponseReplayed: the same request was already answered.
            RequestInFlight, IdempotencyKeyReused, ReplayTooLarge, ReplayHoldsSecret
        """
        stored = self._store.begin(self._owner, self._key, fingerprint)
        if stored is not None:
            raise ResponseReplayed(stored)
        self._is_active = True

    def record(self, message: Message) -> None:
        """Record a message that is sent, if the response is to be stored."""
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
                body, refusal = (None, ReplayHoldsSecret) if is_secret else (b"", ReplayTooLarge)
                self._response = StoredResponse(message["status"], headers, body, refusal)
        elif self._response is not None and self._response.body is not None:
            body = self._response.body + message.get("body", b"")
            self._response.body = body if len(body) <= MAX_BODY_BYTES else None

    def end(self) -> None:
        if self._is_active:
            self._store.end(self._owner, self._key, self._response)


def reservation_for(
    store: ResponseStore, scope: Scope, given: HeaderValues
) -> KeyReservation | Response | None:
    """The reservation for a request's key, made when its route asks for it.

    400 if the key is invalid; one that has no effect is ignored.
    """
    keys = given.get(b"idempotency-key")
    if keys is None or scope["method"] not in _KEYED_METHODS:
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
            "`Idempotency-Replayed: true`. The newest 1000 keys of each caller are kept for 24 "
            "hours, but not beyond a restart.",
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
        # Numbers that keep their digits have their own type.
        canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=repr)
        reservation.begin(hashlib.sha256(canonical.encode()).digest())


async def _canonical_body(request: Request) -> object:
    """Identify the body: by its JSON, or by its bytes if it is long, which takes no time."""
    body = await request.body()
    if len(body) > MAX_BODY_BYTES:
        return hashlib.sha256(body).hexdigest()
    return await request.json() if body else None


async def mark_secret(request: Request) -> None:
    """Do not store a successful response: a repetition gets 409 `replay-holds-secret`."""
    reservation: KeyReservation | None = request.scope["state"].get("reservation")
    if reservation is not None:
        reservation.has_secret = True


async def replay(_: Request, replayed: Exception) -> Response:
    """The stored response, marked as a replay."""
    assert isinstance(replayed, ResponseReplayed)  # noqa: S101 - Starlette's signature is wider
    stored = replayed.response
    headers = {**stored.headers, "Idempotency-Replayed": "true"}
    return Response(stored.body, stored.status, headers)
