"""Dividing a budget: each holder's share, what moves, and when it may."""

from hypothesis import given
from hypothesis import strategies as st

from app.domain.nodes.allotment import Allotment, Commitment
from app.domain.nodes.budget_division import Holder, divide, fair_shares, move


def holder(name: str, demand: int, has: int = 0, **knobs: object) -> Holder:
    """A holder that has applied its allotment, and uses all of it."""
    sent = Allotment(generation=1, connections=has)
    commitment = Commitment().send(sent).acknowledge(1, has)
    return Holder(name=name, demand=demand, commitment=commitment, **knobs)  # type: ignore[arg-type]


HOLDERS = st.lists(
    st.builds(
        holder,
        st.uuids().map(str),
        st.integers(0, 40),
        st.integers(0, 10),
        weight=st.sampled_from([0.5, 1.0, 3.0, 1000.0]),
        limit=st.none() | st.integers(0, 20),
        reachable=st.booleans(),
    ),
    max_size=6,
)


# -- shares ------------------------------------------------------------------------------------


def test_all_get_what_they_want_while_there_is_enough() -> None:
    assert fair_shares(24, [holder("a", 10), holder("b", 3)]) == {"a": 10, "b": 3}


def test_a_shortage_is_divided_by_weight_and_nobody_gets_more_than_wanted() -> None:
    holders = [holder("a", 100), holder("b", 100, weight=3.0), holder("c", 4)]
    assert fair_shares(24, holders) == {"a": 5, "b": 15, "c": 4}


def test_a_light_holder_with_work_gets_a_connection() -> None:
    shares = fair_shares(10, [holder("a", 9), holder("b", 9, weight=1000.0), holder("c", 9)])
    assert shares == {"a": 1, "b": 8, "c": 1}


def test_an_operators_limit_is_obeyed() -> None:
    assert fair_shares(24, [holder("a", 30, limit=5), holder("b", 30)]) == {"a": 5, "b": 19}


def test_the_only_connection_of_a_holder_is_not_rounded_away_while_another_has_two() -> None:
    holders = [holder("a", 9), holder("b", 9), holder("c", 9, weight=13.0)]
    assert fair_shares(3, holders) == {"a": 1, "b": 1, "c": 1}


def test_what_a_holder_keeps_is_not_divided_among_heavier_ones() -> None:
    pools = holder("pools", 29, has=29, weight=0.1, kept=29)
    assert fair_shares(43, [pools, holder("node", 120, weight=30.0)]) == {"pools": 29, "node": 14}
    # It keeps no more than it wants, or than there is.
    assert fair_shares(5, [holder("a", 2, kept=9), holder("b", 9)]) == {"a": 2, "b": 3}
    assert fair_shares(5, [holder("a", 9, kept=9), holder("b", 9)]) == {"a": 5, "b": 0}


@given(st.integers(0, 60), HOLDERS, st.integers(0, 40))
def test_a_holder_has_what_it_keeps_and_the_others_divide_the_rest(
    budget: int, holders: list[Holder], kept: int
) -> None:
    keeps = holder("keeps", 30, weight=0.1, kept=kept)
    shares = fair_shares(budget, [keeps, *holders])
    assert shares["keeps"] >= min(kept, 30, budget)
    wanted = {one.name: one.wanted for one in [keeps, *holders]}
    assert sum(shares.values()) == min(budget, sum(wanted.values()))
    assert all(0 <= shares[name] <= wanted[name] for name in wanted)


@given(st.integers(-3, 60), HOLDERS)
def test_shares_are_whole_wanted_and_all_there_is(budget: int, holders: list[Holder]) -> None:
    shares = fair_shares(budget, holders)
    wanted = {one.name: one.wanted for one in holders}
    assert sum(shares.values()) == min(max(0, budget), sum(wanted.values()))
    assert all(0 <= shares[name] <= wanted[name] for name in wanted)
    starving = [name for name in wanted if wanted[name] and not shares[name]]
    assert not starving or budget < sum(1 for name in wanted if wanted[name])


# -- moves -------------------------------------------------------------------------------------


def test_nothing_moves_while_nobody_lacks_a_connection() -> None:
    # a has more than it wants, and keeps it for the next burst.
    assert divide(24, [holder("a", 2, has=20), holder("b", 4, has=4)]) == {}


def test_what_is_free_is_given_at_once() -> None:
    assert divide(24, [holder("a", 8, has=8), holder("b", 9, has=4)]) == {"b": 9}


