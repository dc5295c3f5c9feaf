"""One SQL statement, run as a tenant."""

from __future__ import annotations

from time import monotonic
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from jiter import LosslessFloat
from pydantic import BaseModel, BeforeValidator, Field, ValidationError
from pydantic_core import to_json

from app.api.auth.api_key import KeyScope
from app.api.auth.principal import Principal
from app.api.http.authentication import REQUIRE_QUERY
from app.api.http.dependencies import ManagerDep, TenantDep, provided
from app.api.http.disconnect import cancel_on_disconnect
from app.api.http.error_responses import problem_responses, validation_error
from app.api.http.exchange import extend_deadline
from app.api.http.field_types import JsonValue, RequestBody, Text, examples
from app.api.http.idempotency import reserve_key
from app.api.http.strict_route import StrictRequest, StrictRoute
from app.api.views.plan import DryRunQuery, PlanView, show_plan
from app.api.views.tenant import QueryLimits
from app.domain.errors import InvalidTenantId, SchemaChanged, UntrustedSqlOnSharedRole
from app.domain.plan import Plan, PlanAction, plan_step
from app.domain.tenant import TenantId
from app.pools.manager import TenantPoolManager
from app.pools.query import runner
from app.pools.tenant_state import TenantState


class _ExactRoute(StrictRoute):
    """Numbers in the body keep their digits: a parameter may be any numeric."""

    float_mode = "lossless-float"


router = APIRouter(prefix="/v1/tenants/{tenant}/query", tags=["query"], route_class=_ExactRoute)

_MAX_SQL_LENGTH = 100_000
_MAX_PARAMS = 1000
_NOT_SENT = "Postgres has not seen the statement and may refuse it."


def _as_float(value: object) -> object:
    return float(value) if isinstance(value, LosslessFloat) else value


class QueryBody(RequestBody):
    """A statement and how to run it."""

    model_config = examples(
        {"sql": "select current_user, now()"},
        {
            "sql": "insert into notes (day, text) values ($1, $2) returning id",
            "params": ["2026-11-20", "hello"],
            "read_only": False,
            "timeout_seconds": 2,
        },
    )

    sql: Annotated[Text, Field(min_length=1, max_length=_MAX_SQL_LENGTH)] = Field(
        description="Exactly one statement; `$1`, `$2` … stand for the parameters."
    )
    params: list[JsonValue] = Field(
        default=[],
        max_length=_MAX_PARAMS,
        description="Values of the parameters. A string works for any type, in its text form.",
    )
    read_only: bool = Field(default=True, description="Whether writes are refused.")
    timeout_seconds: Annotated[float | None, BeforeValidator(_as_float)] = Field(
        default=None,
        ge=0.001,
        allow_inf_nan=False,
        description="Longest run of the statement; the operator's limit if omitted.",
    )
    max_rows: int | None = Field(
        default=None,
        ge=1,
        description="Maximum number of rows; the operator's limit if omitted.",
    )


class QueryColumn(BaseModel):
    """A column of the result."""

    name: str
    type: str = Field(description="Postgres type.")


class QueryResult(BaseModel):
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

    columns: list[QueryColumn]
    rows: list[list[Any]] = Field(
        description="One array per row. Fixed-width numbers are JSON numbers, all else strings."
    )
    row_count: int = Field(description="Rows returned; changed, for a statement that returns none.")
    truncated: bool = Field(description="Whether there were more rows than the maximum.")
    duration_ms: float = Field(description="Without the wait for a connection.")
    status: str | None = Field(description="Command tag of a statement without rows.")


