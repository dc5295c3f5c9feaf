"""`poolkeeper pools`: list, show, resize, and the operations on one pool."""

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Annotated, Literal

import typer

from app.cli.client.api_client import ApiClient, ApiError, Document, path_segment
from app.cli.client.completion import pool_names
from app.cli.client.exit_status import ExitStatus
from app.cli.client.output import print_note
from app.cli.client.service_command import (
    ChangeCommand,
    ListCommand,
    ServerFilter,
    ShowCommand,
    StrategyFilter,
    resource,
)
from app.cli.client.session import Session, given
from app.cli.client.table import (
    ALWAYS,
    VERY_WIDE,
    WIDE,
    Details,
    advice_of,
    counted,
    number,
    on_node,
    pool_state,
    prose,
    text,
    wait_of,
    waiting,
)

Order = Literal["pool_id", "-waiting", "-wait_p99_ms", "-active", "-size"]
PoolArgument = Annotated[
    str,
    typer.Argument(
        metavar="POOL",
        help="Tenant id, or the name of a shared pool: shared@SERVER.",
        autocompletion=pool_names,
    ),
]
SharedOption = Annotated[
    bool,
    typer.Option("--shared", help="Allow this on the pool of shared tenants, for all of them."),
]

COLUMNS = (
    text("POOL", "pool_id", ALWAYS),
    text("STATE", pool_state, ALWAYS),
    number("SIZE", "size"),
    number("MAX", lambda item: item["desired"]["max_size"]),
    number("ACTIVE", "active"),
    number("WAITING", waiting("waiting")),
    number("WAIT P99 MS", "wait_p99_ms"),
    text("STRATEGY", "strategy", WIDE),
    text("SERVER", "server", WIDE),
    number("TENANTS", "tenants", WIDE),
    number("LEAKS", lambda item: len(item["leak_suspects"]) or None, WIDE),
    number("IDLE", "idle", VERY_WIDE),
    number("MIN", lambda item: item["desired"]["min_size"], VERY_WIDE),
    number("WARMUP", lambda item: item["desired"]["warmup_size"], VERY_WIDE),
    number("ASKED", "access_count", VERY_WIDE),
    prose("WAITS FOR", wait_of, VERY_WIDE),
)
_DETAILS = (
    *COLUMNS,
    text("SHARE", lambda item: f"{item['share']} of {item['desired']['max_size']}"),
    prose("ADVICE", advice_of),
    prose("ON NODES", lambda item: "; ".join(map(on_node, item["nodes"] or ())) or None),
)
pools = resource("List, show, resize and evict pools, and run other operations on them.")


@pools.command("list", cls=ListCommand)
def list_pools(
    context: typer.Context,
    *,
    sort: Annotated[
        Order, typer.Option(help="Sort order; a leading - means descending.")
    ] = "-waiting",
    strategy: StrategyFilter = None,
    server: ServerFilter = None,
) -> None:
    """List open, paused and awaited pools, most waiting callers first."""
    query = {"sort": sort, "strategy": strategy, "server": server}
    context.obj.show_list("/v1/pools", COLUMNS, **query)


@pools.command(cls=ShowCommand)
def show(context: typer.Context, pool: PoolArgument) -> None:
    """Show one pool."""
    context.obj.show(lambda client: client.get(_path(client, pool)), partial(Details, _DETAILS))


@pools.command("set", cls=ChangeCommand)
def resize(
    context: typer.Context,
    pool: PoolArgument,
    *,
    max_size: Annotated[int | None, typer.Option(min=1, help="Maximum connections.")] = None,
    min_size: Annotated[int | None, typer.Option(min=0, help="Connections kept open.")] = None,
    warmup_size: Annotated[
        int | None, typer.Option(min=0, help="Connections opened with the pool.")
    ] = None,
    shared: SharedOption = False,
) -> None:
    """Change the sizes of a pool and open it; omitted sizes stay as they are."""
    sizes = given(max_size=max_size, min_size=min_size, warmup_size=warmup_size)
    session: Session = context.obj

    def send(client: ApiClient) -> Document:
        url, scope = _path(client, pool), _scope(pool, shared)
        done = client.request("PUT", url, sizes, scope=scope)
        if max_size is not None and not session.dry_run:
            # The resize is done: a key that may not read the server does not change that.
            with suppress(ApiError):
                _note_what_is_never_reached(client, max_size, done["server"])
        return done

    session.change(send, partial(Details, _DETAILS))


