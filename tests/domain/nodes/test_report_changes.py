"""Reports contain what has changed, and together everything; none is too long."""

from dataclasses import replace

from app.api.http.body_limits import MAX_BODY_BYTES
from app.domain.nodes.documents import as_json
from app.domain.nodes.entry_totals import EntryTotals
from app.domain.nodes.gate import EntryState
from app.domain.nodes.report import EntryReport
from app.domain.nodes.report_changes import MOST_ENTRIES, ReportChanges
from tests.fixtures.reporting import entry, node_report

# Two and a half reports.
TENANTS = 2 * MOST_ENTRIES + MOST_ENTRIES // 2


def long_entry(name: str) -> EntryReport:
    """The longest possible entry: each number has many digits."""
    return entry(
        name,
        state=EntryState.CLOSING,
        size=10_000,
        connections=10_000,
        in_use=10_000,
        clients=100_000,
        waiting=100_000,
        longest_wait=1234.567891,
        totals=EntryTotals(
            transactions=10**12,
            transaction_seconds=123456789.123456,
            wait_seconds=123456789.123456,
            oldest_waits=(12345.678,) * 68,
        ),
    )


def test_all_entries_arrive_in_parts_that_fit() -> None:
    entries = tuple(long_entry(f"{number:048}") for number in range(TENANTS))
    changes, sizes = ReportChanges(), []
    arrived: dict[str, EntryReport] = {}
    for sequence in (1, 2, 3):
        sent = changes.shorten(node_report(1, sequence, entries))
        assert (sent.base, sent.more) == (sequence - 1, sequence < 3)
        assert len(as_json(sent)) < MAX_BODY_BYTES
        sizes.append(len(sent.entries))
        arrived |= {each.name: each for each in sent.entries}
        changes.accepted(sent, wants_all=False)
    assert sizes == [MOST_ENTRIES, MOST_ENTRIES, MOST_ENTRIES // 2]
    assert tuple(arrived.values()) == entries


def test_only_what_has_changed_is_sent_again_until_it_is_accepted() -> None:
    changes = ReportChanges()
    before = tuple(map(entry, ("acme", "beta")))
    changes.accepted(changes.shorten(node_report(1, 1, before)), wants_all=False)
    after = (replace(before[0], waiting=7), before[1])
    for sequence in (2, 3):
        sent = changes.shorten(node_report(1, sequence, after))
        assert (sent.entries, sent.base) == (after[:1], 1)
    changes.accepted(sent, wants_all=False)
    assert changes.shorten(node_report(1, 4, after)).entries == ()
    # The service has forgotten everything.
    changes.accepted(changes.shorten(node_report(1, 4, after)), wants_all=True)
    whole = changes.shorten(node_report(1, 5, after))
    assert (whole.entries, whole.base) == (after, 0)
