"""`poolkeeper events`: the audit trail."""

from typing import Annotated, Literal

import typer

from app.cli.client.completion import event_ids
from app.cli.client.service_command import (
    ListCommand,
    PoolFilter,
    ShowCommand,
    TenantFilter,
    resource,
)
from app.cli.client.table import (
    ALWAYS,
    VERY_WIDE,
    WIDE,
    Item,
    age,
    changes,
    identifier,
    prose,
    text,
)
from app.cli.client.times import TIMES, point_in_time

PATH = "/v1/events"


def _name(item: Item) -> object:
    """The name of a node or a server."""
    return (item["after"] or item["before"] or {}).get("name")


COLUMNS = (
    text("ID", "id", ALWAYS),
    age("AGE", "at", ALWAYS),
    text("ACTION", "action", ALWAYS),
    text("SUBJECT", lambda item: item["tenant"] or item["pool"] or _name(item), ALWAYS),
    text("ACTOR", "actor"),
    prose("CHANGE", lambda item: changes(item["before"], item["after"])),
    prose("REASON", "reason", WIDE),
    text("AT", "at", VERY_WIDE),
    identifier("REQUEST", "request_id", VERY_WIDE),
)

events = resource("List and show the events of the audit trail: who changed what, and why.")


@events.command("list", cls=ListCommand)
def list_events(
    context: typer.Context,
    *,
    tenant: TenantFilter = None,
    pool: PoolFilter = None,
    action: Annotated[str | None, typer.Option(help="Filter by action.")] = None,
    actor: Annotated[
        str | None, typer.Option(help="Filter by an API key's name, or a part of the service.")
    ] = None,
    origin: Annotated[
        Literal["request", "service"] | None,
        typer.Option(help="Show only changes by requests, or only by the service itself."),
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help=f"Show events since this time: {TIMES}.")
    ] = None,
) -> None:
    """List the audit trail, newest events first."""
    filters = {"tenant": tenant, "pool": pool, "action": action, "actor": actor, "origin": origin}
    context.obj.show_list(PATH, COLUMNS, **filters, since=point_in_time(since))


@events.command(cls=ShowCommand)
def show(
    context: typer.Context,
    event: Annotated[
        str,
        typer.Argument(
            metavar="ID",
            help="Event id, or the beginning of a request id.",
            autocompletion=event_ids,
        ),
    ],
) -> None:
    """Show one event in full."""
    context.obj.show_found(PATH, event, "event", COLUMNS, by="request_id")
