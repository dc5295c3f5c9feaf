"""POST /sql: the HTTP protocol of Neon's serverless driver, for any Postgres that has a pool here.

The driver `@neondatabase/serverless` sends one statement, or several for one transaction. The
connection string in a header names who asks: an application credential of the tenant.
"""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import to_json

from app.api.http.error_responses import problem_response, problem_responses, validation_error
from app.api.http.exchange import extend_deadline
from app.api.http.field_types import examples
from app.api.http.sql_login import log_in
from app.api.http.sql_protocol import PREFLIGHT_HEADERS, SQL_PATH, PostgresError
from app.api.http.statements import Params, SqlText, Statements, run_statements
from app.api.http.strict_request import StrictRequest
from app.api.views.tenant import QueryLimits
from app.domain.errors import UntrustedSqlOnSharedRole
from app.domain.isolation_level import IsolationLevel
from app.pools.manager import TenantPoolManager
from app.pools.query.text_statement import TextResult, TextStatement

router = APIRouter(tags=["query"])

_TRUE = b"true"
# By the driver's names, such as ReadCommitted.
_LEVELS = {each.sql.title().replace(" ", "").encode(): each for each in IsolationLevel}
_TURNED_OFF = "POST /sql is turned off here (sql_endpoint)."


class _Body(BaseModel):
    """Other fields are ignored, as the protocol's own server does."""

    model_config = ConfigDict(strict=True)


class SqlStatement(_Body):
    """A statement of a transaction."""

    query: SqlText = Field(
        description="Exactly one statement; `$1`, `$2` … stand for the parameters."
    )
    params: Params = Field(
        default=[],
        description="Text of any type, or null. Arrays become Postgres' arrays; other values are "
        "sent as JSON.",
    )
    array_mode: bool | None = Field(
        default=None,
        alias="arrayMode",
        description="Whether rows are arrays; the header Neon-Array-Mode if omitted.",
    )


class SqlBody(_Body):
    """A statement, or several for one transaction."""

    model_config = examples(
        {"query": "select id, text from notes where id = $1", "params": ["1"]},
        {"queries": [{"query": "delete from notes", "params": []}, {"query": "select 1"}]},
    )

    query: SqlText | None = Field(default=None, description="Required without `queries`.")
    params: Params = []
    array_mode: bool | None = Field(default=None, alias="arrayMode")
    queries: Statements[SqlStatement] | None = Field(default=None, description="At most 1000.")


class SqlField(BaseModel):
    """A column, as node-postgres describes it."""

    name: str
    data_type_id: int = Field(alias="dataTypeID", description="Oid of its type.")
    table_id: int = Field(alias="tableID", description="Oid of its table, or 0.")
    column_id: int = Field(alias="columnID", description="The column's number in the table, or 0.")
    data_type_size: int = Field(alias="dataTypeSize")
    data_type_modifier: int = Field(alias="dataTypeModifier")
    format: str = Field(examples=["text"])


class SqlResult(BaseModel):
    """The result of a statement."""

    model_config = examples(
        {
            "fields": [
                {
                    "name": "id",
                    "dataTypeID": 23,
                    "tableID": 16384,
                    "columnID": 1,
                    "dataTypeSize": 4,
                    "dataTypeModifier": -1,
                    "format": "text",
                }
            ],
            "rows": [["1"]],
            "command": "SELECT",
            "rowCount": 1,
            "rowAsArray": True,
        }
    )

    fields: list[SqlField]
    rows: list[Any] = Field(description="Each is an array or an object.")
    command: str = Field(description="First word of the command tag.")
    row_count: int | None = Field(alias="rowCount", description="Rows returned or changed.")
    row_as_array: bool = Field(alias="rowAsArray")


class SqlBatchResult(BaseModel):
    """The results of a transaction's statements, in their order."""

    results: list[SqlResult]


