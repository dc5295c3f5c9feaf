"""Errors as RFC 9457 problem details: the table of HTTP statuses, and the format.

Problem codes are those of `app/domain/errors.py`. Responses never echo the input, an exception's
text or a connection's data; they contain only the sentences of our own errors.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Self

import structlog
from asgi_correlation_id import correlation_id
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.routing import Match

from app.api.auth.principal import Principal
from app.api.http.refusals import Refusals
from app.api.http.response_headers import SECURITY_HEADERS
from app.api.http.sql_protocol import postgres_error, takes_postgres_errors
from app.domain import errors
from app.domain.tenant import TENANT_ID_PATTERN
from app.domain.usage_report import USAGE_GROUP_PATTERN
from app.pools.manager import TenantPoolManager
from app.text.validation_messages import validation_message

PROBLEM_MEDIA_TYPE = "application/problem+json"
_RETRY_AFTER_SECONDS = "1"
_MAX_ECHO = 200
_MAX_ERRORS = 50
_INVALID = "The request does not match its schema."
_FORMS = {
    TENANT_ID_PATTERN: "Must be 1 to 48 of a-z, 0-9 and inner hyphens.",
    ":": "Must be a label, key:value.",
    USAGE_GROUP_PATTERN: "Must be tenant, pool, server, or label: and the name of a label.",
}
_INTERNAL_ERROR = "An internal error occurred. The log has it under this request_id."

# The nearest class in an error's ancestry decides.
_STATUS: dict[type[errors.PoolkeeperError], int] = {
    errors.PoolkeeperError: 500,
    errors.InvalidInput: 422,
    errors.StatementConflict: 409,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.StaleVersion: 412,
    errors.PreconditionRequired: 428,
    errors.RequestInFlight: 409,
    errors.LeaseLost: 503,
    errors.Unavailable: 503,
    errors.QueryTimeout: 504,
}
# Python's own phrases for these depend on its version.
_TITLES = {413: "Content too large", 414: "URI too long", 422: "Unprocessable content"}
# Every request may lack a key, be too large, or fail, including on its way between two instances.
_EVERYWHERE = (400, 401, 403, 408, 413, 414, 415, 422, 429, 500, 502, 503, 504)
METHODS = ("DELETE", "GET", "OPTIONS", "POST", "PUT")

# The fields that Postgres reports about a statement, by the letters of its protocol, and the
# longest part of each that is shown: a tenant's code may raise an error with megabytes.
_DIAGNOSTICS = {
    "message_detail": "D",
    "schema_name": "s",
    "table_name": "t",
    "column_name": "c",
    "data_type_name": "d",
    "constraint_name": "n",
}
_LONGEST_DIAGNOSTIC = 4000

# A dry run's refusal answers a question; no change was refused. The same holds for a GET that finds
# nothing, and for "create it unless it exists": what repeats them would hide real refusals.
_ANSWERS_OF_DRY_RUNS = frozenset({404, 409, 412, 422, 428})

_log = structlog.get_logger(__name__)


class FieldProblem(BaseModel):
    """One validation error."""

    pointer: str = Field(
        description="Where: /body, /path or /query, then a JSON pointer.",
        examples=["/body/max_size"],
    )
    code: str = Field(
        description="The kind of error, for programs.", examples=["greater_than_equal"]
    )
    detail: str = Field(description="The error, for people.")


class Problem(BaseModel):
    """An error (RFC 9457)."""

    type: str = Field(examples=["urn:poolkeeper:problem:tenant-not-found"])
    title: str = Field(examples=["Not found"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["There is no tenant acme."])
    instance: str = Field(examples=["/v1/tenants/acme"])
    code: str = Field(
        description="The kind of error, for programs; stable.", examples=["tenant-not-found"]
    )
    request_id: str | None = Field(
        description="The same as in the log.", examples=["5d1c4a2e8b7f4c6d"]
    )
    retryable: bool = Field(description="Whether the same request may succeed later.")
    errors: list[FieldProblem] | None = Field(
        default=None, description="Validation errors, each with its place."
    )
    sqlstate: str | None = Field(default=None, description="SQLSTATE of a failed statement.")
    hint: str | None = Field(default=None, description="What may help, such as Postgres' hint.")
    position: int | None = Field(
        default=None, description="Position of the error in the statement, in characters from 1."
    )
    statement: int | None = Field(
        default=None, description="Which of several statements failed, from 0."
    )
    message_detail: str | None = Field(
        default=None, description="Postgres' DETAIL, which may quote values of rows."
    )
    schema_name: str | None = Field(
        default=None, description="Schema of the object that a statement's error is about."
    )
    table_name: str | None = Field(default=None, description="Table that it is about.")
    column_name: str | None = Field(default=None, description="Column that it is about.")
    data_type_name: str | None = Field(default=None, description="Data type that it is about.")
    constraint_name: str | None = Field(
        default=None, description="Constraint, or unique index, that the statement violated."
    )

    @classmethod
    def of(cls, status: int, code: str, detail: str, **more: Any) -> Self:
        """Build the problem with this code; *more* are its other fields."""
        kind, title = f"urn:poolkeeper:problem:{code}", status_title(status)
        return cls(type=kind, title=title, status=status, detail=detail, code=code, **more)


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route: these problems, and those that every route may return."""
    return {
        status: {"model": Problem, "description": status_title(status)}
        for status in sorted({*statuses, *_EVERYWHERE})
    }


