"""SQL statements, run as a tenant: one, or several in one transaction."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from jiter import LosslessFloat
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    ValidationError,
    ValidationInfo,
)
from pydantic_core import PydanticCustomError, to_json

from app.api.auth.key_scope import KeyScope
from app.api.auth.principal import Principal
from app.api.http.authentication import REQUIRE_QUERY
from app.api.http.dependencies import ManagerDep, TenantDep, provided
from app.api.http.error_responses import validation_error
from app.api.http.exchange import extend_deadline
from app.api.http.field_types import RequestBody, examples
from app.api.http.idempotency import reserve_key
from app.api.http.response_cache import ResponseCache
from app.api.http.statements import Params, SqlText, Statements, run_statements
from app.api.http.strict_request import StrictRequest
from app.api.http.strict_route import StrictRoute
from app.api.views.plan import DryRunQuery, PlanView, show_plan
from app.api.views.tenant import QueryLimits
from app.domain.errors import (
    InvalidTenantId,
    QueryTimeout,
    ReadOnly,
    SchemaChanged,
    StatementFailed,
    UntrustedSqlOnSharedRole,
)
from app.domain.isolation_level import IsolationLevel
from app.domain.plan import Plan, PlanAction, plan_step
from app.domain.tenant import TenantId
from app.pools.manager import TenantPoolManager
from app.pools.query.descriptions import (
    Descriptions,
    OutdatedDescription,
    TenantDescriptions,
)
from app.pools.query.json_statement import JsonStatement, StatementResult
from app.pools.tenant_state import TenantState


class _ExactRoute(StrictRoute):
    """Numbers in the body keep their digits: a parameter may be any numeric."""

    float_mode = "lossless-float"


router = APIRouter(prefix="/v1/tenants/{tenant}/query", tags=["query"], route_class=_ExactRoute)

_NOT_SENT = "Postgres has not seen the statement and may refuse it."
_TO_WRITE = 'To write, send "read_only": false.'
_TIMEOUT_SETTING = "POOLKEEPER_QUERY_TIMEOUT_SECONDS"
_SEVERAL = "Send several statements as `statements`, in place of `sql`."
# How Postgres refuses several statements: code and function, because its message may be in any
# language.
_REFUSED_SEVERAL = ("42601", "exec_parse_message")


def _as_float(value: object) -> object:
    return float(value) if isinstance(value, LosslessFloat) else value


def _check_given(sql: str | None, others: ValidationInfo) -> str | None:
    """Refuse a body with neither `sql` nor `statements`; its other errors are reported, too."""
    if sql is None and others.data.get("statements", ()) is None:
        raise PydanticCustomError("missing", "Must be given.")
    return sql


class QueryStatement(RequestBody):
    """One of several statements."""

    sql: Annotated[SqlText, Field(min_length=1)] = Field(
        description="Exactly one statement; `$1`, `$2` … stand for the parameters."
    )
    params: Params = Field(
        default=[],
        description="Values of the parameters. A string works for any type, in its text form.",
    )


class QueryBody(RequestBody):
    """A statement and how to run it, or several in one transaction."""

    model_config = examples(
        {"sql": "select current_user, now()"},
        {
            "sql": "insert into notes (day, text) values ($1, $2) returning id",
            "params": ["2026-11-20", "hello"],
            "read_only": False,
            "timeout_seconds": 2,
        },
        {
            "statements": [
                {"sql": "update accounts set n = n - $1 where id = $2", "params": [5, 1]},
                {"sql": "update accounts set n = n + $1 where id = $2", "params": [5, 2]},
            ],
            "isolation_level": "serializable",
            "read_only": False,
        },
    )

    statements: Statements[QueryStatement] | None = Field(
        default=None,
        description="Several statements, at most 1000, in place of `sql`, all in one transaction: "
        "if one fails, none has an effect.",
    )
    sql: Annotated[Annotated[SqlText, Field(min_length=1)] | None, AfterValidator(_check_given)] = (
        Field(
            default=None,
            validate_default=True,
            description="Exactly one statement; `$1`, `$2` … stand for the parameters. Required "
            "without `statements`.",
        )
    )
    params: Params = Field(
        default=[],
        description="Values of the parameters. A string works for any type, in its text form.",
    )
    isolation_level: Annotated[IsolationLevel, Field(strict=False)] | None = Field(
        default=None, description="Of the transaction; the role's default if omitted."
    )
    read_only: bool = Field(default=True, description="Whether writes are refused.")
    timeout_seconds: Annotated[float | None, BeforeValidator(_as_float)] = Field(
        default=None,
        ge=0.001,
        allow_inf_nan=False,
        description="Maximum duration of all statements; the operator's limit if omitted.",
    )
    max_rows: int | None = Field(
        default=None,
        ge=1,
        description="Maximum number of rows of each statement; the operator's limit if omitted.",
    )


class QueryColumn(BaseModel):
    """A column of the result."""

    name: str
    type: str = Field(description="Postgres type.")


class QueryStatementResult(BaseModel):
    """The result of one of several statements."""

    columns: list[QueryColumn]
    rows: list[list[Any]] = Field(
        description="One array per row. Fixed-width numbers are JSON numbers; all other values are "
        "strings."
    )
    row_count: int = Field(description="Rows returned; changed, for a statement that returns none.")
    truncated: bool = Field(description="Whether there were more rows than the maximum.")
    status: str | None = Field(description="Command tag of a statement without rows.")


class QueryResult(QueryStatementResult):
    """The result of a statement."""

    model_config = examples(
        {
            "columns": [
                {"name": "current_user", "type": "name"},
                {"name": "now", "type": "timestamptz"},
            ],
            "rows": [["tenant_acme", "2026-11-20T09:00:00.123456Z"]],
            "row_count": 1,
            "truncated": False,
            "duration_ms": 0.8,
            "status": None,
        }
    )

    duration_ms: float = Field(description="Without the wait for a connection.")


class QueryBatchResult(BaseModel):
    """The results of several statements."""

    model_config = examples(
        {
            "results": [
                {
                    "columns": [],
                    "rows": [],
                    "row_count": 1,
                    "truncated": False,
                    "status": "UPDATE 1",
                }
            ],
            "duration_ms": 1.9,
        }
    )

    results: list[QueryStatementResult] = Field(description="In the order of the statements.")
    duration_ms: float = Field(description="Without the wait for a connection.")


@router.post(
    "",
    dependencies=[REQUIRE_QUERY],
    summary="Run statements as a tenant",
    response_model=QueryResult | QueryBatchResult | PlanView,
)
async def run_query(
    tenant: TenantDep,
    body: QueryBody,
    manager: ManagerDep,
    limits: Annotated[QueryLimits, provided(QueryLimits)],
    *,
    request: Request,
    response: Response,
    dry_run: DryRunQuery = False,
) -> Response | PlanView:
    """Runs statements in the tenant's context, in a transaction of their own.

    One statement (`sql`) has one result; several (`statements`) have a list of `results`. If one
    of them fails, all are rolled back, and `statement` in the problem tells which it was. The
    transaction begins and ends with the request: `BEGIN`, `COMMIT`, `ROLLBACK` and the like answer
    422, as do `LISTEN` and `COPY`.

    Shared tenants may use this only if the operator allows it (the tenant's `query_allowed`): one
    role for all does not isolate hostile SQL. A write needs `"read_only": false`; otherwise it
    answers 403. Statements that exceed their timeout answer 504, a pool without a free connection
    503; neither has changed anything. If the client disconnects, running statements are cancelled
    and rolled back, unless the commit has begun.
    """
    if dry_run:
        _check_statements(body)
        _bounds(body, limits)
        _check_allowed(manager.tenants.state(tenant), limits).tenant.check_usable()
        step = plan_step(PlanAction.RUN_STATEMENT, f"tenant {tenant}")
        return show_plan(step + Plan(warnings=(_NOT_SENT,)), response)
    return await _respond(request, request.app.state.provided, tenant, body)


async def respond_directly(request: StrictRequest) -> Response | None:
    """Respond like `run_query` to a valid request without parameters; None for others."""
    principal: Principal = request.scope["state"]["principal"]
    objects = request.app.state.provided
    is_usual = not request.scope["query_string"] and KeyScope.QUERY in principal.scopes
    if not (is_usual and objects):
        return None
    try:
        tenant = TenantId(request.path_params["tenant"])
        body = QueryBody.model_validate(await request.json() if await request.body() else None)
    except (InvalidTenantId, ValidationError):
        return None
    if not principal.can_access(tenant):
        return None
    await reserve_key(request)
    try:
        return await _respond(request, objects, tenant, body)
    finally:
        objects[ResponseCache].invalidate()


async def _respond(
    request: Request, objects: Mapping[type, Any], tenant: TenantId, body: QueryBody
) -> Response:
    manager: TenantPoolManager = objects[TenantPoolManager]
    limits: QueryLimits = objects[QueryLimits]
    descriptions: Descriptions = objects[Descriptions]
    _check_statements(body)
    timeout, max_rows = _bounds(body, limits)
    spec = _check_allowed(manager.tenants.state(tenant), limits).tenant.spec
    longest = timeout + manager.config(spec.strategy).acquire_timeout
    given: Sequence[QueryStatement | QueryBody] = body.statements or [body]

    async def run(known: TenantDescriptions | None) -> Response:
        extend_deadline(request, longest)
        statements = [
            JsonStatement(each.sql or "", each.params, max_rows=max_rows, descriptions=known)
            for each in given
        ]
        results, took = await run_statements(
            request,
            manager,
            tenant,
            statements,
            timeout=timeout,
            read_only=body.read_only,
            isolation_level=body.isolation_level,
        )
        return _response(results, took, is_batch=body.statements is not None)

    try:
        try:
            return await run(descriptions.of(tenant))
        except OutdatedDescription:
            return await run(None)
        except SchemaChanged:
            if not body.read_only:
                raise
            return await run(None)
    # The field of the body that would help.
    except ReadOnly as error:
        error.suggest(_TO_WRITE if body.read_only else None)
        raise
    except QueryTimeout as error:
        error.suggest(
            f"`timeout_seconds` may be up to {limits.timeout:.15g}, which is the setting "
            f"{_TIMEOUT_SETTING}."
        )
        raise
    except StatementFailed as error:
        if (error.sqlstate, error.fields.get("R")) == _REFUSED_SEVERAL:
            error.suggest(_SEVERAL)
        raise


def _check_statements(body: QueryBody) -> None:
    """Raise RequestValidationError if a body has both a single statement and a list."""
    if body.statements is None:
        return
    for field in ("sql", "params"):
        if getattr(body, field):
            raise validation_error(
                "body", field, code="unexpected", detail="Not allowed together with statements."
            )


def _check_allowed(state: TenantState, limits: QueryLimits) -> TenantState:
    """Return *state* if its tenant may be queried; raise otherwise."""
    refusal = limits.refusal(state.tenant.spec)
    if refusal is not None:
        raise UntrustedSqlOnSharedRole(refusal)
    return state


def _response(results: list[StatementResult], took: float, *, is_batch: bool) -> Response:
    """Build the response; the rows are already JSON, perhaps megabytes."""
    duration = to_json(round(took * 1000, 3))
    if is_batch:
        documents = b",".join(_document(each, b"") for each in results)
        content = b'{"results":[%b],"duration_ms":%b}' % (documents, duration)
    else:
        content = _document(results[0], b',"duration_ms":%b' % duration)
    return Response(content, media_type="application/json")


def _document(result: StatementResult, more: bytes) -> bytes:
    facts = {"row_count": result.row_count, "truncated": result.truncated, "status": result.status}
    rows, rest = b",".join(result.rows), to_json(facts)[1:-1]
    return b'{"columns":%b,"rows":[%b],%b%b}' % (result.columns, rows, rest, more)


def _bounds(body: QueryBody, limits: QueryLimits) -> tuple[float, int]:
    """The timeout and the maximum number of rows."""
    timeout = limits.timeout if body.timeout_seconds is None else body.timeout_seconds
    max_rows = limits.max_rows if body.max_rows is None else body.max_rows
    for field, value, limit, setting in (
        ("timeout_seconds", timeout, limits.timeout, _TIMEOUT_SETTING),
        ("max_rows", max_rows, limits.max_rows, "POOLKEEPER_QUERY_MAX_ROWS"),
    ):
        if value > limit:
            detail = f"Must be {limit:.15g} or less, the setting {setting}."
            raise validation_error("body", field, code="less_than_equal", detail=detail)
    return timeout, max_rows
