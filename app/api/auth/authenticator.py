"""Who may come in: API keys as Bearer tokens, and a scope for every operation.

`Authentication` refuses strangers before anything is read of their body; each route says what
it takes by one of the `MAY_…`. A key never reaches a log, and strangers are all refused alike:
what was wrong is told to the operator alone.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from hmac import compare_digest

import structlog
from fastapi import Depends, Request, Security
from fastapi.openapi.models import HTTPBearer
from fastapi.security import SecurityScopes
from fastapi.security.base import SecurityBase
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as Connection
from structlog.contextvars import bind_contextvars, reset_contextvars

from app.api.auth.api_key import ApiKey, KeyScope, key_id_of, token_digest
from app.api.auth.key_file import KeyFile
from app.api.auth.principal import ANONYMOUS, UNRESTRICTED, Principal
from app.api.auth.rate_limits import RateLimits
from app.api.http.error_responses import problem_response
from app.domain.errors import KeyBoundToTenants, MissingScope

OPEN_PATHS = frozenset({"/", "/docs", "/livez", "/openapi.json", "/readyz"})
OPEN_PREFIXES = ("/docs/", "/page/")
_NO_DIGEST = bytes(32)
_NOT_KNOWN = "A valid API key is needed, sent as Authorization: Bearer and the key."
_TOO_OFTEN = "The key asks more often than it may."
_TOO_MANY_FAILURES = "Too many requests without a valid key came from this address."

_log = structlog.get_logger(__name__)


class AuthFailure(StrEnum):
    """Why somebody was not let in, or not any further."""

    NO_KEY = "no_key"
    MALFORMED = "malformed"
    UNKNOWN = "unknown"
    EXPIRED = "expired"
    MISSING_SCOPE = "missing_scope"
    TENANT_BOUND = "bound_to_tenants"


class Authenticator:
    """Tells keys apart, and counts who was refused."""

    def __init__(self, keys: KeyFile, limits: RateLimits) -> None:
        """Let in whoever has one of *keys*; everybody, as long as there are none."""
        self.keys = keys
        self.failures: Counter[AuthFailure] = Counter()
        self.rate_limited: Counter[str] = Counter()
        self._limits = limits

    def load_keys(self) -> None:
        """Read the keys, and say so if there are none.

        Raises:
            BadKeyFile: they cannot be read.
        """
        self.keys.load()
        if not self.keys.is_enforced:
            _log.warning(
                "no keys: every program on this machine may do everything",
                keys_file=str(self.keys.path),
            )

    def authenticate(self, authorization: Sequence[str]) -> ApiKey | Principal | AuthFailure:
        """Whose the Authorization headers of a request are."""
        if not self.keys.is_enforced:
            return UNRESTRICTED
        if not authorization:
            return AuthFailure.NO_KEY
        scheme, _, token = authorization[0].partition(" ")
        key_id = key_id_of(token.strip(" "))
        if len(authorization) > 1 or scheme.lower() != "bearer" or key_id is None:
            return AuthFailure.MALFORMED
        key = self.keys.find(key_id)
        # An id that nobody has takes the same steps as a wrong key.
        is_right = compare_digest(
            token_digest(token.strip(" ")), _NO_DIGEST if key is None else key.digest
        )
        if key is None or not is_right:
            return AuthFailure.UNKNOWN
        if key.expires_at is not None and key.expires_at <= datetime.now(UTC):
            return AuthFailure.EXPIRED
        return key

    def throttle(self, key: ApiKey) -> float:
        """Count a request; the seconds this key has to wait, 0 if it may pass."""
        wait = self._limits.check_key(key.id, key.requests_per_second)
        if wait:
            self.rate_limited["key"] += 1
        return wait

    def reject(self, failure: AuthFailure, address: str) -> float:
        """Count and tell a failure; the seconds this address should wait, 0 if it may try again."""
        wait = self._limits.check_address(address)
        if wait:
            self.rate_limited["address"] += 1
        self.record_failure(failure, client=address)
        return wait

    def record_failure(self, failure: AuthFailure, **facts: str) -> None:
        """Count a failure, and log it unless there were too many of late."""
        self.failures[failure] += 1
        if self._limits.should_log():
            _log.warning("refused", reason=str(failure), **facts)


class Authentication:
    """Puts the caller into the request, or answers 401 or 429 itself."""

    def __init__(self, app: ASGIApp) -> None:
        """Guard *app*, whose `state.door` knows the keys."""
        self._app = app

    async def __call__(self, connection: Connection, receive: Receive, send: Send) -> None:
        """Let the request pass with its caller, or refuse it."""
        if connection["type"] != "http":
            await self._app(connection, receive, send)
            return
        found = _identify(connection)
        if isinstance(found, Response):
            await found(connection, receive, send)
            return
        connection.setdefault("state", {})["caller"] = found
        # Undone by hand: this is done for every request, and a context manager costs twice that.
        bound = bind_contextvars(actor=found.name)
        try:
            await self._app(connection, receive, send)
        finally:
            reset_contextvars(**bound)


class RequiredScope(SecurityBase):
    """What a route takes: a key with its scope. In the document it is the route's security."""

    def __init__(self) -> None:
        """Describe the keys for the document."""
        self.scheme_name = "key"
        self.model = HTTPBearer(
            bearerFormat="poolkeeper_<id>_<secret>",
            description="A key that `poolkeeper keys new` made.",
        )

    async def __call__(self, request: Request, needed: SecurityScopes) -> None:
        """Let the caller pass.

        Raises:
            MissingScope: they may not do this.
        """
        caller: Principal = request.state.caller
        for scope in needed.scopes:
            if scope not in caller.scopes:
                request.app.state.door.record_failure(
                    AuthFailure.MISSING_SCOPE, path=request.url.path
                )
                raise MissingScope(f"This needs a key with the scope {scope}.")


