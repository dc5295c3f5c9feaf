"""Lists sorted by a number: each page begins after the previous one, or at an offset from there."""

import pytest

from app.api.http.paging import Order

Row = tuple[str, float]

# In no order, and many with the same number.
ROWS: list[Row] = [(f"t{number * 37 % 200:03}", (0, 1.5, 7)[number % 3]) for number in range(200)]
ORDERS = {
    "waiting": sorted(ROWS, key=lambda row: (row[1], row[0])),
    "-waiting": sorted(ROWS, key=lambda row: (-row[1], row[0])),
}


def _order(name: str) -> Order[Row]:
    return Order(name, lambda row: row[1], lambda row: row[0])


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("limit", [1, 7, 200, 500])
def test_all_pages_together_are_the_list(name: str, limit: int) -> None:
    found: list[Row] = []
    cursor: str | None = None
    while not found or cursor is not None:
        page, cursor = _order(name).page(iter(ROWS), cursor=cursor, offset=0, limit=limit)
        assert len(page) <= limit
        found += page
    assert found == ORDERS[name]


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("offset", [0, 1, 90, 193, 1_000_000])
def test_an_offset_counts_from_the_beginning_or_from_the_cursor(name: str, offset: int) -> None:
    order = _order(name)
    page, _ = order.page(ROWS, cursor=None, offset=offset, limit=5)
    assert page == ORDERS[name][offset:][:5]
    _, cursor = order.page(ROWS, cursor=None, offset=0, limit=7)
    page, next_cursor = order.page(ROWS, cursor=cursor, offset=offset, limit=5)
    assert page == ORDERS[name][7 + offset :][:5]
    assert (next_cursor is None) is (7 + offset + 5 >= len(ROWS))


def test_rows_that_were_removed_are_not_missed() -> None:
    order = _order("waiting")
    first, cursor = order.page(ROWS, cursor=None, offset=0, limit=10)
    left = [row for row in ROWS if row != first[-1]]
    page, _ = order.page(left, cursor=cursor, offset=0, limit=10)
    assert page == ORDERS["waiting"][10:20]
