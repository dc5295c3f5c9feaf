"""One entry between two looks: what its pooler closed counts until Postgres has ended it."""

from app.domain.nodes.entry_totals import EntryTotals
from app.domain.nodes.gate import EntryState
from app.node.engine import EntryMeasure
from app.node.tracked_entry import SETTLE_SECONDS, TrackedEntry

NOW = 1000.0
SEEN = EntryMeasure(connections=3)
FEWER = EntryMeasure(connections=1)


def reported(entry: TrackedEntry, measured: EntryMeasure) -> int:
    return entry.report(measured, None, held_seconds=0.0, paused=False).connections


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


def test_connections_in_use_are_added_up_over_time() -> None:
    entry = TrackedEntry("acme", 3, EntryState.OPEN, NOW)
    entry.saw(EntryMeasure(connections=3, in_use=2), NOW)
    entry.saw(EntryMeasure(connections=3, in_use=1), NOW + 0.5)
    # A look says nothing about a longer time.
    entry.saw(EntryMeasure(connections=3, in_use=3), NOW + 10.0)
    now = EntryMeasure(connections=3)
    entry.saw(now, NOW + 10.5)
    said = entry.report(now, None, held_seconds=1.25, paused=False)
    assert (said.totals.busy_seconds, said.held_seconds) == (0.5 + 3.0, 1.25)


def test_the_report_of_an_entry_without_work_stays_the_same_object() -> None:
    """So that thousands of them cost no time."""
    entry = TrackedEntry("acme", 3, EntryState.CLOSED, NOW)
    totals = EntryTotals(transactions=3)
    one = entry.report(EntryMeasure(), totals, held_seconds=0.0, paused=False)
    assert one.totals is totals
    assert entry.report(EntryMeasure(), totals, held_seconds=0.0, paused=False) is one