async def require_unbound_key(request: Request) -> None:
    """Let nobody pass whose key is bound to tenants: others are concerned too.

    Raises:
        KeyBoundToTenants: it is.
    """
    caller: Principal = request.state.caller
    if caller.tenants is not None:
        request.app.state.door.record_failure(AuthFailure.TENANT_BOUND, path=request.url.path)
        raise KeyBoundToTenants


_NEEDS = RequiredScope()
REQUIRE_READ = Security(_NEEDS, scopes=[KeyScope.READ.value])
REQUIRE_OPERATE = Security(_NEEDS, scopes=[KeyScope.OPERATE.value])
REQUIRE_QUERY = Security(_NEEDS, scopes=[KeyScope.QUERY.value])
REQUIRE_ADMIN = Security(_NEEDS, scopes=[KeyScope.ADMIN.value])
# Besides a scope: a key that is bound to no tenants.
REQUIRE_UNBOUND_KEY = Depends(require_unbound_key)


def _identify(connection: Connection) -> Principal | Response:
    door: Authenticator = connection["app"].state.door
    path = connection["path"]
    found = door.authenticate(Headers(scope=connection).getlist("authorization"))
    if isinstance(found, Principal):
        return found
    if path in OPEN_PATHS or path.startswith(OPEN_PREFIXES):
        return Principal.of_key(found) if isinstance(found, ApiKey) else ANONYMOUS
    request = Request(connection)
    if isinstance(found, ApiKey):
        wait = door.throttle(found)
        return _too_often(request, wait, _TOO_OFTEN) if wait else Principal.of_key(found)
    wait = door.reject(found, request.client.host if request.client else "")
    if wait:
        return _too_often(request, wait, _TOO_MANY_FAILURES)
    # RFC 6750: an error is told only to who showed something.
    challenge = "Bearer" if found is AuthFailure.NO_KEY else 'Bearer error="invalid_token"'
    headers = {"WWW-Authenticate": challenge}
    return problem_response(request, 401, "unauthenticated", _NOT_KNOWN, headers=headers)


def _too_often(request: Request, wait: float, detail: str) -> Response:
    headers = {"Retry-After": str(math.ceil(wait))}
    return problem_response(
        request, 429, "too-many-requests", detail, retryable=True, headers=headers
    )
