"""`poolkeeper stats`: statistics of all tenants, of one, and its history."""

from typing import Annotated, Literal

import typer

from app.cli.client.api_client import Document, path_segment
from app.cli.client.service_command import ListCommand, ShowCommand, TenantArgument, resource
from app.cli.client.table import (
    ALWAYS,
    VERY_WIDE,
    WIDE,
    Table,
    age,
    number,
    prose,
    text,
    wait_cause,
    wait_of,
    waiting,
)
from app.cli.client.times import TIMES, point_in_time

COLUMNS = (
    text("TENANT", "tenant", ALWAYS),
    number("ACTIVE", "active_connections"),
    number("WAITING", waiting("waiting_requests")),
    text("WAITS FOR", wait_cause),
    number("WAIT P99 MS", lambda item: item["wait"]["p99_ms"]),
    number("HOLD P95 MS", lambda item: item["hold"]["p95_ms"]),
    number("TIMEOUTS", "timeouts"),
    number("LEASES", "connections_acquired", WIDE),
    number("WAIT P50 MS", lambda item: item["wait"]["p50_ms"], WIDE),
    number("WAIT P95 MS", lambda item: item["wait"]["p95_ms"], WIDE),
    number("REJECTED", "rejected", WIDE),
    prose("WHY", wait_of, VERY_WIDE),
    text("POOL", "pool", VERY_WIDE),
    number("CONNECT P95 MS", lambda item: item["connect"]["p95_ms"], VERY_WIDE),
    number("OPENED", "connections_opened", VERY_WIDE),
    number("CLOSED", "connections_closed", VERY_WIDE),
    number("LOST", "connections_lost", VERY_WIDE),
    age("LAST USED", "last_activity", VERY_WIDE),
)
HISTORY_COLUMNS = (
    text("AT", lambda item: item["at"][:19], ALWAYS),
    number("LEASES", "acquired"),
    number("ACTIVE", "active_connections"),
    number("WAITING", "waiting_requests"),
    number("WAIT P95 MS", "wait_p95_ms"),
    number("TIMEOUTS", "timeouts"),
    number("HOLD P95 MS", "hold_p95_ms", WIDE),
    number("SIZE", "total_connections", WIDE),
)
Order = Literal["tenant", "-waiting_requests", "-wait_p99_ms", "-active_connections"]
# Nodes count transactions; their times are estimates.
_ON = text("ON", "on", ALWAYS)

stats = resource("Show the statistics of tenants since the service started, and their history.")


@stats.command("list", cls=ListCommand)
def list_stats(
    context: typer.Context,
    *,
    sort: Annotated[
        Order, typer.Option(help="Sort order; a leading - means descending.")
    ] = "-waiting_requests",
) -> None:
    """List the statistics of all tenants, most waiting callers first."""
    context.obj.show_list("/v1/stats", COLUMNS, sort=sort)


@stats.command(cls=ShowCommand)
def show(context: typer.Context, tenant: TenantArgument) -> None:
    """Show the statistics of one tenant."""
    context.obj.show_one(f"/v1/tenants/{path_segment(tenant)}/stats", COLUMNS)


@stats.command(cls=ShowCommand)
def history(
    context: typer.Context,
    tenant: TenantArgument,
    *,
    since: Annotated[
        str | None,
        typer.Option("--from", metavar="TIME", help=f"Start: {TIMES}; default an hour ago."),
    ] = None,
    until: Annotated[
        str | None, typer.Option("--to", metavar="TIME", help="End; default now.")
    ] = None,
    step_seconds: Annotated[
        int | None, typer.Option("--step", min=1, metavar="SECONDS", help="Time between rows.")
    ] = None,
) -> None:
    """Show a tenant's past statistics."""
    path = f"/v1/tenants/{path_segment(tenant)}/stats/history"
    period = {"from": point_in_time(since), "to": point_in_time(until)}
    query = {**period, "step_seconds": step_seconds}
    context.obj.show(lambda client: client.get(path, **query), _history)


def _history(found: Document) -> Table:
    """One row for each step; two if the tenant was on nodes, too."""
    if not found["on_nodes"]:
        return Table(columns=HISTORY_COLUMNS, items=found["items"])
    rows = [
        *({**item, "on": "service"} for item in found["items"]),
        *({**item, "on": "nodes, estimated"} for item in found["on_nodes"]),
    ]
    at, *others = HISTORY_COLUMNS
    return Table(columns=(at, _ON, *others), items=sorted(rows, key=lambda row: row["at"]))
