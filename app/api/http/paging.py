"""Pages of lists, and keyset cursors: where the next page begins.

A cursor is opaque to callers: base64url of a JSON array with the sort key of the last item. It
stays valid while items come and go between two pages. A list sorted by a number, such as waiting
callers, may change its order meanwhile: its cursor continues after the last item's number, and an
offset jumps to a part, as a scrolling screen needs it.
"""

import base64
import json
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Query
from fastapi.exceptions import RequestValidationError
from pydantic import Field

from app.api.http.error_responses import validation_error

Item = TypeVar("Item")
NextCursor = Annotated[
    str | None,
    Field(description="For the next page; null on the last one.", examples=[None]),
]
SearchQuery = Annotated[str, Query(max_length=56, description="Filter by a part of the ID.")]
OffsetQuery = Annotated[
    int,
    Query(
        ge=0, le=1_000_000, description="Items to skip, counted from the cursor if there is one."
    ),
]
Matches = Annotated[int, Field(description="Items that match the filters, on all pages.")]

_LIMIT = 2**63


def encode_cursor(*key: str | float) -> str:
    """Encode a cursor after the item with this sort key."""
    text = json.dumps(key, separators=(",", ":"), ensure_ascii=False)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_cursor(cursor: str, *kinds: type[str | int | float]) -> tuple[Any, ...]:
    """Decode the sort key in *cursor*, one value of each of *kinds*.

    Raises:
        RequestValidationError: `encode_cursor` did not make it from values of these kinds.
    """
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        key = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (ValueError, RecursionError):  # not ASCII, not base64, not UTF-8, not JSON
        key = None
    fits = isinstance(key, list) and [type(part) for part in key] == list(kinds)
    if not fits or not all(_is_storable(part) for part in key):
        raise invalid_cursor()
    return tuple(key)


def decode_sorted(cursor: str, order: str, *kinds: type[str | int | float]) -> tuple[Any, ...]:
    """Decode the sort key in *cursor* after the name of the *order*, which must be this one.

    Raises:
        RequestValidationError: it belongs to another list or order.
    """
    name, *key = decode_cursor(cursor, str, *kinds)
    if name != order:
        raise invalid_cursor()
    return tuple(key)


def invalid_cursor() -> RequestValidationError:
    return validation_error(
        "query", "cursor", code="bad_cursor", detail="The cursor does not belong to this list."
    )


def paginate(
    items: Sequence[Item], limit: int, key: Callable[[Item], tuple[str | float, ...]]
) -> tuple[Sequence[Item], str | None]:
    """Return the first *limit* of *items*, and the cursor of the next page if there are more."""
    page = items[:limit]
    return page, encode_cursor(*key(page[-1])) if len(items) > limit else None


def page_of_names(
    names: Iterable[str], cursor: str | None, limit: int
) -> tuple[Sequence[str], str | None]:
    """Return *limit* of *names* after *cursor*, sorted, and the cursor of the next page."""
    after = decode_cursor(cursor, str)[0] if cursor else ""
    return paginate(sorted(name for name in names if name > after), limit, lambda name: (name,))


@dataclass(frozen=True, slots=True)
class Order(Generic[Item]):
    """A sort key of a list; ties are sorted by ID.

    Attributes:
        name: its name in requests; a minus sorts the largest number first.
    """

    name: str
    rank: Callable[[Item], float]
    id_of: Callable[[Item], str]

    def page(
        self, rows: Iterable[Item], *, cursor: str | None, offset: int, limit: int
    ) -> tuple[Sequence[Item], str | None]:
        """Return at most *limit* of *rows*, and the cursor of the next page if there are more.

        Raises:
            RequestValidationError: *cursor* is not one of this order.
        """
        after = decode_sorted(cursor, self.name, float, str) if cursor else None
        sign = -1.0 if self.name.startswith("-") else 1.0

        def position(row: Item) -> tuple[float, str]:
            return sign * self.rank(row), self.id_of(row)

        # Sorting twice by one key: pairs take five times as long, 30 ms for 10,000 rows.
        ordered = sorted(rows, key=self.id_of)
        ordered.sort(key=lambda row: sign * self.rank(row))
        begin = offset if after is None else offset + bisect_right(ordered, after, key=position)
        found = ordered[begin : begin + limit + 1]
        return paginate(found, limit, lambda row: (self.name, *position(row)))


def _is_storable(part: str | float) -> bool:
    """Whether Postgres can store it: no NUL, no infinity, no huge number."""
    if isinstance(part, str):
        return part.isprintable()
    return abs(part) < _LIMIT
