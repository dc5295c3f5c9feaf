"""Errors as RFC 9457 problem details: the one table from error code to status, the one shape.

Nothing of the input, of an exception's text or of a connection is ever echoed, except the
sentences that our own errors hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import structlog
from asgi_correlation_id import correlation_id
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.routing import Match

from app.api.http.response_headers import SECURITY_HEADERS
from app.domain import errors

PROBLEM_MEDIA_TYPE = "application/problem+json"
_RETRY_AFTER_SECONDS = "1"
# What callers sent comes back in these two only, so it is bounded.
_LONGEST_ECHO = 200
_MOST_ERRORS = 50
_MALFORMED = "The body is not valid JSON."

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
_TITLES = {
    400: "Bad request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    408: "Request timeout",
    409: "Conflict",
    412: "Precondition failed",
    413: "Content too large",
    414: "URI too long",
    415: "Unsupported media type",
    422: "Unprocessable content",
    428: "Precondition required",
    429: "Too many requests",
    431: "Request header fields too large",
    500: "Internal server error",
    501: "Not implemented",
    503: "Service unavailable",
    504: "Gateway timeout",
}
# Any caller may be refused, any body or query be too much, and any request fail.
_EVERYWHERE = (400, 401, 403, 408, 413, 414, 415, 422, 429, 500, 503, 504)
_METHODS = ("DELETE", "GET", "POST", "PUT")

_log = structlog.get_logger(__name__)


class FieldProblem(BaseModel):
    """One thing wrong with the input."""

    pointer: str = Field(
        description="Where: /body, /path or /query, then a JSON pointer.",
        examples=["/body/max_size"],
    )
    code: str = Field(description="What is wrong, for programs.", examples=["greater_than_equal"])
    detail: str = Field(description="What is wrong, for people.")


class Problem(BaseModel):
    """An error, as RFC 9457 describes them."""

    type: str = Field(examples=["urn:poolkeeper:problem:tenant-not-found"])
    title: str = Field(examples=["Not found"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["There is no tenant acme."])
    instance: str = Field(examples=["/v1/tenants/acme"])
    code: str = Field(description="Stable; programs switch on it.", examples=["tenant-not-found"])
    request_id: str | None = Field(description="As in the log.", examples=["5d1c4a2e8b7f4c6d"])
    retryable: bool = Field(description="Whether the same request may work later.")
    errors: list[FieldProblem] | None = Field(
        default=None, description="Validation errors, each with its place."
    )
    sqlstate: str | None = Field(default=None, description="Postgres' code for a failed statement.")
    hint: str | None = Field(default=None, description="Postgres' hint for a failed statement.")
    position: int | None = Field(
        default=None, description="Character of the statement at which it failed, from 1."
    )


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route: these problems, and those that every route may answer with."""
    return {
        status: {"model": Problem, "description": _TITLES[status]}
        for status in sorted({*statuses, *_EVERYWHERE})
    }


def status_title(status: int) -> str:
    """What problems of this HTTP status are called."""
    return _TITLES.get(status, "Error")


def status_of(error: errors.PoolkeeperError) -> int:
    """The HTTP status of an error."""
    return next(_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS)


def install(app: FastAPI) -> None:
    """Answer every error of *app* with a problem."""
    app.add_exception_handler(errors.PoolkeeperError, _foreseen)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unforeseen)


def validation_error(*place: str | int, code: str, detail: str) -> RequestValidationError:
    """To be raised: what stands at *place* (`"body", "server"`) fits the schema, but not this."""
    return RequestValidationError([{"type": code, "loc": place, "msg": detail}])


def problem_response(
    request: Request,
    status: int,
    code: str,
    detail: str,
    *,
    retryable: bool = False,
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> JSONResponse:
    """One problem as a response."""
    problem = Problem(
        type=f"urn:poolkeeper:problem:{code}",
        title=status_title(status),
        status=status,
        detail=detail,
        instance=_printable(request.url.path),
        code=code,
        request_id=correlation_id.get(),
        retryable=retryable,
        **more,
    )
    return JSONResponse(
        problem.model_dump(exclude_none=True),
        status_code=status,
        headers={**SECURITY_HEADERS, **(headers or {})},
        media_type=PROBLEM_MEDIA_TYPE,
    )


async def _foreseen(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, errors.PoolkeeperError)  # noqa: S101 - Starlette's signature is wider
    more: dict[str, Any] = {}
    if isinstance(error, errors.StatementFailed):
        more = {"sqlstate": error.sqlstate, "hint": error.hint, "position": error.position}
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


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - see above
    told = {
        (pointer, each["type"]): FieldProblem(
            pointer=pointer, code=each["type"], detail=each["msg"]
        )
        for each in error.errors()[:_MOST_ERRORS]
        # What several dependencies take is told once.
        for pointer in ["".join("/" + _escaped(part) for part in each["loc"])]
    }
    return problem_response(
        request,
        422,
        "validation-failed",
        "The request does not fit its schema.",
        errors=list(told.values()),
    )


def _escaped(part: str | int) -> str:
    """One step of a JSON pointer (RFC 6901)."""
    return _printable(str(part)).replace("~", "~0").replace("/", "~1")


def _printable(text: str) -> str:
    """*text* from a caller, short, and without what cannot be sent or is not seen."""
    shown = text[:_LONGEST_ECHO]
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in shown
    )


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - see above
    if error.status_code == HTTPStatus.BAD_REQUEST and error.__cause__ is not None:
        # FastAPI's word for what made Python's JSON parser give up: encoding, depth, digits.
        return problem_response(request, 400, "malformed-json", _MALFORMED)
    headers = error.headers
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers = {"Allow": ", ".join(_allowed(request))}
    code = _TITLES.get(error.status_code, "error").lower().replace(" ", "-")
    return problem_response(request, error.status_code, code, str(error.detail), headers=headers)


def _allowed(request: Request) -> list[str]:
    """Every method that some route takes at this path; Starlette knows of the first route's."""
    allowed = [
        method
        for method in _METHODS
        for route in request.app.routes
        if route.matches({**request.scope, "method": method})[0] is Match.FULL
    ]
    return [*allowed, "HEAD"] if "GET" in allowed else allowed


async def _unforeseen(request: Request, error: Exception) -> JSONResponse:
    _log.error("unforeseen error", path=request.url.path, exc_info=error)
    # No stage is left outside this one that would put it in.
    headers = {"X-Request-ID": correlation_id.get() or ""}
    detail = "Something went wrong; the log has it under request_id."
    return problem_response(request, 500, "internal-error", detail, headers=headers)
