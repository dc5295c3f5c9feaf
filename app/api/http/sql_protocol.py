"""The specifics of POST /sql, which has Neon's protocol: its errors, and who may call it.

Its drivers read errors as Postgres' fields from responses with the status 400; they show other
responses as they are. It uses a password instead of an API key, and pages of other sites may call
it if the operator lists them.
"""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse
from starlette.types import Scope

SQL_PATH = "/sql"

# Problem codes by SQLSTATE; errors of statements come with their own.
_PROBLEMS = {
    "08001": "connect-failed server-unavailable",
    "08004": "tenant-login-failed",
    "08007": "active-lost deadline-exceeded lease-lost",
    "0A000": "sql-turned-off untrusted-sql-on-shared-role",
    "22023": "validation-failed",
    "25006": "read-only server-read-only",
    "28000": "cross-site untrusted-host wrong-database",
    "28P01": "unauthenticated",
    "2D000": "statement-ended-lease",
    "3D000": "not-provisioned tenant-deleting tenant-not-found",
    "3F000": "schema-missing",
    "40001": "schema-changed",
    "53300": "overloaded pool-limit-reached pool-saturated pool-timeout server-full"
    " too-many-logins",
    "53400": "too-many-requests",
    "54000": "content-too-large headers-too-large uri-too-long",
    "57014": "query-timeout",
    "57P03": "catalog-unavailable leadership-lost pool-draining pool-paused standby",
}
_SQLSTATES = {code: sqlstate for sqlstate, codes in _PROBLEMS.items() for code in codes.split()}
# For a request that does not follow the protocol: protocol_violation.
_OTHER = "08P01"
# Severity FATAL: sessions that, as Postgres sees it, do not begin or have ended.
_FATAL_CLASSES = ("08", "28", "53", "57P")
# A tenant's code may raise an error with megabytes.
_LONGEST_FIELD = 4000
_METHODS = "POST"
_HEADERS = (
    "Authorization, Content-Type, Neon-Connection-String, Neon-Raw-Text-Output, Neon-Array-Mode, "
    "Neon-Pool-Opt-In, Neon-Batch-Isolation-Level, Neon-Batch-Read-Only, Neon-Batch-Deferrable, "
    "X-Request-ID"
)
_EXPOSED = b"Retry-After, X-Request-ID"
PREFLIGHT_HEADERS = {
    "Allow": "OPTIONS, POST",
    "Access-Control-Allow-Methods": _METHODS,
    "Access-Control-Allow-Headers": _HEADERS,
    "Access-Control-Max-Age": "7200",
}
"""Headers of the response to OPTIONS: without an allowed origin, browsers stop there."""


class PostgresError(BaseModel):
    """An error with Postgres' fields; null if Postgres did not set them."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "message": 'relation "notes" does not exist',
                    "code": "42P01",
                    "severity": "ERROR",
                    "position": "15",
                    "file": "parse_relation.c",
                    "line": "1466",
                    "routine": "parserOpenTable",
                }
            ]
        }
    )

    message: str
    code: str = Field(description="SQLSTATE.")
    severity: str
    # Each of the others with its letter in Postgres' protocol.
    detail: Annotated[str | None, "D"]
    hint: Annotated[str | None, "H"]
    position: Annotated[str | None, "P"] = Field(
        description="In the statement, in characters from 1."
    )
    internal_position: Annotated[str | None, "p"] = Field(alias="internalPosition")
    internal_query: Annotated[str | None, "q"] = Field(alias="internalQuery")
    where: Annotated[str | None, "W"]
    schema_name: Annotated[str | None, "s"] = Field(alias="schema")
    table: Annotated[str | None, "t"]
    column: Annotated[str | None, "c"]
    data_type: Annotated[str | None, "d"] = Field(alias="dataType")
    constraint: Annotated[str | None, "n"]
    file: Annotated[str | None, "F"]
    line: Annotated[str | None, "L"]
    routine: Annotated[str | None, "R"]


_FIELDS = {
    field.alias or name: field.metadata[0]
    for name, field in PostgresError.model_fields.items()
    if field.metadata
}


def takes_postgres_errors(scope: Scope, status: int) -> bool:
    """Whether the client of a failed request is a driver, and the failure is not our own."""
    return (
        scope["path"] == SQL_PATH
        and scope["method"] == "POST"
        and status != HTTPStatus.INTERNAL_SERVER_ERROR
    )


def postgres_error(
    code: str, message: str, *, fields: Mapping[str, str | None], headers: Mapping[str, str]
) -> JSONResponse:
    """Build the error response for a driver.

    *code* is the problem code; *fields* are Postgres' fields, by the letters of its protocol.
    """
    sqlstate = fields.get("C") or _SQLSTATES.get(code, _OTHER)
    fatal = sqlstate != _OTHER and sqlstate.startswith(_FATAL_CLASSES)
    document: dict[str, str | None] = {
        "message": message,
        "code": sqlstate,
        "severity": fields.get("V") or ("FATAL" if fatal else "ERROR"),
    }
    for name, letter in _FIELDS.items():
        value = fields.get(letter)
        document[name] = value and value[:_LONGEST_FIELD]
    return JSONResponse(document, status_code=HTTPStatus.BAD_REQUEST, headers=dict(headers))


class AllowedOrigins:
    """The sites whose pages may call POST /sql; `*` stands for all."""

    def __init__(self, origins: Sequence[str]) -> None:
        self._allows_all = "*" in origins
        self._origins = frozenset(each.lower() for each in origins)

    def headers(
        self, scope: Scope, given: Mapping[bytes, Sequence[str]]
    ) -> list[tuple[bytes, bytes]]:
        """The headers for a page of an allowed site; empty for any other request.

        Responses are never cached, so a `Vary` header is not needed.
        """
        origins = given.get(b"origin")
        if not origins or scope["path"] != SQL_PATH or len(origins) > 1:
            return []
        [origin] = origins
        if not self._allows_all and origin.lower() not in self._origins:
            return []
        return [
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-expose-headers", _EXPOSED),
        ]
