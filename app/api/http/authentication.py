"""Authenticates every request, and checks the scope that its route requires.

Requests without a valid key are refused before their body is read.
"""

import math

from fastapi import Depends, Request, Security
from fastapi.openapi.models import HTTPBearer
from fastapi.security import SecurityScopes
from fastapi.security.base import SecurityBase
from starlette.responses import Response
from starlette.types import Scope

from app.api.auth.authenticator import Authenticator, AuthFailure
from app.api.auth.key_scope import KeyScope
from app.api.auth.principal import ANONYMOUS, Principal
from app.api.http.error_responses import problem_response
from app.api.http.request_checks import HeaderValues
from app.api.http.sql_protocol import SQL_PATH
from app.domain.errors import KeyBoundToTenants, MissingScope

OPEN_PATHS = frozenset({"/", "/docs", "/livez", "/openapi.json", "/readyz"})
OPEN_PREFIXES = ("/docs/", "/page/")
_INVALID_KEY = "Send a valid API key as Authorization: Bearer <key>."
_KEY_RATE_LIMITED = "The API key exceeds its request rate."
_ADDRESS_RATE_LIMITED = "Too many requests without a valid API key came from this address."


def authenticate(scope: Scope, given: HeaderValues) -> Principal | Response:
    """Return the principal of a request, or a 401 or 429 response.

    Requests with a password are anonymous until their route has checked it.
    """
    authenticator: Authenticator = scope["app"].state.authenticator
    path = scope["path"]
    if path == SQL_PATH:
        return ANONYMOUS
    found = authenticator.authenticate(given.get(b"authorization", ()))
    if path in OPEN_PATHS or path.startswith(OPEN_PREFIXES):
        return found if isinstance(found, Principal) else ANONYMOUS
    if isinstance(found, Principal):
        wait = authenticator.throttle(found)
        return rate_limited(Request(scope), wait, _KEY_RATE_LIMITED) if wait else found
    request = Request(scope)
    wait = authenticator.reject(found, request.client.host if request.client else "")
    if wait:
        return rate_limited(request, wait, _ADDRESS_RATE_LIMITED)
    # RFC 6750: no error code for a request without credentials.
    challenge = "Bearer" if found is AuthFailure.NO_KEY else 'Bearer error="invalid_token"'
    headers = {"WWW-Authenticate": challenge}
    return problem_response(request, 401, "unauthenticated", _INVALID_KEY, headers=headers)


class RequiredScope(SecurityBase):
    """A route's required scope; in the OpenAPI document, the route's security."""

    def __init__(self) -> None:
        self.scheme_name = "key"
        self.model = HTTPBearer(
            bearerFormat="poolkeeper_<id>_<secret>",
            description="An API key created with `poolkeeper keys create`.",
        )

    async def __call__(self, request: Request, required: SecurityScopes) -> None:
        """Raises MissingScope if the principal lacks the scope."""
        principal: Principal = request.state.principal
        for scope in required.scopes:
            if scope not in principal.scopes:
                request.app.state.authenticator.record_failure(
                    AuthFailure.MISSING_SCOPE, path=request.url.path
                )
                raise MissingScope(f"The API key lacks the required scope {scope}.")


async def require_unbound_key(request: Request) -> None:
    """Raise KeyBoundToTenants if the key is bound to tenants: the request affects others too."""
    principal: Principal = request.state.principal
    if principal.tenants is not None:
        request.app.state.authenticator.record_failure(
            AuthFailure.TENANT_BOUND, path=request.url.path
        )
        raise KeyBoundToTenants


_REQUIRED_SCOPE = RequiredScope()
REQUIRE_READ = Security(_REQUIRED_SCOPE, scopes=[KeyScope.READ.value])
REQUIRE_OPERATE = Security(_REQUIRED_SCOPE, scopes=[KeyScope.OPERATE.value])
REQUIRE_QUERY = Security(_REQUIRED_SCOPE, scopes=[KeyScope.QUERY.value])
REQUIRE_ADMIN = Security(_REQUIRED_SCOPE, scopes=[KeyScope.ADMIN.value])
REQUIRE_NODE = Security(_REQUIRED_SCOPE, scopes=[KeyScope.NODE.value])
# The same scopes, for requests that concern all tenants.
_UNBOUND_KEY = Depends(require_unbound_key)
REQUIRE_READ_ALL = (REQUIRE_READ, _UNBOUND_KEY)
REQUIRE_OPERATE_ALL = (REQUIRE_OPERATE, _UNBOUND_KEY)
REQUIRE_ADMIN_ALL = (REQUIRE_ADMIN, _UNBOUND_KEY)


def rate_limited(request: Request, wait: float, detail: str) -> Response:
    """Build a 429 response: the client must wait *wait* seconds."""
    headers = {"Retry-After": str(math.ceil(wait))}
    return problem_response(
        request, 429, "too-many-requests", detail, retryable=True, headers=headers
    )
