"""`poolkeeper leases`: who holds a connection now, and who waits for one."""

from typing import Annotated

import typer

from app.cli.client.service_command import (
    ListCommand,
    PoolFilter,
    ServerFilter,
    TenantFilter,
    resource,
)
from app.cli.client.table import ALWAYS, VERY_WIDE, WIDE, number, prose, text, wait_of

PATH = "/v1/leases"
COLUMNS = (
    text("TENANT", "tenant", ALWAYS),
    text("STATE", "state", ALWAYS),
    number("SECONDS", "age_seconds", ALWAYS),
    number("PLACE", "position"),
    prose("STATEMENT", "statement"),
    prose("WAITS FOR", wait_of, WIDE),
    text("POOL", "pool_id", WIDE),
    number("PID", "pid", WIDE),
    text("TASK", "task", VERY_WIDE),
    text("TAKEN AT", "taken_at", VERY_WIDE),
    text("SERVER", "server", VERY_WIDE),
)

leases = resource("List leases and waiting callers.")


@leases.command("list", cls=ListCommand)
def list_leases(
    context: typer.Context,
    *,
    tenant: TenantFilter = None,
    pool: PoolFilter = None,
    server: ServerFilter = None,
    state: Annotated[str | None, typer.Option(help="active or waiting.")] = None,
) -> None:
    """List who holds a connection now, and who waits for one; the oldest first."""
    context.obj.show_list(PATH, COLUMNS, tenant=tenant, pool=pool, server=server, state=state)
