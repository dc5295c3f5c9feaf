"""`poolkeeper recommendations`: list, show, apply or dismiss recommendations."""

from typing import Annotated, Literal

import typer

from app.cli.client.api_client import ApiClient, Document, path_segment
from app.cli.client.completion import recommendation_ids
from app.cli.client.evidence import evidence_of
from app.cli.client.service_command import (
    ChangeCommand,
    ListCommand,
    PoolFilter,
    ShowCommand,
    TenantFilter,
    resource,
)
from app.cli.client.session import Session
from app.cli.client.table import (
    ALWAYS,
    VERY_WIDE,
    WIDE,
    age,
    effect_of,
    identifier,
    number,
    prose,
    text,
)

PATH = "/v1/recommendations"
Status = Literal["open", "applied", "dismissed", "superseded", "expired", "undone", "all"]
IdArgument = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        help="Recommendation id, or its beginning.",
        autocompletion=recommendation_ids,
    ),
]

COLUMNS = (
    identifier("ID", "id"),
    text("POOL", "pool", ALWAYS),
    number("MAX", "max_size", ALWAYS),
    number("PROPOSED", "new_size", ALWAYS),
    age("AGE", "created_at"),
    prose("REASON", "reason"),
    text("STATUS", "status", WIDE),
    text("CONFIDENCE", "confidence", VERY_WIDE),
    text("RULE", "rule", VERY_WIDE),
    text("CLOSED BY", "closed_by", VERY_WIDE),
)
_DETAILS = (*COLUMNS, prose("EXPECTED", effect_of), prose("EVIDENCE", evidence_of))

recommendations = resource("List, show, apply or dismiss the advisor's recommendations.")


@recommendations.command("list", cls=ListCommand)
def list_recommendations(
    context: typer.Context,
    *,
    status: Annotated[Status, typer.Option(help="Filter by status.")] = "open",
    tenant: TenantFilter = None,
    pool: PoolFilter = None,
) -> None:
    """List the advisor's recommendations."""
    filters = {"status": None if status == "all" else status, "tenant": tenant, "pool": pool}
    context.obj.show_list(PATH, COLUMNS, **filters)


@recommendations.command(cls=ShowCommand)
def show(context: typer.Context, recommendation: IdArgument) -> None:
    """Show one recommendation, with its evidence."""
    context.obj.show_found(PATH, recommendation, "recommendation", _DETAILS)


@recommendations.command(cls=ChangeCommand)
def apply(context: typer.Context, recommendation: IdArgument) -> None:
    """Resize the pool as recommended."""
    _decide(context.obj, recommendation, "apply")


@recommendations.command(cls=ChangeCommand)
def dismiss(context: typer.Context, recommendation: IdArgument) -> None:
    """Close a recommendation without resizing the pool."""
    _decide(context.obj, recommendation, "dismiss")


def _decide(session: Session, recommendation: str, decision: str) -> None:
    def send(client: ApiClient) -> Document:
        found = path_segment(client.find(PATH, recommendation, "recommendation")["id"])
        return client.request("POST", f"{PATH}/{found}/{decision}")

    session.change(
        send,
        lambda closed: (
            f"{closed['pool']}: {closed['status']}, proposed maximum {closed['new_size']}"
        ),
    )
