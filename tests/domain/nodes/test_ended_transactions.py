"""Rates, holds and waits are right while more transactions wait than run, not only afterwards."""

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.nodes.ended_transactions import EndedTransactions
from app.domain.nodes.entry_totals import EntryTotals
from app.domain.nodes.estimated_load import EstimatedLoad
from app.domain.nodes.report import EntryReport
from tests.fixtures.reporting import entry

_TICK = 0.01


def report(totals: EntryTotals, **gauges: float) -> EntryReport:
    return entry("acme", totals=totals, clients=200, size=4, **gauges)


def flood(clients: int, *, size: int, hold: float, seconds: float) -> Iterator[EntryReport]:
    """Report every second of clients that come back at once, as PgBouncer counts them.

    They have all left after that many *seconds*, once they were served.
    """
    now, count, waited, lasted = 0.0, 0, 0.0, 0.0
    waiting: deque[float] = deque()
    running: list[tuple[float, float]] = []
    yield report(EntryTotals(), in_use=0, waiting=0)
    while not (count and not running):
        if not count:
            waiting.extend([now] * clients)
            count = clients
        ended = [each for each in running if now >= each[1] + hold - _TICK / 2]
        running = [each for each in running if each not in ended]
        for asked, _ in ended:
            lasted += now - asked
            if now < seconds:
                waiting.append(now)
                count += 1
        while waiting and len(running) < size:
            asked = waiting.popleft()
            waited += now - asked
            # Slightly different, so that none is taken for another.
            running.append((asked, now + len(running) * 1e-9))
        now += _TICK
        if round(now / _TICK) % round(1 / _TICK) == 0 or not running:
            sums = EntryTotals(transactions=count, transaction_seconds=lasted, wait_seconds=waited)
            oldest = now - waiting[0] if waiting else 0.0
            yield report(sums, in_use=len(running), waiting=len(waiting), longest_wait=oldest)


@pytest.mark.parametrize(("clients", "hold"), [(200, 0.2), (12, 2.0), (40, 2.0), (8, 0.05)])
def test_holds_are_right_in_and_after_a_flood(clients: int, hold: float) -> None:
    reports = flood(clients, size=4, hold=hold, seconds=14.0)
    before = next(reports)
    ended, sums, at = EndedTransactions.since(before), EntryTotals(), 0.0
    for now in reports:
        ended, added = ended.updated(before, now)
        sums, before, at = sums.plus(added), now, at + 1.0
        load = EstimatedLoad.during(at, sums)
        if at > 2 * hold:
            assert load is not None
            # The wait of those that run is known to within about one hold.
            assert load.hold == pytest.approx(hold, rel=0.1 + 4 / sums.transactions)
            assert load.arrivals <= 4 / hold * 1.05
    assert load is not None
    assert load.hold == pytest.approx(hold, rel=0.01)
    assert sums.transactions == before.totals.transactions
    assert sums.wait_seconds == pytest.approx(before.totals.wait_seconds)


def test_what_ran_and_waited_before_the_first_report_counts_when_it_ends() -> None:
    first = report(EntryTotals(transactions=100), in_use=2, waiting=3)
    ended, added = EndedTransactions.since(first).updated(
        first,
        report(EntryTotals(transactions=100, transaction_seconds=9.0), in_use=0, waiting=0),
    )
    assert (added.transactions, added.transaction_seconds) == (5, 9.0)
    assert ended.ended == 5


def test_a_pooler_that_restarts_takes_what_was_under_way_with_it() -> None:
    first = report(EntryTotals(transactions=100), in_use=0, waiting=0)
    busy = report(EntryTotals(transactions=110, wait_seconds=1.0), in_use=2, waiting=4)
    ended, added = EndedTransactions.since(first).updated(first, busy)
    assert added.transactions == 4
    restarted = report(EntryTotals(transactions=3, transaction_seconds=0.3), in_use=1, waiting=0)
    ended, added = ended.updated(busy, restarted)
    assert added.transactions == 2
    assert ended.ended == 6


def test_sums_never_fall_if_counts_and_gauges_are_of_different_moments() -> None:
    first = report(EntryTotals(transactions=10), in_use=0, waiting=0)
    ended = EndedTransactions.since(first)
    before = first
    for in_use, count in [(2, 11), (4, 12), (0, 12), (4, 16), (0, 20)]:
        now = replace(before, totals=EntryTotals(transactions=count), in_use=in_use)
        ended, added = ended.updated(before, now)
        assert added.transactions >= 0
        assert added.wait_seconds >= 0.0
        before = now
    assert ended.ended == 10


@pytest.mark.parametrize(("counts_begun", "ended"), [(True, 1), (False, 4)])
def test_a_client_that_gives_up_counts_only_if_the_pooler_does_not_count_what_began(
    *, counts_begun: bool, ended: int
) -> None:
    def totals(transactions: int, begun: int, seconds: float) -> EntryTotals:
        counted = begun if counts_begun else None
        return EntryTotals(transactions=transactions, begun=counted, transaction_seconds=seconds)

    idle = report(totals(0, 0, 0.0), in_use=0, waiting=0)
    full = report(totals(4, 1, 0.0), in_use=1, waiting=3)
    given_up = report(totals(4, 1, 0.0), in_use=1, waiting=0)
    done = report(totals(4, 1, 2.0), in_use=0, waiting=0)
    known, sums = EndedTransactions.since(idle), EntryTotals()
    for before, now in ((idle, full), (full, given_up), (given_up, done)):
        known, added = known.updated(before, now)
        sums = sums.plus(added)
    assert sums.transactions == ended
    load = EstimatedLoad.during(10.0, sums)
    assert load is not None
    assert load.hold == pytest.approx(2.0 / ended)


