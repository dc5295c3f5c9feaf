"""Tables: the columns of each kind of item, the text of values, and what fits a terminal.

Numbers and names are never cut. If a terminal is too narrow, columns are left out by priority, and
the widest prose is shortened.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Literal

from app.text.printable import printable
from app.text.wrapping import cell_width, shortened, wrapped

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

Item = Mapping[str, Any]
ALWAYS, USUALLY, WIDE, VERY_WIDE = range(4)
"""Priorities of columns: required ones, and those that fit into 80, 120 and 200 characters."""

_GAP = "  "
_PROSE, _MIN_PROSE = 40, 12
_SHORT = 8
_LARGE = 10
_LEAST_SHARE = 0.001
_UNITS = ((86_400, "d"), (3600, "h"), (60, "m"))


@dataclass(frozen=True, slots=True)
class TableColumn:
    """A column: its title, an item's value in it, and how it fits a narrow terminal.

    Attributes:
        of: the field with an item's value, or what computes it.
        priority: the lower, the longer it stays as a table becomes narrower.
        is_prose: may be shortened with an ellipsis; anything else is shown whole or not at all.
        is_id: shown as its shortest unique beginning.
    """

    title: str
    of: str | Callable[[Item], object]
    priority: int = USUALLY
    justify: Literal["left", "right"] = "left"
    is_prose: bool = False
    is_id: bool = False

    def value(self, item: Item) -> object:
        return self.of(item) if callable(self.of) else item.get(self.of)


# Columns of names or words, of sentences, and of numbers.
text = TableColumn
prose = partial(TableColumn, is_prose=True)
number = partial(TableColumn, justify="right")


def identifier(title: str, key: str, priority: int = ALWAYS) -> TableColumn:
    """A column of long ids."""
    return TableColumn(title, key, priority, is_id=True)


def age(title: str, key: str, priority: int = USUALLY) -> TableColumn:
    """A column of times, shown as the time since then."""
    return number(title, lambda item: age_of(item.get(key)), priority)


def pool_state(pool: Item) -> str:
    """A pool's state; if it is paused, since when and by whom."""
    pause = pool.get("pause")
    return f"paused {age_of(pause['since'])} by {pause['by']}" if pause else str(pool["state"])


def on_node(entry: Item) -> str:
    """A tenant on one node, with its load if known; estimates are marked."""
    clients = counted(entry["clients"], "client")
    facts = (
        f"{entry['node']}: {entry['state']}, share {entry['share']}, "
        f"{entry['active']} of {entry['size']} connections active, {clients}, "
        f"{entry['waiting']} waiting"
    )
    if entry["waiting"]:
        facts += f", the first for {plain(entry['longest_wait_ms'])} ms"
    if entry["estimated"]:
        facts += (
            f"; {plain(entry['transactions_per_second'])} transactions/s of "
            f"{plain(entry['hold_ms'])} ms, wait {plain(entry['wait_ms'])} ms, estimated p99 "
            f"{plain(entry['wait_p99_ms'])} ms"
        )
    state = entry["node_state"]
    return facts if state == "ready" else f"{facts} (the node is {state})"


def waiting(key: str | Callable[[Item], float]) -> Callable[[Item], float | str | None]:
    """The value of a column: callers that wait here, and clients on nodes, if any.

    *key*: the field with the callers here, or what counts them.
    """

    def value(item: Item) -> float | str | None:
        here: float | None = item[key] if isinstance(key, str) else key(item)
        if not item.get("waiting_on_nodes"):
            return here
        on_nodes = f"{item['waiting_on_nodes']} on nodes"
        return f"{here} + {on_nodes}" if here else on_nodes

    return value


def wait_of(item: Item, field: str = "detail") -> str | None:
    """What the callers of a tenant wait for; None if nobody waits."""
    wait: Item | None = item["waits_for"]
    return None if wait is None else str(wait[field])


def wait_cause(item: Item) -> str | None:
    """The same as one word, for narrow terminals."""
    return wait_of(item, "cause")


def advice_of(pool: Item) -> str | None:
    """The advisor's present advice for a pool: a size if it differs, why, and what blocks it."""
    advice = pool.get("advice")
    if advice is None:
        return None
    is_change = advice["new_size"] != advice["current_size"]
    sizes = f"{advice['current_size']} → {advice['new_size']}: " if is_change else ""
    # What mode `apply` must not apply is an open recommendation.
    undone = "not applied" if pool.get("recommendation") else "not recommended"
    blocked = f" ({undone}: {advice['blocked_by']})" if advice["blocked_by"] else ""
    return f"{sizes}{advice['reason']}{blocked}"


def percent(share: float) -> str:
    """Format a share of 0 to 1; one too small to matter is not written out."""
    return "under 0.1 %" if 0.0 < share < _LEAST_SHARE else f"{100 * share:.3g} %"


def effect_of(item: Item) -> str | None:
    """The expected effect of a change of size, as far as it can be predicted."""
    expected = item.get("expected")
    if expected is None:
        return None
    shares = [expected["late_share_before"], expected["late_share_after"]]
    late = " → ".join("unknown" if share is None else percent(share) for share in shares)
    sizes = f"{expected['connections_before']} → {expected['connections_after']}"
    return f"late callers {late}, connections {sizes}"


def changes(before: Item | None, after: Item | None) -> str:
    """The fields that differ, those of objects by their path; all fields if one side is empty."""
    if not before or not after:
        return plain(after or before)
    return ", ".join(_differences({key: before.get(key) for key in after}, after)) or "-"


