"""One SQL statement as a tenant, over HTTP."""

from __future__ import annotations

from time import monotonic
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from jiter import LosslessFloat
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import to_json

from app.api.http.authentication import REQUIRE_QUERY
from app.api.http.deadline import extend_deadline
from app.api.http.dependencies import ManagerDep, TenantDep, provided
from app.api.http.disconnect import cancel_on_disconnect
from app.api.http.error_responses import problem_responses, validation_error
from app.api.http.field_types import JsonValue, RequestBody, Text
from app.api.http.strict_route import StrictRoute
from app.api.views.plan import DryRunQuery, PlanView, show_plan
from app.api.views.tenant import QueryLimits
from app.domain.errors import SchemaChanged, UntrustedSqlOnSharedRole
from app.domain.plan import Plan, PlanAction, plan_step
from app.pools.query import runner


class _ExactRoute(StrictRoute):
    """Numbers of the body keep their digits: a parameter may be any numeric."""

    float_mode = "lossless-float"


router = APIRouter(prefix="/v1/tenants/{tenant}/query", tags=["query"], route_class=_ExactRoute)

_LONGEST_SQL = 100_000
_MOST_PARAMS = 1000
_NOT_SENT = "Postgres has not seen the statement and may refuse it."


def _as_float(value: object) -> object:
    return float(value) if isinstance(value, LosslessFloat) else value


class QueryBody(RequestBody):
    """A statement and how to run it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"sql": "select current_user, now()"},
                {
                    "sql": "insert into notes (day, text) values ($1, $2) returning id",
                    "params": ["2026-11-20", "hello"],
                    "read_only": False,
                    "timeout_seconds": 2,
                },
            ]
        }
    )

    sql: Annotated[Text, Field(min_length=1, max_length=_LONGEST_SQL)] = Field(
        description="Exactly one statement; `$1` and so on stand for the parameters."
    )
    params: list[JsonValue] = Field(
        default=[],
        max_length=_MOST_PARAMS,
        description="A string binds to a parameter of any type through its text form.",
    )
    read_only: bool = Field(default=True, description="Refuse writes.")
    timeout_seconds: Annotated[float | None, BeforeValidator(_as_float)] = Field(
        default=None,
        ge=0.001,
        allow_inf_nan=False,
        description="Longest run, in seconds; the operator's limit if omitted.",
    )
    max_rows: int | None = Field(
        default=None, ge=1, description="Most rows returned; the operator's limit if omitted."
    )


class QueryColumn(BaseModel):
    """A column of the result."""

    name: str
    type: str = Field(description="Its Postgres type.")


class QueryResult(BaseModel):
    """What a statement gave."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
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
            ]
        }
    )

    columns: list[QueryColumn]
    rows: list[list[Any]] = Field(
        description="Each an array. Numbers of a fixed width are numbers, other values strings."
    )
    row_count: int = Field(description="Rows returned, or changed by a statement returning none.")
    truncated: bool = Field(description="Whether there were more rows than asked for.")
    duration_ms: float = Field(description="Of the statement, without the wait for a connection.")
    status: str | None = Field(description="Postgres' command tag of a statement without rows.")


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
    """Run one statement inside the tenant's own context, in one transaction.

    Shared tenants may do this only where the operator has allowed it (`query_allowed` of the
    tenant): one role for all does not hold against hostile SQL. A write needs
    `"read_only": false`, else it answers 403. A statement that runs into its timeout answers
    504, a pool without a free connection 503; neither has changed anything. If the client
    disconnects, the statement is cancelled and rolled back, unless it is being committed already.
    """
    timeout, max_rows = _bounds(body, limits)
    state = manager.tenant_state(tenant)
    spec = state.tenant.spec
    refusal = limits.refusal(spec)
    if refusal is not None:
        raise UntrustedSqlOnSharedRole(refusal)
    if dry_run:
        state.tenant.check_usable()
        step = plan_step(PlanAction.RUN_STATEMENT, f"tenant {tenant}")
        return show_plan(step + Plan(warnings=(_NOT_SENT,)), response)
    extend_deadline(request, timeout + manager.config(spec.strategy).acquire_timeout)

    async def run() -> tuple[runner.StatementResult, float]:
        lease = manager.lease(tenant, read_only=body.read_only, statement_timeout=timeout)
        async with cancel_on_disconnect(request) as run_to_the_end, lease as connection:
            began = monotonic()
            result = await runner.run_query(
                connection, body.sql, body.params, max_rows=max_rows, timeout=timeout
            )
            took = monotonic() - began
            run_to_the_end()
        return result, took

    try:
        return _shown(*await run())
    except SchemaChanged:
        if not body.read_only:
            raise
        return _shown(*await run())


def _shown(result: runner.StatementResult, took: float) -> Response:
    """The answer; its rows are JSON already, megabytes of it perhaps."""
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
    """The timeout and the number of rows that hold for this statement."""
    timeout = limits.timeout if body.timeout_seconds is None else body.timeout_seconds
    max_rows = limits.max_rows if body.max_rows is None else body.max_rows
    for field, value, most in (
        ("timeout_seconds", timeout, limits.timeout),
        ("max_rows", max_rows, limits.max_rows),
    ):
        if value > most:
            raise validation_error(
                "body", field, code="less_than_equal", detail=f"It may be {most:g} at most."
            )
    return timeout, max_rows
