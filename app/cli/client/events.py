"""`poolkeeper events`: who changed what, when and why."""

from __future__ import annotations

from typing import Annotated, Any

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
from app.cli.client.table import Item, TableColumn, table, text


def _change(event: Item) -> str | None:
    """What differs between before and after; all of it when there is but one side."""
    before, after = event["before"] or {}, event["after"] or {}
    if not before or not after:
        return " ".join(f"{key}={value}" for key, value in (after or before).items()) or None
    changed = [key for key in after if before.get(key) != after[key]]
    return " ".join(f"{key}: {before.get(key)} → {after[key]}" for key in changed) or None


COLUMNS = (
    text("AT", "at"),
    text("WHO", "actor"),
    text("ACTION", "action"),
    TableColumn(title="SUBJECT", value=lambda item: item["tenant"] or item["pool"]),
    TableColumn(title="CHANGE", value=_change, no_wrap=False),
    text("REASON", "reason", no_wrap=False),
)


def events(
    *,
    tenant: Annotated[str | None, typer.Option(help="Only of this tenant.")] = None,
    pool: Annotated[str | None, typer.Option(help="Only of this pool.")] = None,
    action: Annotated[str | None, typer.Option(help="Only this action.")] = None,
    since: Annotated[str | None, typer.Option(help="Only since this moment, RFC 3339.")] = None,
    limit: LimitOption = 50,
    url: UrlOption = DEFAULT_URL,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
    watch: WatchOption = None,
) -> None:
    """List what was changed, the newest first."""
    session = Session(url=url, key_file=key_file, as_json=as_json, watch=watch)
    asked: dict[str, Any] = {"tenant": tenant, "pool": pool, "action": action, "since": since}
    with session.client() as remote:
        session.show(
            lambda: list(remote.items("/v1/events", most=limit, **asked)),
            lambda items: table(COLUMNS, items),
        )
