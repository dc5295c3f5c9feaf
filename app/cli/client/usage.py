"""`poolkeeper usage`: which tenants held connections, and for how long."""

from collections.abc import Sequence
from typing import Annotated

import typer

from app.cli.client.api_client import ApiClient, Document
from app.cli.client.output import print_note
from app.cli.client.service_command import ListCommand, resource
from app.cli.client.session import Session
from app.cli.client.table import ALWAYS, USUALLY, WIDE, Table, counted, number, text
from app.cli.client.times import TIMES, point_in_time

PATH = "/v1/usage"
# The most groups in one response.
_PAGE = 500
# Values below this are insignificant; digits would hide that.
_LEAST_MEAN, _LEAST_PERCENT = 0.001, 0.1


def _from(least: float, value: float) -> float | str:
    """Return *value*, or a text if it is between 0 and *least*."""
    return f"<{least:g}" if 0 < value < least else value


COLUMNS = (
    text("GROUP", "group", ALWAYS),
    number("CONNECTION-SECONDS", "connection_seconds", ALWAYS),
    number("MEAN", lambda item: _from(_LEAST_MEAN, item["mean_connections"]), USUALLY),
    number("SHARE %", lambda item: _from(_LEAST_PERCENT, 100 * item["share"]), USUALLY),
    number("LEASES", "leases", USUALLY),
    number("TIMEOUTS", "timeouts", USUALLY),
    number("TENANTS", "tenants", WIDE),
)

usage = resource("List how long tenants held connections.")


@usage.command("list", cls=ListCommand)
def list_usage(
    context: typer.Context,
    *,
    start: Annotated[
        str | None,
        typer.Option("--from", metavar="TIME", help=f"Start: {TIMES}; default 24 hours before."),
    ] = None,
    end: Annotated[
        str | None, typer.Option("--to", metavar="TIME", help="End; default now.")
    ] = None,
    group_by: Annotated[
        str, typer.Option("--by", help="tenant, pool, server, or label:NAME.")
    ] = "tenant",
    sort: Annotated[
        str, typer.Option(help="Sort key; -leases, -timeouts.")
    ] = "-connection_seconds",
) -> None:
    """List how long tenants held connections, the largest first.

    Only leases of the service's own pools count, not transactions on nodes.
    """
    session: Session = context.obj
    period = {"from": point_in_time(start), "to": point_in_time(end)}
    query = {**period, "group_by": group_by, "sort": sort}

    def fetch(client: ApiClient) -> Sequence[Document]:
        page = client.page(PATH, **query, limit=min(session.limit, _PAGE))
        groups = counted(page["totals"]["groups"], "group")
        print_note(f"{groups}, from {page['covered_from']} to {page['covered_to']}.")
        if page["next_cursor"] is not None:
            return session.fetch_list(client, PATH, **query)
        items: Sequence[Document] = page["items"]
        return items

    session.show(fetch, lambda items: Table(columns=COLUMNS, items=items))
