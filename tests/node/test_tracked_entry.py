"""One entry between two looks: what its pooler closed counts until Postgres has ended it."""

from __future__ import annotations

from app.domain.nodes.gate import EntryState
from app.node.engine import EntryMeasure
from app.node.tracked_entry import SETTLE_SECONDS, TrackedEntry

NOW = 1000.0
SEEN = EntryMeasure(connections=3)
FEWER = EntryMeasure(connections=1)


def reported(entry: TrackedEntry, measured: EntryMeasure) -> int:
    return entry.report(measured, None, paused=False).connections


def test_a_closed_entry_counts_until_a_while_after_the_look_that_shows_it() -> None:
    """It may have been closed just before: looks are late on a busy machine."""
    entry = TrackedEntry("acme", 3, EntryState.CLOSING, NOW)
    entry.saw(SEEN, NOW)
    noticed = NOW + 10 * SETTLE_SECONDS
    for at in noticed, noticed + 0.9 * SETTLE_SECONDS:
        entry.saw(EntryMeasure(), at)
        assert (entry.connections, entry.state) == (3, EntryState.CLOSING)
    entry.saw(EntryMeasure(), noticed + 1.1 * SETTLE_SECONDS)
    assert (entry.connections, entry.state) == (0, EntryState.CLOSED)


def test_a_report_counts_what_was_closed_as_long_as_the_entry_does() -> None:
    entry = TrackedEntry("acme", 3, EntryState.OPEN, NOW)
    entry.saw(SEEN, NOW)
    entry.saw(FEWER, NOW + 1.0)
    assert reported(entry, FEWER) == 3
    entry.saw(FEWER, NOW + 2.0)
    assert reported(entry, FEWER) == 1
    entry.saw(SEEN, NOW + 3.0)
    entry.saw(FEWER, NOW + 4.0)
    assert reported(entry, FEWER) == 3
