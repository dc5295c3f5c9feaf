"""`poolkeeper stats`: statistics of all tenants, or one tenant's history."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli.client.api_client import path_segment
from app.cli.client.session import (
    DEFAULT_URL,
    JsonOption,
    KeyFileOption,
    LimitOption,
    Session,
    UrlOption,
    WatchOption,
)
from app.cli.client.table import number, table, text

COLUMNS = (
    text("TENANT", "tenant"),
    text("POOL", "pool"),
    number("LEASES", "connections_acquired"),
    number("ACTIVE", "active_connections"),
    number("WAITING", "waiting_requests"),
    number("WAIT P50", lambda item: item["wait"]["p50_ms"]),
    number("P95", lambda item: item["wait"]["p95_ms"]),
    number("P99 MS", lambda item: item["wait"]["p99_ms"]),
    number("HOLD P95", lambda item: item["hold"]["p95_ms"]),
    number("CONNECT P95", lambda item: item["connect"]["p95_ms"]),
    number("TIMEOUTS", "timeouts"),
    number("REJECTED", "rejected"),
)
HISTORY_COLUMNS = (
    text("AT", "at"),
    number("ACQUIRED", "acquired"),
    number("ACTIVE", "active_connections"),
    number("WAITING", "waiting_requests"),
    number("WAIT P95 MS", "wait_p95_ms"),
    number("HOLD P95 MS", "hold_p95_ms"),
    number("TIMEOUTS", "timeouts"),
)


def stats(
    *,
    tenant: Annotated[str | None, typer.Argument(help="Tenant id; omit for all.")] = None,
    history: Annotated[
        bool, typer.Option("--history", help="Show the tenant's last hour.")
    ] = False,
    limit: LimitOption = 200,
    url: UrlOption = DEFAULT_URL,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
    watch: WatchOption = None,
) -> None:
    """Show statistics since the service started."""
    if history and tenant is None:
        raise typer.BadParameter("requires a tenant", param_hint="--history")
    session = Session(url, key_file, as_json, watch)
    if tenant is None:
        session.show_list("/v1/stats", COLUMNS, limit=limit)
    elif history:
        session.show(
            lambda client: client.get(f"/v1/tenants/{path_segment(tenant)}/stats/history"),
            lambda response: table(HISTORY_COLUMNS, response["items"]),
        )
    else:
        session.show(
            lambda client: client.get(f"/v1/tenants/{path_segment(tenant)}/stats"),
            lambda one: table(COLUMNS, [one]),
        )
