"""`poolkeeper nodes`: PgBouncer nodes, through which applications connect."""

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Literal

import typer

from app.cli.client.api_client import Document, path_segment
from app.cli.client.completion import node_names
from app.cli.client.service_command import (
    ChangeCommand,
    FinalCommand,
    LabelOption,
    ListCommand,
    ShowCommand,
    pairs,
    resource,
)
from app.cli.client.session import Session, given
from app.cli.client.table import ALWAYS, VERY_WIDE, WIDE, Details, Item, age, number, prose, text


def _state(node: Item) -> str:
    also = [each for each in ("problem", "vulnerable", "paused") if node[each]]
    return ", ".join([str(node["state"]), *also])


def sum_of(field: str, node: Item) -> int:
    """A number of connections of a node, summed over all servers."""
    return sum(server[field] or 0 for server in node["servers"])


COLUMNS = (
    text("NODE", "name", ALWAYS),
    prose("STATE", _state, ALWAYS),
    number("TENANTS", "tenants"),
    number("CLIENTS", "clients"),
    number("WAITING", "waiting", ALWAYS),
    number("CONNECTIONS", lambda node: sum_of("connections", node)),
    number("ALLOTMENT", lambda node: sum_of("allotment", node)),
    prose("PROBLEM", "problem"),
    text("ENGINE", "engine", WIDE),
    text("ADDRESS", "address", WIDE),
    prose("SELECTOR", "selector", VERY_WIDE),
    text("AGENT", "agent", VERY_WIDE),
    number("SILENT S", "silent_seconds", VERY_WIDE),
    age("AGE", "created_at", VERY_WIDE),
)
# A pooler counts sums, not single transactions: means are exact, and percentiles are estimates.
TENANT_COLUMNS = (
    text("TENANT", "tenant", ALWAYS),
    text("STATE", "state", ALWAYS),
    number("WAITING", "waiting", ALWAYS),
    number("LONGEST MS", "longest_wait_ms"),
    number("ACTIVE", "active"),
    number("SHARE", "share"),
    number("EST P99 MS", "wait_p99_ms"),
    number("SIZE", "size", WIDE),
    number("WAIT MS", "wait_ms", WIDE),
    number("HOLD MS", "hold_ms", WIDE),
    number("PER S", "transactions_per_second", WIDE),
    number("CLIENTS", "clients", WIDE),
)
Order = Literal["-longest_wait_ms", "-waiting", "-clients", "-active", "tenant"]
_DETAILS = (
    *COLUMNS,
    prose("LABELS", "labels"),
    prose("LIMITS", "limits"),
    text("UP TO DATE", "up_to_date"),
    text("DRAINING", "draining"),
    prose("WARNINGS", lambda node: " ".join(node["warnings"]) or None),
)
NodeArgument = Annotated[
    str, typer.Argument(metavar="NODE", help="Node name.", autocompletion=node_names)
]
AddressOption = Annotated[
    str | None, typer.Option(metavar="HOST:PORT", help="Where applications reach it.")
]
SelectorOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        help="A label of the tenants that it serves; repeatable. Without labels: all with their "
        "own role.",
    ),
]
LimitOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SERVER=N",
        help="The most connections that it may have of a server; repeatable.",
    ),
]

nodes = resource("List, show, create, change, pause, drain and delete PgBouncer nodes.")


@nodes.command("list", cls=ListCommand)
def list_nodes(context: typer.Context) -> None:
    """List nodes."""
    context.obj.show_list("/v1/nodes", COLUMNS)


@nodes.command(cls=ShowCommand)
def show(context: typer.Context, node: NodeArgument) -> None:
    """Show one node."""
    context.obj.show_one(_path(node), _DETAILS)


@nodes.command(cls=ListCommand)
def tenants(
    context: typer.Context,
    node: NodeArgument,
    *,
    sort: Annotated[
        Order, typer.Option(help="Sort order; a leading - means descending.")
    ] = "-longest_wait_ms",
) -> None:
    """List the tenants of a node, the longest waits first.

    LONGEST MS is the present wait of the first client. SHARE is the number of connections that the
    tenant may have there, out of its max_size; SIZE is the size in force in PgBouncer. WAIT, HOLD
    and PER S are means of the last minute, EST P99 MS is the estimated 99th percentile of the
    waits.
    """
    context.obj.show_list(f"{_path(node)}/tenants", TENANT_COLUMNS, sort=sort)


@nodes.command(cls=ChangeCommand)
def create(
    context: typer.Context,
    node: Annotated[str, typer.Argument(metavar="NODE", help="Name of the new node.")],
    *,
    address: AddressOption = None,
    label: LabelOption = None,
    selector: SelectorOption = None,
    server_limit: LimitOption = None,
) -> None:
    """Create a node; its agent needs a key: poolkeeper keys create --scope node --node NODE."""
    body = _given(address, label, selector, server_limit)
    context.obj.change(lambda client: client.create(_path(node), body), partial(Details, _DETAILS))


@nodes.command("set", cls=ChangeCommand)
def change(
    context: typer.Context,
    node: NodeArgument,
    *,
    address: AddressOption = None,
    label: LabelOption = None,
    selector: SelectorOption = None,
    server_limit: LimitOption = None,
) -> None:
    """Change a node; given labels, selectors and limits replace all present ones."""
    from poolkeeper.models import NodeBody

    new = _given(address, label, selector, server_limit)

    def changed(current: Document) -> Document:
        return {**{name: current[name] for name in NodeBody.__annotations__}, **new}

    context.obj.change(
        lambda client: client.update(_path(node), changed), partial(Details, _DETAILS)
    )


@nodes.command(cls=ChangeCommand)
def pause(context: typer.Context, node: NodeArgument) -> None:
    """Let the clients of a node wait until it is resumed."""
    _operate(context.obj, "pause", node)


@nodes.command(cls=ChangeCommand)
def resume(context: typer.Context, node: NodeArgument) -> None:
    """End a pause or a drain of a node."""
    _operate(context.obj, "resume", node)


@nodes.command(cls=ChangeCommand)
def drain(context: typer.Context, node: NodeArgument) -> None:
    """Accept no new clients on a node; once the present ones have left, it has no connections."""
    _operate(context.obj, "drain", node)


@nodes.command(cls=FinalCommand)
def delete(context: typer.Context, node: NodeArgument) -> None:
    """Delete a node without connections: a drained or gone one."""
    path = _path(node)
    context.obj.confirm(f"Delete node {node}?")
    context.obj.send("DELETE", path, lambda done: f"{done['name']}: deleted")


def _operate(session: Session, operation: str, node: str) -> None:
    session.send("POST", f"{_path(node)}/{operation}", lambda done: f"{node}: {_state(done)}")


def _path(node: str) -> str:
    return f"/v1/nodes/{path_segment(node)}"


def _given(
    address: str | None,
    label: list[str] | None,
    selector: list[str] | None,
    server_limit: list[str] | None,
) -> Mapping[str, Any]:
    limits = pairs(server_limit or (), "--server-limit")
    return given(
        address=address,
        labels=label and pairs(label, "--label"),
        selector=selector and pairs(selector, "--selector"),
        limits={server: _number(most) for server, most in limits.items()} or None,
    )


def _number(most: str) -> int:
    if not most.isdecimal():
        raise typer.BadParameter(f"{most} is not a number", param_hint="--server-limit")
    return int(most[:9])