def test_another_pooler_that_counts_what_began_starts_from_zero() -> None:
    before = report(EntryTotals(transactions=100), in_use=0, waiting=0)
    now = report(EntryTotals(transactions=99, begun=98), in_use=0, waiting=0)
    _, added = EndedTransactions.since(before).updated(before, now)
    assert added.transactions == 98


@pytest.mark.parametrize(("begun_before", "begun"), [(None, 990), (980, None)])
def test_an_agent_of_another_release_continues_the_sums_of_its_pooler(
    begun_before: int | None, begun: int | None
) -> None:
    """One that does not report what began, or the first one that does."""
    sums = EntryTotals(transactions=1000, transaction_seconds=500.0, wait_seconds=20.0)
    before = report(replace(sums, begun=begun_before), in_use=0, waiting=0)
    later = replace(sums, transactions=1010, transaction_seconds=505.0, begun=begun)
    now = report(later, in_use=0, waiting=0)
    _, added = EndedTransactions.since(before).updated(before, now)
    assert (added.transactions, added.held_seconds) == (10, 5.0)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.02, 0.2, 0.97])
def test_holds_are_right_although_clients_hang_up_while_they_wait(share: float) -> None:
    """PgBouncer counts their waits once it is their turn, and never their durations."""
    hold, wait, size = 0.05, 2.0, 4
    before = report(EntryTotals(begun=0), in_use=0, waiting=0)
    known, sums = EndedTransactions.since(before), EntryTotals()
    for second in range(1, 61):
        begun = round(size / hold * second)
        given_up = share * begun
        totals = EntryTotals(
            transactions=begun + 40,
            begun=begun,
            transaction_seconds=(begun - given_up) * (wait + hold),
            wait_seconds=begun * wait,
            busy_seconds=float(size * second),
        )
        # Each connection had another client a second ago.
        now = report(totals, in_use=size, waiting=40, longest_wait=wait, held_seconds=float(size))
        known, added = known.updated(before, now)
        sums, before = sums.plus(added), now
    load = EstimatedLoad.during(60.0, sums)
    assert load is not None
    assert load.wait == pytest.approx(wait, rel=0.05)
    # A few seconds pass before it is certain that somebody hung up.
    assert load.hold == pytest.approx(hold, rel=0.1)


def test_a_long_transaction_is_counted_once_when_it_ends() -> None:
    before = report(EntryTotals(begun=0, busy_seconds=0.0), in_use=0, waiting=0)
    known, held = EndedTransactions.since(before), []
    for second in range(1, 121):
        running = min(second, 100)
        lasted = 100.0 if second > 100 else 0.0
        totals = EntryTotals(
            transactions=second + 1,
            begun=second + 1,
            transaction_seconds=0.1 * second + lasted,
            busy_seconds=0.1 * second + running,
        )
        is_running = second <= 100
        gauges = {"in_use": int(is_running), "held_seconds": float(is_running * running)}
        now = report(totals, waiting=0, **gauges)
        known, added = known.updated(before, now)
        held.append(added.held_seconds)
        before = now
    assert sum(held[:100]) == pytest.approx(10.0)
    assert sum(held) == pytest.approx(112.0)


@pytest.mark.parametrize("load", [0.02, 0.5, 3.0])
def test_looking_now_and_then_hardly_changes_what_is_known_exactly(load: float) -> None:
    """Ten looks a second see more connections in use than there were as often as fewer."""
    random = Random(7)  # noqa: S311 - a load, no secret
    before = report(EntryTotals(begun=0, busy_seconds=0.0), in_use=0, waiting=0)
    known, sums, seen = EndedTransactions.since(before), EntryTotals(), 0.0
    for second in range(1, 3601):
        seen += sum(random.random() < load / 4 for _ in range(10 * 4)) / 10
        totals = EntryTotals(
            transactions=second, begun=second, transaction_seconds=load * second, busy_seconds=seen
        )
        now = report(totals, in_use=0, waiting=0)
        known, added = known.updated(before, now)
        sums, before = sums.plus(added), now
    assert load * 3600 <= sums.held_seconds < 1.02 * load * 3600 + 5.0


def test_an_agent_that_does_not_report_connections_in_use_is_believed() -> None:
    before = report(EntryTotals(begun=0), in_use=4, waiting=0)
    totals = EntryTotals(transactions=9, begun=9, transaction_seconds=1.0, wait_seconds=2.0)
    now = report(totals, in_use=4, waiting=0)
    _, added = EndedTransactions.since(before).updated(before, now)
    assert added.transaction_seconds == 1.0


seconds = st.floats(0.0, 100.0)


@given(st.lists(st.tuples(seconds, seconds, seconds, seconds), min_size=1))
def test_durations_are_never_behind_connections_in_use_by_more_than_is_under_way(
    intervals: list[tuple[float, float, float, float]],
) -> None:
    before = report(EntryTotals(begun=0, busy_seconds=0.0), in_use=0, waiting=0)
    known, sums = EndedTransactions.since(before), EntryTotals()
    totals, busy = before.totals, 0.0
    for lasted, waited, used, held in intervals:
        busy += used
        totals = EntryTotals(
            transactions=totals.transactions + 1,
            begun=totals.transactions + 1,
            transaction_seconds=totals.transaction_seconds + lasted,
            wait_seconds=totals.wait_seconds + waited,
            busy_seconds=busy,
        )
        now = report(totals, in_use=0, waiting=0, held_seconds=held)
        known, added = known.updated(before, now)
        sums, before = sums.plus(added), now
        behind = busy + sums.wait_seconds - sums.transaction_seconds
        assert behind <= known.behind + 1e-6
        assert known.behind <= held + now.size * known.recent_wait + 1e-6