@router.post(
    SQL_PATH,
    operation_id="run_sql",
    summary="Run statements for Neon's serverless driver",
    response_model=SqlResult | SqlBatchResult,
    responses={
        400: {"model": PostgresError, "description": "Bad request"},
        500: problem_responses()[500],
    },
    # The password is its key.
    openapi_extra={"security": []},
)
async def run_sql(
    request: Request,
    *,
    body: SqlBody,  # noqa: ARG001 - for the document
    connection_string: Annotated[  # noqa: ARG001 - same
        str,
        Header(
            alias="Neon-Connection-String",
            description="`postgresql://USER:PASSWORD@HOST/TENANT`: an application credential "
            "and its tenant. Host, port and options are ignored.",
        ),
    ],
    raw_text: Annotated[  # noqa: ARG001 - same
        str | None,
        Header(
            alias="Neon-Raw-Text-Output",
            description="`true`: all values are strings, as Postgres writes them. Otherwise "
            "booleans, int2, int4, floats, JSON and arrays of them are JSON values.",
        ),
    ] = None,
    array_mode: Annotated[  # noqa: ARG001 - same
        str | None,
        Header(alias="Neon-Array-Mode", description="`true`: rows are arrays, not objects."),
    ] = None,
    isolation_level: Annotated[  # noqa: ARG001 - same
        str | None,
        Header(
            alias="Neon-Batch-Isolation-Level",
            description="Of the transaction: `ReadUncommitted`, `ReadCommitted`, `RepeatableRead` "
            "or `Serializable`.",
        ),
    ] = None,
    read_only: Annotated[  # noqa: ARG001 - same
        str | None,
        Header(alias="Neon-Batch-Read-Only", description="`true`: a read-only transaction."),
    ] = None,
    deferrable: Annotated[  # noqa: ARG001 - same
        str | None,
        Header(
            alias="Neon-Batch-Deferrable",
            description="`true`: a deferrable transaction, if it is read-only and serializable.",
        ),
    ] = None,
) -> Response:
    """Runs a statement, or several in one transaction, as Neon's serverless driver asks for it.

    Set `neonConfig.fetchEndpoint` to this address, and use the connection string of an application
    credential. Errors of every kind but 500 have the status 400, with Postgres' fields. Shared
    tenants cannot use it.
    """
    return await respond_directly(StrictRequest(request.scope, request.receive, "lossless-float"))


@router.options(SQL_PATH, include_in_schema=False)
async def preflight() -> Response:
    """Tell browsers what pages of other sites may send, if their site is allowed."""
    return Response(status_code=204, headers=PREFLIGHT_HEADERS)


async def respond_directly(request: StrictRequest) -> Response:
    """Respond to a request; its body is not read before the password is checked."""
    state = request.app.state
    if not state.serves_sql:
        return problem_response(request, 403, "sql-turned-off", _TURNED_OFF)
    given = {name: value for name, value in request.scope["headers"] if name.startswith(b"neon-")}
    credential = await log_in(request, given.get(b"neon-connection-string", b"").decode("latin-1"))
    if isinstance(credential, Response):
        return credential
    body = _body(await request.json())
    objects = state.provided
    manager: TenantPoolManager = objects[TenantPoolManager]
    limits: QueryLimits = objects[QueryLimits]
    spec = manager.tenants.state(credential.tenant).tenant.spec
    if spec.is_shared:
        raise UntrustedSqlOnSharedRole
    extend_deadline(request, limits.timeout + manager.config(spec.strategy).acquire_timeout)
    raw_text = given.get(b"neon-raw-text-output") == _TRUE
    as_arrays = given.get(b"neon-array-mode") == _TRUE
    asked: Sequence[SqlStatement | SqlBody] = body.queries or [body]
    modes = [as_arrays if each.array_mode is None else each.array_mode for each in asked]
    is_batch = body.queries is not None
    statements = [
        TextStatement(
            each.query or "",
            each.params,
            as_arrays=mode,
            raw_text=raw_text,
            is_alone=not is_batch,
        )
        for each, mode in zip(asked, modes, strict=True)
    ]
    results, _ = await run_statements(
        request,
        manager,
        credential.tenant,
        statements,
        timeout=limits.timeout,
        read_only=is_batch and given.get(b"neon-batch-read-only") == _TRUE,
        isolation_level=_level(given) if is_batch else None,
        deferrable=is_batch and given.get(b"neon-batch-deferrable") == _TRUE,
    )
    documents = [
        _document(result, as_arrays=mode) for result, mode in zip(results, modes, strict=True)
    ]
    content = b'{"results":[%b]}' % b",".join(documents) if is_batch else documents[0]
    return Response(content, media_type="application/json")


def _body(document: object) -> SqlBody:
    try:
        body = SqlBody.model_validate(document)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        raise RequestValidationError(
            [{**each, "loc": ("body", *each["loc"])} for each in found]
        ) from None
    if body.queries is None and body.query is None:
        raise validation_error("body", "query", code="missing", detail="Field required.")
    return body


def _level(given: dict[bytes, bytes]) -> IsolationLevel | None:
    name = given.get(b"neon-batch-isolation-level")
    if name is None:
        return None
    if name not in _LEVELS:
        detail = "Must be ReadUncommitted, ReadCommitted, RepeatableRead or Serializable."
        raise validation_error("header", "Neon-Batch-Isolation-Level", code="enum", detail=detail)
    return _LEVELS[name]


def _document(result: TextResult, *, as_arrays: bool) -> bytes:
    fields = [
        {
            "name": each.name,
            "dataTypeID": each.oid,
            "tableID": each.table,
            "columnID": each.column,
            "dataTypeSize": each.size,
            "dataTypeModifier": each.modifier,
            "format": "text",
        }
        for each in result.fields
    ]
    rest = to_json(
        {"command": result.command, "rowCount": result.row_count, "rowAsArray": as_arrays}
    )
    parts = [b'{"fields":', to_json(fields), b',"rows":[', b",".join(result.rows), b"],", rest[1:]]
    return b"".join(parts)