def _differences(before: Item, after: Item, path: str = "") -> Iterator[str]:
    for key in {**after, **before}:
        old, new = before.get(key), after.get(key)
        if old and new and isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _differences(old, new, f"{path}{key}.")
        elif old != new:
            yield f"{path}{key} {plain(old)} → {plain(new)}"


def counted(number: int, noun: str) -> str:
    """Format a count, as in `1 connection`, `2 connections`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def plain(value: object) -> str:
    """Format a JSON value as plain text."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case float():
            # Three digits, and never an exponent.
            return f"{value:,.1f}" if abs(value) >= _LARGE else f"{Decimal(f'{value:.3g}'):f}"
        case Mapping():
            return ", ".join(f"{key}={plain(inner)}" for key, inner in value.items()) or "-"
        case list():
            return ", ".join(plain(inner) for inner in value) or "-"
        case _:
            return str(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Items and their columns; Rich fits it to its console.

    Attributes:
        wraps: whether sentences continue below instead of being shortened.
    """

    columns: Sequence[TableColumn]
    items: Sequence[Item]
    wraps: bool = False

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        for at, line in enumerate(self.lines(options.max_width)):
            yield Text(line, style="" if at else "bold", no_wrap=True, overflow="ignore")

    def names(self) -> Iterator[str]:
        """The names of the items: their first column, unshortened."""
        return (printable(plain(self.columns[0].value(item))) for item in self.items)

    def lines(self, width: int | None = None) -> Iterator[str]:
        """Yield the titles and a line for each item; more lines if it *wraps*.

        Args:
            width: of the terminal, in characters; None for any.
        """
        cells = {column: self._cells(column, is_short=width is not None) for column in self.columns}
        natural = {column: max(map(cell_width, cells[column])) for column in self.columns}
        widths = natural if width is None else _fitted(natural, width)
        for row in zip(*(cells[column] for column in widths), strict=True):
            parts = (
                wrapped(cell, size, breaks_words=True) if self.wraps and column.is_prose else [cell]
                for cell, (column, size) in zip(row, widths.items(), strict=True)
            )
            for line in zip_longest(*parts, fillvalue=""):
                fields = (
                    _aligned(cell, column, size)
                    for cell, (column, size) in zip(line, widths.items(), strict=True)
                )
                yield _GAP.join(fields).rstrip()

    def _cells(self, column: TableColumn, *, is_short: bool) -> list[str]:
        found = [printable(plain(column.value(item))) for item in self.items]
        if column.is_id and is_short:
            size = short_id_length(found)
            found = [each[:size] for each in found]
        return [printable(column.title), *found]


@dataclass(frozen=True, slots=True)
class Details:
    """Everything about one item, a line for each field; nothing is shortened."""

    columns: Sequence[TableColumn]
    item: Item

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        yield from map(Text, self.lines(options.max_width))

    def names(self) -> Iterator[str]:
        yield printable(plain(self.columns[0].value(self.item)))

    def lines(self, width: int | None = None) -> Iterator[str]:
        """Yield a line for each field; a line longer than *width* continues below its value."""
        size = max(len(column.title) for column in self.columns) + len(_GAP)
        for column in self.columns:
            value = printable(plain(column.value(self.item)))
            first, *others = wrapped(value, width and width - size)
            yield f"{printable(column.title):<{size}}{first}"
            yield from (" " * size + line for line in others)


def short_id_length(ids: Sequence[str]) -> int:
    """The number of characters that distinguish *ids*, at least eight."""
    known = set(ids)
    whole = max(map(len, known), default=0)
    sizes = range(_SHORT, whole)
    return next((n for n in sizes if len({each[:n] for each in known}) == len(known)), whole)


def _fitted(natural: Mapping[TableColumn, int], width: int) -> Mapping[TableColumn, int]:
    """Choose the columns that fit into *width*, and their widths.

    Prose is shortened for columns of the same priority, and less for others.
    """

    def least(column: TableColumn, prose: int) -> int:
        most = natural[column]
        return min(most, max(prose, len(column.title))) if column.is_prose else most

    def total(sizes: Collection[int]) -> int:
        return sum(sizes) + len(_GAP) * (len(sizes) - 1)

    chosen: list[TableColumn] = []
    for column in sorted(natural, key=lambda each: each.priority):
        sizes = [
            least(each, _PROSE if each.priority < column.priority else _MIN_PROSE)
            for each in [*chosen, column]
        ]
        if chosen and total(sizes) > width and column.priority > ALWAYS:
            break
        chosen.append(column)
    widths = {column: size for column, size in natural.items() if column in chosen}
    while total(widths.values()) > width:
        longer = [each for each in widths if widths[each] > least(each, _MIN_PROSE)]
        if not longer:
            break
        widths[max(longer, key=lambda each: widths[each])] -= 1
    return widths


def _aligned(cell: str, column: TableColumn, size: int) -> str:
    cell = shortened(cell, size)
    padding = " " * (size - cell_width(cell))
    return padding + cell if column.justify == "right" else cell + padding


def age_of(since: str | None) -> str | None:
    """The time since then, in its largest unit."""
    if since is None:
        return None
    try:
        seconds = max(0, int((datetime.now(UTC) - datetime.fromisoformat(since)).total_seconds()))
    except ValueError:  # a newer service may mean something else
        return since
    for unit, letter in _UNITS:
        if seconds >= unit:
            return f"{seconds // unit}{letter}"
    return f"{seconds}s"