def status_title(status: int) -> str:
    return _TITLES.get(status) or HTTPStatus(status).phrase.capitalize()


def status_of(error: errors.PoolkeeperError) -> int:
    return next(_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS)


def install(app: FastAPI) -> None:
    """Answer every error of *app* with a problem, and remember it."""
    app.state.refusals = Refusals()
    app.add_exception_handler(errors.PoolkeeperError, _expected_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(Exception, _unhandled_error)


def validation_error(*place: str | int, code: str, detail: str) -> RequestValidationError:
    """Make an error: the value at *place* (`"body", "server"`) fits its schema, but is invalid."""
    return RequestValidationError([{"type": code, "loc": place, "msg": detail}])


def problem_response(
    request: Request,
    status: int,
    code: str,
    detail: str,
    *,
    retryable: bool = False,
    headers: Mapping[str, str] | None = None,
    fields: Mapping[str, str] | None = None,
    **more: Any,
) -> JSONResponse:
    """Build the response with this problem; *fields* are Postgres' fields, by their letters."""
    problem = Problem.of(
        status,
        code,
        detail,
        instance=_echo(request.url.path),
        request_id=correlation_id.get(),
        retryable=retryable,
        **_diagnostics(fields or {}),
        **more,
    )
    _note(request, problem)
    headers = {**SECURITY_HEADERS, **(headers or {})}
    if takes_postgres_errors(request.scope, status):
        message = _with_first_error(problem)  # drivers show nothing else
        return postgres_error(code, message, fields=_fields(problem, fields or {}), headers=headers)
    return JSONResponse(
        problem.model_dump(exclude_none=True),
        status_code=status,
        headers=headers,
        media_type=PROBLEM_MEDIA_TYPE,
    )


def _diagnostics(fields: Mapping[str, str]) -> dict[str, str]:
    return {
        name: fields[letter][:_LONGEST_DIAGNOSTIC]
        for name, letter in _DIAGNOSTICS.items()
        if fields.get(letter)
    }


def _fields(problem: Problem, fields: Mapping[str, str]) -> Mapping[str, str | None]:
    """The fields for a driver: from the problem, and from Postgres' report."""
    invalid = [f"{each.pointer}: {each.detail}" for each in problem.errors or ()]
    return {
        "C": problem.sqlstate,
        "D": "\n".join(invalid) or None,
        "H": problem.hint,
        "P": None if problem.position is None else str(problem.position),
        **fields,
    }


def _note(request: Request, problem: Problem) -> None:
    """Remember why the request is refused; an internal error has its own log line."""
    # A layer around the application has no state.
    app: FastAPI | None = request.scope.get("app")
    if app is None or problem.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return
    if request.query_params.get("dry_run") == "true" and problem.status in _ANSWERS_OF_DRY_RUNS:
        return
    if request.method == "GET" and problem.status == HTTPStatus.NOT_FOUND:
        return
    exists = problem.status == HTTPStatus.PRECONDITION_FAILED
    if exists and request.headers.get("if-none-match") == "*":
        return
    named = request.path_params.get("tenant")
    manager: TenantPoolManager | None = app.state.provided.get(TenantPoolManager)
    is_known = manager is not None and named in manager.tenants
    principal: Principal | None = request.scope.get("state", {}).get("principal")
    # A caller that is refused access to another's tenant must not fill that tenant's list.
    is_of_tenant = is_known and principal is not None and principal.can_access(named)
    app.state.refusals.note(
        named if is_of_tenant else None,
        actor=principal.name if principal else None,
        method=request.method,
        path=problem.instance,
        status=problem.status,
        code=problem.code,
        # The reason, without anybody's data.
        detail=f"SQLSTATE {problem.sqlstate}" if problem.sqlstate else _with_first_error(problem),
        request_id=problem.request_id,
    )


def _with_first_error(problem: Problem) -> str:
    if not problem.errors:
        return problem.detail
    first, *others = problem.errors
    more = f" And {len(others)} more." if others else ""
    return f"{problem.detail} {first.pointer}: {first.detail}{more}"


async def _expected_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, errors.PoolkeeperError)  # noqa: S101 - Starlette's signature is wider
    more: dict[str, Any] = {"hint": error.hint, "statement": error.statement}
    if isinstance(error, errors.StatementFailed):
        more |= {name: getattr(error, name) for name in ("sqlstate", "position", "fields")}
    headers = {"Retry-After": _RETRY_AFTER_SECONDS} if error.retryable else None
    return problem_response(
        request,
        status_of(error),
        error.code,
        error.detail,
        retryable=error.retryable,
        headers=headers,
        **more,
    )


