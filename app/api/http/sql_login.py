"""The login of POST /sql: the application credential in the connection string of a header."""

import re
from urllib.parse import unquote

from fastapi import Request, Response
from structlog.contextvars import bind_contextvars

from app.api.auth.application_logins import ApplicationLogins
from app.api.auth.authenticator import Authenticator, AuthFailure
from app.api.auth.principal import Principal
from app.api.http.authentication import rate_limited
from app.api.http.error_responses import problem_response
from app.control.tenants.application_credentials import ApplicationCredentials
from app.domain.application_credential import ApplicationCredential

_CONNECTION_STRING = re.compile(
    r"postgres(?:ql)?://([^:/?#@]+):([^:/?#@]+)@[^/?#@]*/([^/?#]+)(?:\?.*)?"
)
_NO_CONNECTION_STRING = (
    "Send Neon-Connection-String: postgresql://USER:PASSWORD@HOST/TENANT, with the user and the "
    "password of an application credential, percent-encoded. JWTs are not supported."
)
_WRONG_PASSWORD = "Password authentication failed."  # noqa: S105 - a message
_TOO_MANY_FAILURES = "Too many wrong passwords came from this address."
_TOO_MANY_REQUESTS = "The credential exceeds its request rate."
_WRONG_DATABASE = "The database in the connection string is not the tenant of this credential."


async def log_in(request: Request, connection_string: str) -> ApplicationCredential | Response:
    """Return the credential in *connection_string*, or the response that refuses it.

    From then on the request counts as the credential's: in the log, in refusals and for its rate
    limit.

    Raises:
        TooManyLogins: too many other passwords are being checked.
    """
    found = _CONNECTION_STRING.fullmatch(connection_string)
    if found is None:
        return problem_response(request, 401, "no-connection-string", _NO_CONNECTION_STRING)
    user, password, database = map(unquote, found.groups())
    authenticator: Authenticator = request.app.state.authenticator
    logins: ApplicationLogins = request.app.state.provided[ApplicationLogins]
    address = request.client.host if request.client else ""
    credential = await logins.check(user, password, address)
    if credential is None:
        wait = authenticator.reject(AuthFailure.WRONG_PASSWORD, address)
        if wait:
            return rate_limited(request, wait, _TOO_MANY_FAILURES)
        return problem_response(request, 401, "unauthenticated", _WRONG_PASSWORD)
    principal = Principal(
        name=credential.user,
        scopes=frozenset(),
        tenants=frozenset({str(credential.tenant)}),
        key_id=credential.user,
    )
    request.scope["state"]["principal"] = principal
    request.scope["path_params"] = {"tenant": str(credential.tenant)}
    bind_contextvars(actor=principal.name)
    if wait := authenticator.throttle_credential(credential.user):
        return rate_limited(request, wait, _TOO_MANY_REQUESTS)
    if database != credential.tenant:
        return problem_response(request, 403, "wrong-database", _WRONG_DATABASE)
    request.app.state.provided[ApplicationCredentials].used(credential)
    return credential
