"""`poolkeeper servers`: the Postgres servers and their connection budgets."""

from typing import Annotated

import typer

from app.cli.client.api_client import path_segment
from app.cli.client.completion import server_names
from app.cli.client.service_command import ListCommand, ShowCommand, resource
from app.cli.client.table import ALWAYS, VERY_WIDE, WIDE, Item, number, prose, text, waiting


def _on_nodes(item: Item) -> str | None:
    """How many of the connections that nodes may have are open there; None without nodes."""
    budget = item["budget"]
    return f"{budget['nodes_open']} of {budget['nodes']}" if budget.get("nodes") else None


def _state(item: Item) -> str:
    opens_none = item["state"] == "available" and item["last_error"]
    also = {"opens no connection": opens_none, "read-only": item["read_only"]}
    return ", ".join([str(item["state"]), *(each for each, is_so in also.items() if is_so)])


COLUMNS = (
    text("SERVER", "name", ALWAYS),
    prose("STATE", _state, ALWAYS),
    number("USED", lambda item: item["budget"]["used"]),
    number("LOST", lambda item: item["budget"].get("lost"), VERY_WIDE),
    number("BUDGET", lambda item: item["budget"]["limit"]),
    text("CONTENDED", lambda item: item["budget"]["contended"]),
    number("POOLS", lambda item: len(item["pools"])),
    number("ACTIVE", lambda item: sum(pool["active"] for pool in item["pools"])),
    number("NODES", _on_nodes, WIDE),
    number("WAITING", waiting(lambda item: sum(pool["waiting"] for pool in item["pools"]))),
    text("ADDRESS", lambda item: f"{item['host']}:{item['port']}", WIDE),
    text("VERSION", "version", WIDE),
    prose("LAST ERROR", "last_error", WIDE),
    number("MAX CONNECTIONS", "max_connections", VERY_WIDE),
    number("KEPT FREE", lambda item: item["budget"]["kept_free"], VERY_WIDE),
)

servers = resource("List and show the Postgres servers.")


@servers.command("list", cls=ListCommand)
def list_servers(context: typer.Context) -> None:
    """List servers and their connection budgets."""
    context.obj.show_list("/v1/servers", COLUMNS)


@servers.command(cls=ShowCommand)
def show(
    context: typer.Context,
    server: Annotated[
        str, typer.Argument(metavar="SERVER", help="Server name.", autocompletion=server_names)
    ],
) -> None:
    """Show one server."""
    context.obj.show_one(f"/v1/servers/{path_segment(server)}", COLUMNS)
