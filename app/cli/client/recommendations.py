"""`poolkeeper recommendations`: list, apply or dismiss what the advisor recommends."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from app.cli.client.api_client import Document, path_segment
from app.cli.client.session import (
    DEFAULT_URL,
    JsonOption,
    KeyFileOption,
    LimitOption,
    Session,
    TenantFilter,
    UrlOption,
    WatchOption,
)
from app.cli.client.table import age, number, text

Status = Literal["open", "applied", "dismissed", "superseded", "expired", "undone", "all"]
IdArgument = Annotated[str, typer.Argument(help="Recommendation id.", show_default=False)]

COLUMNS = (
    text("ID", "id", no_wrap=False),
    text("POOL", "pool"),
    text("RULE", "rule"),
    number("MAX", "max_size"),
    number("PROPOSED", "new_size"),
    text("STATUS", "status"),
    age("AGE", "created_at"),
    text("REASON", "reason", no_wrap=False),
)

recommendations = typer.Typer(help="List, apply or dismiss the advisor's recommendations.")


@recommendations.callback(invoke_without_command=True)
def list_recommendations(
    context: typer.Context,
    *,
    status: Annotated[Status, typer.Option(help="Filter by status.")] = "open",
    tenant: TenantFilter = None,
    limit: LimitOption = 200,
    url: UrlOption = DEFAULT_URL,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
    watch: WatchOption = None,
) -> None:
    """List the advisor's recommendations."""
    context.obj = Session(url, key_file, as_json, watch)
    if context.invoked_subcommand is None:
        filters = {"status": None if status == "all" else status, "tenant": tenant}
        context.obj.show_list("/v1/recommendations", COLUMNS, limit=limit, **filters)


@recommendations.command()
def apply(context: typer.Context, recommendation: IdArgument) -> None:
    """Resize the pool as recommended."""
    _decide(context.obj, recommendation, "apply")


@recommendations.command()
def dismiss(context: typer.Context, recommendation: IdArgument) -> None:
    """Close a recommendation without resizing the pool."""
    _decide(context.obj, recommendation, "dismiss")


def _decide(session: Session, recommendation: str, decision: str) -> None:
    def sentence(closed: Document) -> str:
        return f"{closed['pool']}: {closed['status']}, proposed max_size {closed['new_size']}"

    session.show(
        lambda client: client.post(
            f"/v1/recommendations/{path_segment(recommendation)}/{decision}"
        ),
        sentence,
    )