@router.post(
    "",
    dependencies=[REQUIRE_QUERY],
    summary="Run a statement as a tenant",
    response_model=QueryResult | PlanView,
    responses=problem_responses(404, 409),
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
    """Runs one statement in the tenant's context, in a transaction of its own.

    Shared tenants may use this only if the operator allows it (the tenant's `query_allowed`):
    one role for all does not isolate hostile SQL. A write needs `"read_only": false`; otherwise it
    answers 403. A statement that exceeds its timeout answers 504, a pool without a free connection
    503; neither has changed anything. If the client disconnects, the statement is cancelled and
    rolled back, unless its commit has begun.
    """
    if dry_run:
        _bounds(body, limits)
        _check_allowed(manager.tenant_state(tenant), limits).tenant.check_usable()
        step = plan_step(PlanAction.RUN_STATEMENT, f"tenant {tenant}")
        return show_plan(step + Plan(warnings=(_NOT_SENT,)), response)
    return await _respond(request, tenant, body, manager, limits)


async def respond_directly(request: StrictRequest) -> Response | None:
    """Respond like `run_query` to a request without parameters that is in order; None otherwise."""
    objects = request.app.state.provided
    principal: Principal = request.scope["state"]["principal"]
    if request.scope["query_string"] or KeyScope.QUERY not in principal.scopes or not objects:
        return None
    request.float_mode = _ExactRoute.float_mode
    try:
        tenant = TenantId(request.path_params["tenant"])
        body = QueryBody.model_validate(await request.json() if await request.body() else None)
    except (InvalidTenantId, ValidationError):
        return None
    if not principal.can_access(tenant):
        return None
    await reserve_key(request)
    try:
        return await _respond(
            request, tenant, body, objects[TenantPoolManager], objects[QueryLimits]
        )
    finally:
        request.app.state.response_cache.invalidate()


async def _respond(
    request: Request,
    tenant: TenantId,
    body: QueryBody,
    manager: TenantPoolManager,
    limits: QueryLimits,
) -> Response:
    timeout, max_rows = _bounds(body, limits)
    spec = _check_allowed(manager.tenant_state(tenant), limits).tenant.spec
    extend_deadline(request, timeout + manager.config(spec.strategy).acquire_timeout)

    async def run() -> tuple[runner.StatementResult, float]:
        query = runner.Query(body.sql, body.params, max_rows=max_rows, timeout=timeout)
        lease = manager.lease(
            tenant,
            read_only=body.read_only,
            statement_timeout=timeout,
            begin=query.begin,
            statement=body.sql,
        )
        async with cancel_on_disconnect(request) as run_to_the_end, lease as connection:
            began = monotonic()
            result = await query.run(connection)
            took = monotonic() - began
            run_to_the_end()
        return result, took

    try:
        return _response(*await run())
    except SchemaChanged:
        if not body.read_only:
            raise
        return _response(*await run())


def _check_allowed(state: TenantState, limits: QueryLimits) -> TenantState:
    """*state*, unless its tenant may not be queried."""
    refusal = limits.refusal(state.tenant.spec)
    if refusal is not None:
        raise UntrustedSqlOnSharedRole(refusal)
    return state


def _response(result: runner.StatementResult, took: float) -> Response:
    """The response; the rows are JSON already, perhaps megabytes of it."""
    columns = [{"name": column.name, "type": column.type} for column in result.columns]
    rest = to_json(
        {
            "row_count": result.row_count,
            "truncated": result.truncated,
            "duration_ms": round(took * 1000, 3),
            "status": result.status,
        }
    )
    parts = [
        b'{"columns":',
        to_json(columns),
        b',"rows":[',
        b",".join(result.rows),
        b"],",
        rest[1:],
    ]
    return Response(b"".join(parts), media_type="application/json")


def _bounds(body: QueryBody, limits: QueryLimits) -> tuple[float, int]:
    """The timeout and the maximum number of rows of this statement."""
    timeout = limits.timeout if body.timeout_seconds is None else body.timeout_seconds
    max_rows = limits.max_rows if body.max_rows is None else body.max_rows
    for field, value, limit in (
        ("timeout_seconds", timeout, limits.timeout),
        ("max_rows", max_rows, limits.max_rows),
    ):
        if value > limit:
            raise validation_error(
                "body", field, code="less_than_equal", detail=f"The maximum is {limit:g}."
            )
    return timeout, max_rows
