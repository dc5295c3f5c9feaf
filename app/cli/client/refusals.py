"""`poolkeeper refusals`: why recent requests were refused."""

from typing import Annotated

import typer

from app.cli.client.completion import refusal_ids
from app.cli.client.service_command import ListCommand, ShowCommand, TenantFilter, resource
from app.cli.client.table import ALWAYS, VERY_WIDE, WIDE, age, identifier, number, prose, text

PATH = "/v1/refusals"
COLUMNS = (
    text("ID", "id", ALWAYS),
    age("AGE", "at", ALWAYS),
    text("TENANT", "tenant", ALWAYS),
    text("CODE", "code", ALWAYS),
    prose("DETAIL", "detail"),
    text("ACTOR", "actor", WIDE),
    identifier("REQUEST", "request_id", WIDE),
    number("STATUS", "status", VERY_WIDE),
    text("METHOD", "method", VERY_WIDE),
    prose("PATH", "path", VERY_WIDE),
    text("AT", "at", VERY_WIDE),
)

refusals = resource("List and show recent refusals of requests, with their reasons.")


@refusals.command("list", cls=ListCommand)
def list_refusals(
    context: typer.Context,
    *,
    tenant: TenantFilter = None,
    code: Annotated[str | None, typer.Option(help="Filter by problem code.")] = None,
) -> None:
    """List recent refusals, newest first."""
    context.obj.show_list(PATH, COLUMNS, tenant=tenant, code=code)


@refusals.command(cls=ShowCommand)
def show(
    context: typer.Context,
    refusal: Annotated[
        str,
        typer.Argument(
            metavar="ID",
            help="Refusal id, or the beginning of a request id.",
            autocompletion=refusal_ids,
        ),
    ],
) -> None:
    """Show one refusal in full."""
    context.obj.show_found(PATH, refusal, "refusal", COLUMNS, by="request_id")
