"""`poolkeeper events`: the audit trail."""

from __future__ import annotations

from typing import Annotated, Any

import typer

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
from app.cli.client.table import Item, TableColumn, text


def _change(event: Item) -> str | None:
    """The fields that differ; all of them for a creation or a deletion."""
    before, after = event["before"] or {}, event["after"] or {}
    if not before or not after:
        return " ".join(f"{key}={value}" for key, value in (after or before).items()) or None
    changed = [key for key in after if before.get(key) != after[key]]
    return " ".join(f"{key}: {before.get(key)} → {after[key]}" for key in changed) or None


COLUMNS = (
    text("AT", "at"),
    text("ACTOR", "actor"),
    text("ACTION", "action"),
    TableColumn(title="SUBJECT", value=lambda item: item["tenant"] or item["pool"]),
    TableColumn(title="CHANGE", value=_change, no_wrap=False),
    text("REASON", "reason", no_wrap=False),
)


def events(
    *,
    tenant: TenantFilter = None,
    pool: Annotated[str | None, typer.Option(help="Filter by pool.")] = None,
    action: Annotated[str | None, typer.Option(help="Filter by action.")] = None,
    since: Annotated[
        str | None, typer.Option(help="Show events since this time (RFC 3339).")
    ] = None,
    limit: LimitOption = 50,
    url: UrlOption = DEFAULT_URL,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
    watch: WatchOption = None,
) -> None:
    """List the audit trail, newest events first."""
    filters: dict[str, Any] = {"tenant": tenant, "pool": pool, "action": action, "since": since}
    session = Session(url, key_file, as_json, watch)
    session.show_list("/v1/events", COLUMNS, limit=limit, **filters)
