"""Rows of a query: a table, or a line for each field where the terminal is too narrow for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from app.cli.client.table import Details, Table, counted
from app.text.wrapping import cell_width


@dataclass(frozen=True, slots=True, kw_only=True)
class Records(Table):
    """Rows with arbitrary columns: no column is left out, and no value is cut."""

    def lines(self, width: int | None = None) -> Iterator[str]:
        lines = list(Table.lines(self))
        if width is None or max(map(cell_width, lines)) <= width:
            yield from lines
            return
        yield f"{counted(len(self.items), 'row')}, a line for each field"
        for at, item in enumerate(self.items):
            if at:
                yield ""
            yield from Details(self.columns, item).lines(width)
