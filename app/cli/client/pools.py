"""`poolkeeper pools`: list, show, resize, and the operations on one pool."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from typing import Annotated, Literal

import typer
from rich.table import Table

from app.cli.client.api_client import Document, path_segment
from app.cli.client.session import (
    DEFAULT_URL,
    JsonOption,
    KeyFileOption,
    LimitOption,
    ServerFilter,
    Session,
    StrategyFilter,
    TenantArgument,
    UrlOption,
    WatchOption,
)
from app.cli.client.table import TableColumn, number, pool_state, table, text

Order = Literal["pool_id", "-waiting", "-wait_p99_ms", "-active", "-size"]
ScopeOption = Annotated[
    bool,
    typer.Option("--scope-pool", help="Allow this on a shared pool; it affects all its tenants."),
]

COLUMNS = (
    text("POOL", "pool_id"),
    text("STRATEGY", "strategy"),
    text("SERVER", "server"),
    TableColumn(title="STATE", value=pool_state),
    number("SIZE", "size"),
    number("MAX", lambda item: item["desired"]["max_size"]),
    number("ACTIVE", "active"),
    number("IDLE", "idle"),
    number("WAITING", "waiting"),
    number("WAIT P99 MS", "wait_p99_ms"),
    number("LEAKS", lambda item: len(item["leak_suspects"]) or None),
    number("TENANTS", "tenants"),
)
_RESULTS = frozenset({"state", "closed", "cut", "connections", "tested", "failed", "tenants"})


class PoolOperation(StrEnum):
    """Operations on an open pool."""

    PAUSE = "pause"
    RESUME = "resume"
    RECYCLE = "recycle"
    CHECK = "check"
    DRAIN = "drain"


pools = typer.Typer(help="List, show, resize and evict pools, and run other operations on them.")


@pools.callback(invoke_without_command=True)
def list_pools(
    context: typer.Context,
    *,
    sort: Annotated[
        Order, typer.Option(help="Sort order; a leading - means descending.")
    ] = "-waiting",
    strategy: StrategyFilter = None,
    server: ServerFilter = None,
    limit: LimitOption = 200,
    url: UrlOption = DEFAULT_URL,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
    watch: WatchOption = None,
) -> None:
    """List open and paused pools, most waiting callers first."""
    context.obj = Session(url, key_file, as_json, watch)
    if context.invoked_subcommand is None:
        query = {"sort": sort, "strategy": strategy, "server": server}
        context.obj.show_list("/v1/pools", COLUMNS, limit=limit, **query)


@pools.command()
def show(context: typer.Context, tenant: TenantArgument) -> None:
    """Show the pool of a tenant."""
    context.obj.show(lambda client: client.get(_path(tenant)), _row)


@pools.command()
def resize(
    context: typer.Context,
    tenant: TenantArgument,
    *,
    max_size: Annotated[int | None, typer.Option(min=1, help="Maximum connections.")] = None,
    min_size: Annotated[int | None, typer.Option(min=0, help="Connections kept open.")] = None,
    warmup_size: Annotated[
        int | None, typer.Option(min=0, help="Connections opened with the pool.")
    ] = None,
    scope_pool: ScopeOption = False,
) -> None:
    """Change the sizes of a tenant's pool and open it; omitted sizes stay the same."""
    sizes = {"max_size": max_size, "min_size": min_size, "warmup_size": warmup_size}
    given = {name: size for name, size in sizes.items() if size is not None}
    context.obj.show(
        lambda client: client.put(_path(tenant), given, scope=_scope(scope_pool=scope_pool)), _row
    )


@pools.command()
def do(
    context: typer.Context,
    operation: Annotated[PoolOperation, typer.Argument(help="Operation.")],
    tenant: TenantArgument,
    *,
    scope_pool: ScopeOption = False,
) -> None:
    """Pause, resume, recycle, check or drain the pool of a tenant."""
    context.obj.show(
        lambda client: client.post(
            f"{_path(tenant)}/{operation}", scope=_scope(scope_pool=scope_pool)
        ),
        partial(_sentence, operation),
    )


@pools.command()
def evict(
    context: typer.Context,
    tenant: TenantArgument,
    *,
    force: Annotated[bool, typer.Option("--force", help="Cut leases instead of waiting.")] = False,
    scope_pool: ScopeOption = False,
) -> None:
    """Close the pool of a tenant; its next request opens it again."""
    mode = "force" if force else "graceful"
    context.obj.show(
        lambda client: client.delete(_path(tenant), mode=mode, scope=_scope(scope_pool=scope_pool)),
        partial(_sentence, "evict"),
    )


@pools.command()
def evict_expired(context: typer.Context) -> None:
    """Close all pools that have been idle for too long."""
    context.obj.show(
        lambda client: client.post("/v1/pools/evict-expired"),
        lambda done: f"{len(done['evicted'])} evicted, {len(done['skipped'])} skipped",
    )


def _path(tenant: str) -> str:
    return f"/v1/tenants/{path_segment(tenant)}/pool"


def _scope(*, scope_pool: bool) -> str | None:
    return "pool" if scope_pool else None


def _row(pool: Document) -> Table:
    return table(COLUMNS, [pool])


def _sentence(operation: str, done: Document) -> str:
    results = ", ".join(f"{name} {value}" for name, value in done.items() if name in _RESULTS)
    return f"{operation} {done['pool_id']}: {results}"
