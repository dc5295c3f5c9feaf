"""The rows of a reply: all of them, in order, in little more memory than their bytes."""

import sys
import tracemalloc
from itertools import chain

import pytest

from app.wire.reply import Reply


@pytest.mark.parametrize("count", [0, 1, 999, 1000, 1001, 2000, 3500])
def test_rows_come_in_their_order_and_are_gone_then(count: int) -> None:
    reply = Reply()
    rows = [b"%d" % number * (number % 7) for number in range(count)]
    for row in rows:
        reply.keep(row)
    assert reply.row_count == count
    assert list(chain.from_iterable(reply.take_rows())) == rows
    assert (reply.row_count, list(chain.from_iterable(reply.take_rows()))) == (0, [])


def test_many_short_rows_take_little_more_memory_than_their_bytes() -> None:
    reply = Reply()
    tracemalloc.start()
    try:
        for _ in range(100_000):
            reply.keep(bytes(bytearray(2)))
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < 100_000 * sys.getsizeof(b"\0\0") / 4
