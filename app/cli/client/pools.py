"""`poolkeeper pools`: list, show, resize, and the operations on one pool."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

import typer
from rich.table import Table

from app.cli.client.api_client import Document, path_segment
from app.cli.client.session import (
    DEFAULT_URL,
    JsonOption,
    KeyFileOption,
    LimitOption,
    Session,
    TenantArgument,
    UrlOption,
    WatchOption,
    session_of,
)
from app.cli.client.table import TableColumn, milliseconds, number, table, text

Order = Literal["pool_id", "-waiting", "-wait_p99_ms", "-active", "-size"]
ScopeOption = Annotated[
    bool, typer.Option("--scope-pool", help="Meant for all tenants of a shared pool.")
]

COLUMNS = (
    text("POOL", "pool_id"),
    text("STRATEGY", "strategy"),
    text("SERVER", "server"),
    text("STATE", "state"),
    number("SIZE", "size"),
    TableColumn(title="MAX", value=lambda item: item["desired"]["max_size"], justify="right"),
    number("ACTIVE", "active"),
    number("IDLE", "idle"),
    number("WAITING", "waiting"),
    milliseconds("WAIT P99 MS", lambda item: item["wait_p99_ms"]),
    TableColumn(
        title="LEAKS?", value=lambda item: len(item["leak_suspects"]) or None, justify="right"
    ),
    number("TENANTS", "tenants"),
)


class Operation(StrEnum):
    """What can be done with an open pool."""

    PAUSE = "pause"
    RESUME = "resume"
    RECYCLE = "recycle"
    CHECK = "check"
    DRAIN = "drain"


pools = typer.Typer(help="Pools: list, show, resize, evict, and other operations.")


@pools.callback(invoke_without_command=True)
def list_pools(
    context: typer.Context,
    *,
    sort: Annotated[Order, typer.Option(help="What comes first.")] = "-waiting",
    strategy: Annotated[str | None, typer.Option(help="Only of this strategy.")] = None,
    server: Annotated[str | None, typer.Option(help="Only on this server.")] = None,
    limit: LimitOption = 200,
    url: UrlOption = DEFAULT_URL,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
    watch: WatchOption = None,
) -> None:
    """List live pools, those with most callers waiting first."""
    context.obj = Session(url=url, key_file=key_file, as_json=as_json, watch=watch)
    if context.invoked_subcommand is not None:
        return
    with context.obj.client() as remote:
        context.obj.show(
            lambda: list(
                remote.items("/v1/pools", most=limit, sort=sort, strategy=strategy, server=server)
            ),
            lambda items: table(COLUMNS, items),
        )


@pools.command()
def show(context: typer.Context, tenant: TenantArgument) -> None:
    """Show the pool that serves a tenant."""
    with session_of(context).client() as remote:
        session_of(context).show(
            lambda: remote.get(f"/v1/tenants/{path_segment(tenant)}/pool"), _row
        )


@pools.command()
def resize(
    context: typer.Context,
    tenant: TenantArgument,
    *,
    max_size: Annotated[int | None, typer.Option(min=1, help="Most connections.")] = None,
    min_size: Annotated[int | None, typer.Option(min=0, help="Always kept open.")] = None,
    warmup_size: Annotated[int | None, typer.Option(min=0, help="Opened with the pool.")] = None,
    is_for_pool: ScopeOption = False,
) -> None:
    """Open a tenant's pool, or change its sizes; what is left out stays."""
    wanted = {"max_size": max_size, "min_size": min_size, "warmup_size": warmup_size}
    given = {name: size for name, size in wanted.items() if size is not None}
    with session_of(context).client() as remote:
        scope = _scope(is_for_pool=is_for_pool)
        session_of(context).show(
            lambda: remote.put(f"/v1/tenants/{path_segment(tenant)}/pool", given, scope=scope), _row
        )


@pools.command()
def do(
    context: typer.Context,
    operation: Annotated[Operation, typer.Argument(help="What to do.")],
    tenant: TenantArgument,
    *,
    is_for_pool: ScopeOption = False,
) -> None:
    """Pause, resume, recycle, check or drain the pool of a tenant."""
    with session_of(context).client() as remote:
        scope = _scope(is_for_pool=is_for_pool)
        session_of(context).show(
            lambda: remote.post(
                f"/v1/tenants/{path_segment(tenant)}/pool/{operation}", scope=scope
            ),
            lambda done: _sentence(operation, done),
        )


@pools.command()
def evict(
    context: typer.Context,
    tenant: TenantArgument,
    *,
    force: Annotated[bool, typer.Option("--force", help="Cut leases instead of waiting.")] = False,
    is_for_pool: ScopeOption = False,
) -> None:
    """Close the pool of a tenant; its next request opens it again."""
    mode = "force" if force else "graceful"
    with session_of(context).client() as remote:
        scope = _scope(is_for_pool=is_for_pool)
        session_of(context).show(
            lambda: remote.delete(
                f"/v1/tenants/{path_segment(tenant)}/pool", mode=mode, scope=scope
            ),
            lambda done: _sentence("evict", done),
        )


@pools.command()
def sweep(context: typer.Context) -> None:
    """Evict now whatever has been idle for too long."""
    with session_of(context).client() as remote:
        session_of(context).show(
            lambda: remote.post("/v1/pools/evict-expired"),
            lambda done: f"{len(done['evicted'])} evicted, {len(done['skipped'])} kept",
        )


def _scope(*, is_for_pool: bool) -> str | None:
    return "pool" if is_for_pool else None


def _row(pool: Document) -> Table:
    return table(COLUMNS, [pool])


def _sentence(operation: str, done: Document) -> str:
    numbers = ", ".join(
        f"{name} {value}"
        for name, value in done.items()
        if name in {"state", "closed", "cut", "connections", "tested", "failed", "tenants"}
    )
    return f"{operation} {done['pool_id']}: {numbers}"
