"""`poolkeeper recommendations`: what the advisor says, and obeying or dismissing it."""

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
    UrlOption,
    WatchOption,
    session_of,
)
from app.cli.client.table import age, number, table, text

Status = Literal["open", "applied", "dismissed", "superseded", "expired", "undone", "all"]
IdArgument = Annotated[str, typer.Argument(help="The recommendation's id.", show_default=False)]

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

recommendations = typer.Typer(help="Recommendations: list, apply, dismiss.")


@recommendations.callback(invoke_without_command=True)
def list_recommendations(
    context: typer.Context,
    *,
    status: Annotated[Status, typer.Option(help="Only those that became this.")] = "open",
    tenant: Annotated[str | None, typer.Option(help="Only of this tenant.")] = None,
    limit: LimitOption = 200,
    url: UrlOption = DEFAULT_URL,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
    watch: WatchOption = None,
) -> None:
    """List what the advisor recommends."""
    context.obj = Session(url=url, key_file=key_file, as_json=as_json, watch=watch)
    if context.invoked_subcommand is not None:
        return
    wanted = None if status == "all" else status
    with context.obj.client() as remote:
        context.obj.show(
            lambda: list(
                remote.items("/v1/recommendations", most=limit, status=wanted, tenant=tenant)
            ),
            lambda items: table(COLUMNS, items),
        )


@recommendations.command()
def apply(context: typer.Context, recommendation: IdArgument) -> None:
    """Give the pool the recommended size."""
    with session_of(context).client() as remote:
        session_of(context).show(
            lambda: remote.post(f"/v1/recommendations/{path_segment(recommendation)}/apply"),
            _sentence,
        )


@recommendations.command()
def dismiss(context: typer.Context, recommendation: IdArgument) -> None:
    """Leave the pool as it is."""
    with session_of(context).client() as remote:
        session_of(context).show(
            lambda: remote.post(f"/v1/recommendations/{path_segment(recommendation)}/dismiss"),
            _sentence,
        )


def _sentence(closed: Document) -> str:
    return f"{closed['pool']}: {closed['status']}, max_size {closed['new_size']} was proposed"