def test_what_another_has_is_taken_first_and_given_once_it_is_gone() -> None:
    donor, taker = holder("a", 30, has=24), holder("b", 12)
    assert divide(24, [donor, taker]) == {"a": 12}

    shrinking = Holder(
        name="a",
        demand=30,
        commitment=donor.commitment.send(Allotment(generation=2, connections=12)),
    )
    assert divide(24, [shrinking, taker]) == {}

    busy = Holder(name="a", demand=30, commitment=shrinking.commitment.acknowledge(2, 20))
    assert divide(24, [busy, taker]) == {"b": 4}


def test_who_is_shrinking_takes_back_what_it_still_has() -> None:
    commitment = holder("a", 1, has=20).commitment.send(Allotment(generation=2, connections=4))
    assert divide(20, [Holder(name="a", demand=9, commitment=commitment)]) == {"a": 9}


def test_a_silent_holder_gets_no_more_and_gives_nothing() -> None:
    silent = holder("a", 30, has=10, reachable=False)
    assert divide(24, [silent, holder("b", 30, has=4)]) == {"b": 14}


def test_no_more_is_taken_than_others_lack() -> None:
    assert divide(24, [holder("a", 2, has=20), holder("b", 6, has=4)]) == {"a": 18}


def test_who_is_furthest_above_its_share_gives_first() -> None:
    holders = [holder("a", 1, has=10), holder("b", 9, has=4), holder("c", 1, has=8)]
    assert divide(22, holders) == {"a": 7, "c": 6}


def test_nobody_gives_up_its_share_because_a_silent_holder_exceeds_its_own() -> None:
    silent = holder("a", 2, has=10, reachable=False)
    assert divide(24, [silent, holder("b", 6, has=4), holder("c", 10, has=10)]) == {}


def test_what_a_silent_holder_was_to_give_is_taken_from_one_that_is_heard() -> None:
    commitment = holder("a", 1, has=8).commitment.send(Allotment(generation=2, connections=4))
    silent = Holder(name="a", demand=1, commitment=commitment, reachable=False)
    assert divide(20, [silent, holder("b", 4), holder("c", 1, has=12)]) == {"c": 8}


def test_only_what_exceeds_the_budget_is_taken_when_nobody_may_lose_any() -> None:
    holders, shares = [holder("a", 2, has=20), holder("b", 6, has=4)], {"a": 2, "b": 6}
    assert move(24, holders, shares, takes=False) == {}
    assert move(23, holders, shares, takes=False) == {"a": 19}


def test_who_drains_is_left_nothing() -> None:
    assert divide(24, [holder("a", 9, has=9, limit=0), holder("b", 1, has=1)]) == {"a": 0}


def test_a_budget_that_was_lowered_is_taken_from_those_above_their_share() -> None:
    assert divide(10, [holder("a", 30, has=20), holder("b", 30, has=4)]) == {"a": 5}


@given(st.integers(-3, 60), HOLDERS)
def test_growth_fits_beside_everything_that_may_still_be_open(
    budget: int, holders: list[Holder]
) -> None:
    changes = divide(budget, holders)
    before = sum(one.commitment.liability for one in holders)
    after = 0
    for one in holders:
        sent = changes.get(one.name, one.commitment.current)
        after += one.commitment.send(Allotment(generation=2, connections=sent)).liability
        assert one.reachable or sent <= one.commitment.current
        assert sent <= max(one.wanted, one.commitment.current)
    assert after <= max(budget, before)


# -- liability ---------------------------------------------------------------------------------


def test_a_holder_is_liable_for_all_that_it_may_have_in_force() -> None:
    commitment = Commitment()
    for generation, connections in enumerate((10, 4, 6), start=1):
        commitment = commitment.send(Allotment(generation=generation, connections=connections))
    assert commitment.liability == 10
    assert commitment.current == 6

    # It may have applied the second; the third is on its way.
    assert commitment.acknowledge(2, 4).liability == 6
    assert commitment.acknowledge(2, 9).liability == 9
    assert commitment.acknowledge(3, 2).liability == 6


def test_one_that_is_gone_holds_nothing_and_its_next_allotment_is_newer() -> None:
    commitment = Commitment().send(Allotment(generation=7, connections=10)).acknowledge(7, 10)
    released = commitment.release()
    assert released.liability == 0
    assert released.generation == 8
