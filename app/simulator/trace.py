"""A trace: the number of requests in each bin, and their scaling to rates.

It is parsed from lines of text; the caller opens the file.
"""

import csv
from collections.abc import Iterable, Sequence
from math import isfinite

from app.domain.errors import InvalidInput

_COLUMNS = ["timestamp", "value"]


def parse_counts(lines: Iterable[str]) -> list[float]:
    """Parse a CSV with the header `timestamp,value`, one row for each bin, in the file's order.

    Timestamps are ignored: a row is a bin, and the caller knows its length.

    Raises:
        InvalidInput: other columns, no rows, or a count that is not a finite number of at least 0.
    """
    try:
        rows = list(csv.reader(lines, strict=True))
    except csv.Error as error:
        raise InvalidInput(f"The trace is not CSV: {error}.") from error
    if not rows or [cell.strip() for cell in rows[0]] != _COLUMNS:
        raise InvalidInput("The trace has to begin with the header `timestamp,value`.")
    counts = [_count(number, row) for number, row in enumerate(rows[1:], start=2) if row]
    if not counts:
        raise InvalidInput("The trace has no rows.")
    return counts


def _count(line: int, row: Sequence[str]) -> float:
    if len(row) != len(_COLUMNS):
        raise InvalidInput(f"Line {line} of the trace has {len(row)} columns and not 2.")
    try:
        count = float(row[1])
    except ValueError as error:
        raise InvalidInput(f"Line {line} of the trace: {row[1]!r} is not a number.") from error
    if not isfinite(count) or count < 0:
        raise InvalidInput(f"Line {line} of the trace: a count is finite and at least 0.")
    return count


def scaled(
    counts: Sequence[float], *, p99_rate: float | None, clip_rate: float | None, bin_seconds: float
) -> list[float]:
    """Convert counts to requests per second.

    Args:
        counts: requests of each bin.
        p99_rate: the rate for the bin at the 99th percentile (nearest rank); None: no scaling.
        clip_rate: the highest rate of any bin; None: no limit.
        bin_seconds: how long a bin lasts.

    Raises:
        InvalidInput: the bin at the 99th percentile is empty, so nothing can be scaled to it.
    """
    factor = 1 / bin_seconds
    if p99_rate is not None and any(counts):
        at_p99 = sorted(counts)[max(0, -(-99 * len(counts) // 100) - 1)]
        if not at_p99:
            raise InvalidInput("The 99th-percentile bin of the trace is empty: leave out p99-rate.")
        factor = p99_rate / at_p99
    rates = (count * factor for count in counts)
    return [rate if clip_rate is None else min(rate, clip_rate) for rate in rates]
