"""Lists sorted by a number, such as waiting callers: one page, and the number of items.

The order may change while a client reads page by page. A cursor continues after the last item's
number; an offset jumps to a part, as a scrolling screen needs it.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Generic, TypeVar

from fastapi import Query
from pydantic import Field

from app.api.http.error_responses import validation_error
from app.api.http.paging import decode_cursor, paginate

Row = TypeVar("Row")

SearchQuery = Annotated[str, Query(max_length=56, description="Filter by a part of the ID.")]
OffsetQuery = Annotated[
    int,
    Query(
        ge=0, le=1_000_000, description="Items to skip, counted from the cursor if there is one."
    ),
]
Matches = Annotated[int, Field(description="Items that match the filters, on all pages.")]


@dataclass(frozen=True, slots=True)
class Order(Generic[Row]):
    """A sort key of a list; ties are sorted by ID.

    Attributes:
        name: its name in requests; a minus sorts the largest number first.
    """

    name: str
    rank: Callable[[Row], float]
    id_of: Callable[[Row], str]

    def page(
        self, rows: Iterable[Row], *, cursor: str | None, offset: int, limit: int
    ) -> tuple[Sequence[Row], str | None]:
        """Return at most *limit* of *rows*, and the cursor of the next page if there are more.

        Raises:
            RequestValidationError: *cursor* is not one of this order.
        """
        after = self._decode(cursor) if cursor else None
        sign = -1.0 if self.name.startswith("-") else 1.0

        def position(row: Row) -> tuple[float, str]:
            return sign * self.rank(row), self.id_of(row)

        # Sorting twice by one key: pairs take five times as long, 30 ms for 10,000 rows.
        ordered = sorted(rows, key=self.id_of)
        ordered.sort(key=lambda row: sign * self.rank(row))
        begin = offset if after is None else offset + bisect_right(ordered, after, key=position)
        found = ordered[begin : begin + limit + 1]
        return paginate(found, limit, lambda row: (self.name, *position(row)))

    def _decode(self, cursor: str) -> tuple[float, str]:
        """The rank and ID of the last item on the previous page."""
        name, rank, id_ = decode_cursor(cursor, str, float, str)
        if name != self.name:
            detail = "The cursor belongs to another sort order."
            raise validation_error("query", "cursor", code="bad_cursor", detail=detail)
        return rank, id_