def _note_what_is_never_reached(client: ApiClient, max_size: int, server: str) -> None:
    """Note that *max_size* is never reached; a dry run says so itself."""
    limit = client.get(f"/v1/servers/{path_segment(server)}")["budget"]["limit"]
    if 0 < limit < max_size:
        print_note(
            f"max_size {max_size} is never reached: all pools of server {server} and its nodes "
            f"have {limit} connections together."
        )


@pools.command(cls=ChangeCommand)
def pause(context: typer.Context, pool: PoolArgument, *, shared: SharedOption = False) -> None:
    """Lend no connections of a pool until it is resumed."""
    _operate(context.obj, "pause", pool, shared)


@pools.command(cls=ChangeCommand)
def resume(context: typer.Context, pool: PoolArgument, *, shared: SharedOption = False) -> None:
    """Lend connections of a paused pool again."""
    _operate(context.obj, "resume", pool, shared)


@pools.command(cls=ChangeCommand)
def recycle(context: typer.Context, pool: PoolArgument, *, shared: SharedOption = False) -> None:
    """Replace all connections of a pool, each when it is returned; those on nodes, too."""
    _operate(context.obj, "recycle", pool, shared)


@pools.command(cls=ChangeCommand)
def check(context: typer.Context, pool: PoolArgument, *, shared: SharedOption = False) -> None:
    """Test the idle connections of a pool and replace broken ones."""
    _operate(context.obj, "check", pool, shared)


@pools.command(cls=ChangeCommand)
def drain(context: typer.Context, pool: PoolArgument, *, shared: SharedOption = False) -> None:
    """Take no new work in a pool, let its leases end, and close it."""
    _operate(context.obj, "drain", pool, shared)


@pools.command(cls=ChangeCommand)
def evict(
    context: typer.Context,
    pool: PoolArgument,
    *,
    force: Annotated[bool, typer.Option("--force", help="Cut leases instead of waiting.")] = False,
    shared: SharedOption = False,
) -> None:
    """Close a pool, and its idle connections on nodes; its next request opens it again."""
    _operate(context.obj, "evict", pool, shared, mode="force" if force else "graceful")


@pools.command(cls=ChangeCommand)
def evict_expired(context: typer.Context) -> None:
    """Close all pools that have been idle for too long."""
    context.obj.send(
        "POST",
        "/v1/pools/evict-expired",
        lambda done: f"{len(done['evicted'])} evicted, {len(done['skipped'])} left open",
    )


def _operate(session: Session, operation: str, pool: str, shared: bool, **params: str) -> None:
    method, below = ("DELETE", "") if operation == "evict" else ("POST", f"/{operation}")
    session.change(
        lambda client: client.request(
            method, f"{_path(client, pool)}{below}", None, scope=_scope(pool, shared), **params
        ),
        partial(_sentence, operation),
    )


def _path(client: ApiClient, pool: str) -> str:
    """The path of the pool; a shared pool has one below each of its tenants."""
    shared, at, server = pool.partition("@")
    if not at:
        return f"/v1/tenants/{path_segment(pool)}/pool"
    tenant = next(client.items("/v1/tenants", limit=1, strategy="shared", server=server), None)
    if shared != "shared" or tenant is None:
        raise ApiError(f"There is no pool {pool}.", ExitStatus.NOT_FOUND)
    return f"/v1/tenants/{path_segment(tenant['id'])}/pool"


def _scope(pool: str, shared: bool) -> str | None:
    return "pool" if shared or "@" in pool else None


def _sentence(operation: str, done: Document) -> str:
    tenants = f", for {done['tenants']} tenants" if done["tenants"] > 1 else ""
    on_nodes = _on_nodes(done["nodes"]) if operation in {"recycle", "evict"} else ""
    return f"{done['pool_id']}: {_result(operation, done)}{tenants}{on_nodes}"


def _on_nodes(nodes: Sequence[Document]) -> str:
    """Which nodes recycled its connections, and which will do so when they are back."""
    words = {True: "recycled on nodes", False: "not reached yet"}
    found = {
        word: [str(each["node"]) for each in nodes if each["recycled"] is was]
        for was, word in words.items()
    }
    return "".join(f"; {word}: {', '.join(names)}" for word, names in found.items() if names)


def _result(operation: str, done: Document) -> str:
    match operation:
        case "pause":
            return "paused"
        case "resume":
            state = "opens at its next use" if done["state"] == "closed" else done["state"]
            return f"resumed, {state}"
        case "recycle":
            return f"recycled, {counted(done['connections'], 'connection')} to be replaced"
        case "check":
            return f"{counted(done['tested'], 'connection')} tested, {done['failed']} failed"
        case "evict":
            closed = counted(done["closed"], "connection")
            return f"evicted, {closed} closed, {counted(done['cut'], 'lease')} cut"
        case _:
            return str(done["state"])