async def _validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - see above
    unique = {
        (pointer, each["type"]): FieldProblem(
            pointer=pointer, code=each["type"], detail=validation_message(each, _FORMS)
        )
        for each in error.errors()[:_MAX_ERRORS]
        # A parameter of several dependencies is reported by each of them.
        for pointer in ["".join("/" + _pointer_step(part) for part in each["loc"])]
    }
    return problem_response(
        request, 422, "validation-failed", _INVALID, errors=list(unique.values())
    )


def _pointer_step(part: str | int) -> str:
    """One step of a JSON pointer (RFC 6901)."""
    return _echo(str(part)).replace("~", "~0").replace("/", "~1")


def _echo(text: str) -> str:
    """Return a caller's *text*, short and printable."""
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}"
        for letter in text[:_MAX_ECHO]
    )


async def _http_exception(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - see above
    if error.status_code == HTTPStatus.BAD_REQUEST and error.__cause__ is not None:
        return problem_response(request, 400, "malformed-json", str(error.detail))
    headers, detail = error.headers, str(error.detail)
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = ", ".join(_allowed(request))
        headers, detail = {"Allow": allowed}, f"This path takes {allowed}."
    elif detail == HTTPStatus.NOT_FOUND.phrase:
        detail = "There is nothing at this path."
    code = status_title(error.status_code).lower().replace(" ", "-")
    return problem_response(request, error.status_code, code, detail, headers=headers)


def _allowed(request: Request) -> list[str]:
    """All methods that any route accepts at this path; Starlette knows only the first route's."""
    allowed = [
        method
        for method in METHODS
        for route in request.app.routes
        if route.matches({**request.scope, "method": method})[0] is Match.FULL
    ]
    return [*allowed, "HEAD"] if "GET" in allowed else allowed


async def _unhandled_error(request: Request, error: Exception) -> JSONResponse:
    _log.error("unhandled error", path=request.url.path, exc_info=error)
    # No layer outside this one would add the request id.
    headers = {"X-Request-ID": correlation_id.get() or ""}
    return problem_response(request, 500, "internal-error", _INTERNAL_ERROR, headers=headers)
