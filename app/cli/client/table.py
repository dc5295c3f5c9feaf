"""Lists as tables: the columns of each kind of item, and how a value reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from rich.table import Table
from rich.text import Text

from app.runtime.printable import printable

Item = Mapping[str, Any]
_UNITS = ((86_400, "d"), (3600, "h"), (60, "m"))


@dataclass(frozen=True, slots=True, kw_only=True)
class TableColumn:
    """A column: its title, the value that it shows of an item, and how it fits a narrow terminal.

    Text wraps if it is longer than the column, unless it is cut.
    """

    title: str
    value: Callable[[Item], object]
    justify: Literal["left", "right"] = "left"
    no_wrap: bool = True
    is_cut: bool = False


def text(title: str, key: str, *, no_wrap: bool = True) -> TableColumn:
    return TableColumn(title=title, value=lambda item: item.get(key), no_wrap=no_wrap)


def number(title: str, value: str | Callable[[Item], float | None]) -> TableColumn:
    """A column of numbers: a field, or computed from an item."""
    read = (lambda item: item.get(value)) if isinstance(value, str) else value
    return TableColumn(title=title, value=read, justify="right")


def age(title: str, key: str) -> TableColumn:
    """A column of times, shown as the time since then."""
    return TableColumn(title=title, value=lambda item: _age(item.get(key)), justify="right")


def pool_state(pool: Item) -> str:
    """A pool's state; of a paused one, for how long it is paused, and by whom."""
    pause = pool.get("pause")
    return f"paused {_age(pause['since'])} by {pause['by']}" if pause else str(pool["state"])


def table(columns: Sequence[TableColumn], items: Iterable[Item], *, title: str = "") -> Table:
    rows = Table(
        title=title or None, title_justify="left", box=None, header_style="bold", pad_edge=False
    )
    for column in columns:
        rows.add_column(
            column.title, justify=column.justify, no_wrap=column.no_wrap, overflow="fold"
        )
    for item in items:
        rows.add_row(*(_cell(column, item) for column in columns))
    return rows


def _cell(column: TableColumn, item: Item) -> Text:
    # Text, never markup: labels may contain brackets, and worse.
    text = printable(_plain(column.value(item)))
    return Text(text, no_wrap=True, overflow="ellipsis") if column.is_cut else Text(text)


def _plain(value: object) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:,.1f}"
        case dict():
            return " ".join(f"{key}={inner}" for key, inner in value.items()) or "-"
        case _:
            return str(value)


def _age(since: str | None) -> str | None:
    if since is None:
        return None
    seconds = max(0, int((datetime.now(UTC) - datetime.fromisoformat(since)).total_seconds()))
    for unit, letter in _UNITS:
        if seconds >= unit:
            return f"{seconds // unit}{letter}"
    return f"{seconds}s"
