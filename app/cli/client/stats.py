"""`poolkeeper stats`: each tenant's numbers, or one tenant's past."""

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
from app.cli.client.table import milliseconds, number, table, text

COLUMNS = (
    text("TENANT", "tenant"),
    text("POOL", "pool"),
    number("LEASES", "connections_acquired"),
    number("ACTIVE", "active_connections"),
    number("WAITING", "waiting_requests"),
    milliseconds("WAIT P50", lambda item: item["wait"]["p50_ms"]),
    milliseconds("P95", lambda item: item["wait"]["p95_ms"]),
    milliseconds("P99 MS", lambda item: item["wait"]["p99_ms"]),
    milliseconds("HOLD P95", lambda item: item["hold"]["p95_ms"]),
    milliseconds("CONNECT P95", lambda item: item["connect"]["p95_ms"]),
    number("TIMEOUTS", "timeouts"),
    number("REJECTED", "rejected"),
)
HISTORY_COLUMNS = (
    text("AT", "at"),
    number("ACQUIRED", "acquired"),
    number("ACTIVE", "active_connections"),
    number("WAITING", "waiting_requests"),
    milliseconds("WAIT P95 MS", lambda item: item["wait_p95_ms"]),
    milliseconds("HOLD P95 MS", lambda item: item["hold_p95_ms"]),
    number("TIMEOUTS", "timeouts"),
)


def stats(
    *,
    tenant: Annotated[str | None, typer.Argument(help="One tenant; all without it.")] = None,
    past: Annotated[bool, typer.Option("--history", help="The tenant's last hour.")] = False,
    limit: LimitOption = 200,
    url: UrlOption = DEFAULT_URL,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
    watch: WatchOption = None,
) -> None:
    """Show what was counted and measured since the service started."""
    if past and tenant is None:
        raise typer.BadParameter("name a tenant", param_hint="--history")
    session = Session(url=url, key_file=key_file, as_json=as_json, watch=watch)
    with session.client() as remote:
        if tenant is None:
            session.show(
                lambda: list(remote.items("/v1/stats", most=limit)),
                lambda items: table(COLUMNS, items),
            )
            return
        path = f"/v1/tenants/{path_segment(tenant)}/stats"
        if past:
            session.show(
                lambda: remote.get(f"{path}/history"),
                lambda answer: table(HISTORY_COLUMNS, answer["items"]),
            )
        else:
            session.show(lambda: remote.get(path), lambda one: table(COLUMNS, [one]))
