"""`poolkeeper usage`: which tenants held connections for how long."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli.client.service_command import ListCommand, resource
from app.cli.client.table import ALWAYS, USUALLY, WIDE, number, text

PATH = "/v1/usage"
COLUMNS = (
    text("GROUP", "group", ALWAYS),
    number("CONNECTION-SECONDS", "connection_seconds", ALWAYS),
    number("MEAN", "mean_connections", USUALLY),
    number("SHARE %", lambda item: 100 * item["share"], USUALLY),
    number("LEASES", "leases", USUALLY),
    number("TIMEOUTS", "timeouts", USUALLY),
    number("TENANTS", "tenants", WIDE),
)

usage = resource("List who used connections for how long.")


@usage.command("list", cls=ListCommand)
def list_usage(
    context: typer.Context,
    *,
    start: Annotated[
        str | None,
        typer.Option("--from", metavar="TIME", help="Start (RFC 3339); default 24 hours before."),
    ] = None,
    end: Annotated[
        str | None, typer.Option("--to", metavar="TIME", help="End (RFC 3339); default now.")
    ] = None,
    group_by: Annotated[
        str, typer.Option("--by", help="tenant, pool, server, or label:NAME.")
    ] = "tenant",
    sort: Annotated[
        str, typer.Option(help="Sort key; -leases, -timeouts.")
    ] = "-connection_seconds",
) -> None:
    """List who used connections for how long, the largest first."""
    period = {"from": start, "to": end}
    context.obj.show_list(PATH, COLUMNS, **period, group_by=group_by, sort=sort)
