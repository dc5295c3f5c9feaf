"""`poolkeeper refusals`: why requests were refused lately."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from app.cli.client.session import (
    DEFAULT_URL,
    JsonOption,
    KeyFileOption,
    LimitOption,
    Session,
    UrlOption,
    WatchOption,
)
from app.cli.client.table import table, text

COLUMNS = (
    text("AT", "at"),
    text("TENANT", "tenant"),
    text("ACTOR", "actor"),
    text("CODE", "code"),
    text("REQUEST ID", "request_id"),
    text("DETAIL", "detail", no_wrap=False),
)


def refusals(
    *,
    tenant: Annotated[str | None, typer.Option(help="Filter by tenant.")] = None,
    code: Annotated[str | None, typer.Option(help="Filter by problem code.")] = None,
    request_id: Annotated[str | None, typer.Option(help="Show the refusal of a request.")] = None,
    limit: LimitOption = 50,
    url: UrlOption = DEFAULT_URL,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
    watch: WatchOption = None,
) -> None:
    """List recent refusals of requests, newest first, with their reasons."""
    filters = {"tenant": tenant, "code": code, "request_id": request_id}
    Session(url, key_file, as_json, watch).show(
        lambda client: list(client.items("/v1/refusals", limit=limit, **filters)),
        partial(table, COLUMNS),
    )
