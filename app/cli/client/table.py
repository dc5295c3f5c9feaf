"""Lists as tables: which columns a kind of item has, and how a value reads.

Pure: documents in, something to print out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from rich.table import Table
from rich.text import Text

from app.runtime.printable import printable

Item = Mapping[str, Any]
_HOUR = 3600
_MINUTE = 60
_DAY = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class TableColumn:
    """One column: its heading, and what of an item stands in it."""

    title: str
    value: Callable[[Item], object]
    justify: Literal["left", "right"] = "left"
    no_wrap: bool = True


def text(title: str, key: str, *, no_wrap: bool = True) -> TableColumn:
    """A column of words."""
    return TableColumn(title=title, value=lambda item: item.get(key), no_wrap=no_wrap)


def number(title: str, key: str) -> TableColumn:
    """A column of numbers."""
    return TableColumn(title=title, value=lambda item: item.get(key), justify="right")


def milliseconds(title: str, show: Callable[[Item], float | None]) -> TableColumn:
    """A column of durations."""
    return TableColumn(title=title, value=show, justify="right")


def age(title: str, key: str) -> TableColumn:
    """A column of moments, as the time gone by since."""
    return TableColumn(title=title, value=lambda item: _since(item.get(key)), justify="right")


def table(
    columns: Sequence[TableColumn], items: Iterable[Item], *, title: str | None = None
) -> Table:
    """The *items*, one in a row."""
    drawn = Table(title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)
    for column in columns:
        drawn.add_column(
            column.title, justify=column.justify, no_wrap=column.no_wrap, overflow="fold"
        )
    for item in items:
        # Text and never markup: a label may hold brackets, and worse.
        drawn.add_row(*(Text(printable(_plain(column.value(item)))) for column in columns))
    return drawn


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


def _since(moment: str | None) -> str | None:
    if moment is None:
        return None
    seconds = max(0, int((datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()))
    for unit, letter in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "m")):
        if seconds >= unit:
            return f"{seconds // unit}{letter}"
    return f"{seconds}s"
