"""Which entries may have connections now: single decisions."""

import pytest

from app.domain.nodes.gate import (
    MIN_SLICE_SECONDS,
    ROUND_SECONDS,
    STUCK_SECONDS,
    EntryState,
    GateActions,
    GatedEntry,
    decide,
)

NOW = 1000.0
LONG_AGO = NOW - 100.0


def opened(name: str, size: int = 2, **knobs: object) -> GatedEntry:
    """An entry that has been open and busy for long."""
    facts = {"since": LONG_AGO, "connections": size, "busy": True} | knobs
    return GatedEntry(name=name, size=size, state=EntryState.OPEN, **facts)  # type: ignore[arg-type]


def closed(name: str, size: int = 2, waited: float | None = 1.0, **knobs: object) -> GatedEntry:
    """A closed entry with waiting clients."""
    facts: dict[str, object] = {"since": LONG_AGO, "busy": waited is not None} | knobs
    since = None if waited is None else NOW - waited
    return GatedEntry(
        name=name,
        size=size,
        state=EntryState.CLOSED,
        waiting_since=since,
        **facts,  # type: ignore[arg-type]
    )


def closing(name: str, connections: int, seconds: float, **knobs: object) -> GatedEntry:
    facts: dict[str, object] = {"size": 2} | knobs
    return GatedEntry(
        name=name,
        state=EntryState.CLOSING,
        since=NOW - seconds,
        connections=connections,
        **facts,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        # Nobody waits: nothing closes, however idle.
        ([opened("a"), opened("b", busy=False)], GateActions()),
        ([closed("a", waited=None)], GateActions()),
        # There is room.
        ([opened("a"), closed("b")], GateActions(open=("b",))),
        # The oldest first, as many as fit.
        (
            [closed("a", waited=1.0), closed("b", waited=3.0), closed("c", waited=2.0)],
            GateActions(open=("b", "c")),
        ),
        # A heavier entry's wait counts more.
        (
            [closed("a", waited=2.0), closed("b", waited=3.0), closed("c", weight=4)],
            GateActions(open=("c", "b")),
        ),
        # A person paused it.
        ([closed("a", allowed=False)], GateActions()),
        ([opened("a", allowed=False)], GateActions(close=("a",))),
        # An idle one makes room at once, the longest idle first.
        (
            [
                opened("a", busy=False, since=NOW, idle_since=NOW - 0.1),
                opened("b", busy=False, since=NOW, idle_since=NOW - 0.2),
                closed("c"),
            ],
            GateActions(close=("b",)),
        ),
        # A busy one has its slice.
        ([opened("a", size=4, since=NOW - 0.1), closed("b")], GateActions()),
        ([opened("a", size=4, since=NOW - ROUND_SECONDS), closed("b")], GateActions(close=("a",))),
        # Never one that logs in: PgBouncer would refuse its clients.
        ([opened("a", size=4, connecting=True), closed("b")], GateActions()),
        # What is closing will be free: nothing else closes for the same waiter, and none overtakes
        # it.
        (
            [opened("a", busy=False), closing("b", 2, 0.1), closed("c"), closed("d", size=1)],
            GateActions(close=("a",)),
        ),
        ([closing("b", 2, 0.1), closed("c", size=4), closed("d", size=1)], GateActions()),
        # One inside a long transaction delays only those that do not fit beside it.
        (
            [closing("b", 2, STUCK_SECONDS), closed("c", size=4), closed("d", size=1, waited=0.1)],
            GateActions(open=("d",)),
        ),
        # More connections than its size: it closes, and opens again as soon as it fits.
        ([opened("a", connections=3, waiting_since=NOW)], GateActions(close=("a",))),
        ([closing("a", 3, 9.0, waiting_since=NOW - 1)], GateActions()),
        ([closing("a", 2, 0.1, waiting_since=NOW - 1)], GateActions(open=("a",))),
        # What it still has is not opened again.
        (
            [closing("a", 2, 0.1, waiting_since=NOW - 2), closed("b")],
            GateActions(open=("a", "b")),
        ),
    ],
)
def test_decisions_on_an_allotment_of_four(
    entries: list[GatedEntry], expected: GateActions
) -> None:
    assert decide(4, entries, NOW) == expected


def test_what_exceeds_a_smaller_allotment_closes_idle_first() -> None:
    entries = [
        opened("a", since=NOW - 9.0),
        opened("b", since=NOW - 5.0),
        opened("c", busy=False, idle_since=NOW - 1.0),
    ]
    assert decide(4, entries, NOW) == GateActions(close=("c",))
    assert decide(2, entries, NOW) == GateActions(close=("c", "a"))
    assert decide(0, entries, NOW) == GateActions(close=("c", "a", "b"))


def test_of_entries_that_differ_in_size_no_more_close_than_must() -> None:
    small = opened("small", size=1, busy=False, idle_since=NOW - 9.0)
    large = opened("large", size=3, busy=False, idle_since=NOW - 5.0)
    expected = GateActions(close=("small", "large"))
    assert decide(2, [small, large, opened("c")], NOW) == expected
    assert decide(6, [small, large, opened("c"), closed("d", size=4)], NOW) == expected


def test_one_that_cannot_fit_beside_long_transactions_takes_nothing_from_others() -> None:
    entries = [
        closing("stuck", 2, STUCK_SECONDS),
        opened("idle", busy=False),
        opened("late"),
        closed("large", size=5, waited=9.0),
        closed("next"),
    ]
    assert decide(6, entries, NOW) == GateActions(close=("idle",))


def test_one_that_is_inside_long_transactions_itself_needs_only_the_rest() -> None:
    entries = [
        closing("stuck", 2, STUCK_SECONDS, size=4, waiting_since=NOW - 9.0),
        opened("idle", busy=False),
        opened("late"),
        closed("next", size=1),
    ]
    assert decide(7, entries, NOW) == GateActions(close=("idle",))


def test_what_closes_already_counts_towards_a_smaller_allotment() -> None:
    entries = [opened("a"), closing("b", 2, 0.1)]
    assert decide(2, entries, NOW) == GateActions()


def test_room_is_made_for_all_waiters_at_once_in_their_order() -> None:
    entries = [*(opened(f"o{number}") for number in range(6)), *map(closed, "abc")]
    actions = decide(12, entries, NOW)
    assert actions.open == ()
    assert len(actions.close) == 3


def test_many_waiters_make_slices_short() -> None:
    mine = opened("a", since=NOW - 0.5)
    assert decide(2, [mine, closed("b")], NOW) == GateActions()
    many = [closed(f"b{number}") for number in range(9)]
    assert decide(2, [mine, *many], NOW) == GateActions(close=("a",))


def test_no_slice_is_so_short_that_turns_are_all_that_is_done() -> None:
    waiters = [closed(f"b{number:02}") for number in range(99)]
    for seconds, expected in ((0.1, ()), (MIN_SLICE_SECONDS, ("a",))):
        actions = decide(2, [opened("a", since=NOW - seconds), *waiters], NOW)
        assert actions.close == expected


def test_the_slice_of_a_heavier_one_is_longer() -> None:
    # It has three quarters of a round of two seconds.
    for seconds, expected in ((1.4, ()), (1.6, ("a",))):
        actions = decide(2, [opened("a", since=NOW - seconds, weight=3), closed("b")], NOW)
        assert actions.close == expected
