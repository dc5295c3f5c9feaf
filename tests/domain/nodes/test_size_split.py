"""A tenant's size is split by its load; each place with callers has a connection."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from app.domain.nodes.size_split import Place, is_settled, most_of_all, split


def place(name: str, share: int, **changes: object) -> Place:
    """A place that has its share."""
    usual = Place(name=name, share=share, liability=share)
    return replace(usual, **changes)  # type: ignore[arg-type]


def shares(size: int, *places: Place) -> Mapping[str, int]:
    """The final shares, if each reachable place obeys at once."""
    current = list(places)
    for _ in range(10):
        changes = split(most_of_all(size, current), current)
        if not changes:
            return {each.name: each.share for each in current}
        current = [
            replace(each, share=share, liability=share if each.reachable else each.liability)
            for each in current
            for share in (changes.get(each.name, each.share),)
        ]
    pytest.fail(f"no end: {current}")


def test_each_place_has_one_and_the_rest_goes_where_the_load_is() -> None:
    here = place("", 10, idle_weight=0.1)
    nodes = place("a", 0), place("b", 0)
    assert shares(10, here, *nodes) == {"": 1, "a": 5, "b": 4}
    assert shares(10, here, place("a", 0, load=9), place("b", 0)) == {"": 1, "a": 8, "b": 1}
    busy = place("", 1, idle_weight=0.1, load=12)
    assert shares(10, busy, place("a", 5), place("b", 4)) == {"": 8, "a": 1, "b": 1}
    # Of a small size places without callers keep none.
    few = replace(busy, share=2)
    assert shares(6, few, place("a", 2), place("b", 2)) == {"": 4, "a": 1, "b": 1}
    assert shares(5, few, place("a", 2), place("b", 1, load=1)) == {"": 4, "a": 0, "b": 1}
    assert shares(3, place("", 1), place("a", 1), place("b", 1)) == {"": 1, "a": 1, "b": 1}


def test_nothing_moves_while_nobody_lacks_a_connection() -> None:
    for load in range(6):
        assert not split(10, [place("a", 5, load=load), place("b", 5, load=5)])
    # Its load is higher than the other's, which has work for all it has: nearly the same share.
    assert not split(10, [place("a", 5, load=11), place("b", 5, load=9)])
    assert shares(10, place("a", 5, load=30), place("b", 5, load=6)) == {"a": 8, "b": 2}
    # One connection is not worth it, nor are two of ten, while the others have work for theirs.
    assert not split(10, [place("a", 5, load=12), place("b", 5, load=8)])
    assert not split(11, [place("a", 5, load=12), place("b", 5, load=8), place("c", 1)])
    assert not split(20, [place("a", 10, load=23), place("b", 10, load=15)])
    assert split(20, [place("a", 10, load=25), place("b", 10, load=13)]) == {"b": 7}
    assert not split(4, [place("a", 1, load=9), place("b", 3, load=9)])
    assert split(6, [place("a", 1, load=9), place("b", 5, load=9)]) == {"b": 3}
    # Nor does a place without callers and connections matter, or one where nobody can use it.
    unused = place("c", 0), place("d", 0, claims=False)
    assert not split(5, [place("a", 2, load=11), place("b", 3, load=10), *unused])
    away = place("e", 1, claims=False, reachable=False)
    assert not split(6, [place("a", 2, load=11), place("b", 3, load=10), away])
    # One place without a connection is enough, whatever the others lack.
    lacking = place("a", 0, load=1), place("b", 4, load=9)
    assert split(10, [*lacking, place("c", 6, load=6)]) == {"c": 4}
    # The other place gets what one does not need, however little that is.
    assert shares(10, place("a", 9, load=11), place("b", 1, load=0)) == {"a": 9, "b": 1}
    assert shares(10, place("a", 8, load=11), place("b", 2, load=1)) == {"a": 9, "b": 1}


def test_a_place_gets_more_only_once_others_were_seen_to_have_less() -> None:
    giver, taker = place("a", 8, load=1), place("b", 2, load=9)
    assert split(10, [giver, taker]) == {"a": 2}
    asked = replace(giver, share=2)
    assert split(10, [asked, taker]) == {}
    assert not is_settled(10, [asked, taker])
    assert split(10, [replace(asked, liability=5), taker]) == {"b": 5}
    assert split(10, [replace(asked, liability=2), taker]) == {"b": 8}
    # What it is liable for already costs nobody anything.
    assert split(10, [asked, replace(taker, liability=5)]) == {"b": 5}


def test_a_smaller_size_is_taken_from_those_furthest_above_their_share() -> None:
    assert shares(4, place("a", 6, load=1), place("b", 4, load=9)) == {"a": 1, "b": 3}
    assert shares(12, place("a", 2, load=9), place("b", 2)) == {"a": 11, "b": 1}
    assert is_settled(4, [place("a", 2), place("b", 2)])
    assert not is_settled(5, [place("a", 2), place("b", 2)])


def test_it_is_settled_while_only_another_load_size_or_place_would_change_something() -> None:
    both = place("a", 2, load=1), place("b", 2)
    assert is_settled(4, both)
    assert not is_settled(3, both)
    assert not is_settled(4, [*both, place("c", 0, load=1)])
    assert is_settled(2, [place("a", 1, load=5), place("b", 1)])
    # Absent or unreachable: nothing can be done for its callers.
    assert is_settled(4, [*both, place("c", 0, load=1, claims=False)])
    assert is_settled(4, [*both, place("c", 0, load=1, reachable=False)])
    assert not is_settled(4, [*both, place("c", 0, liability=1)])
    silent = place("c", 0, liability=1, reachable=False)
    assert is_settled(5, [*both, silent])
    assert not is_settled(6, [*both, silent])


def test_what_a_silent_place_may_have_is_its_own() -> None:
    silent = place("a", 4, reachable=False, load=9)
    assert shares(10, silent, place("b", 6, load=20), place("c", 0)) == {"a": 4, "b": 5, "c": 1}
    # It has more than its share.
    over = replace(silent, liability=7)
    assert split(10, [over, place("b", 0), place("c", 0)]) == {"b": 2, "c": 1}


def test_a_place_at_which_nobody_can_use_it_gives_all_back() -> None:
    for share in (8, 1):
        gone = place("a", share, claims=False, load=8)
        assert shares(10, place("", 10 - share), gone) == {"": 10, "a": 0}


def test_a_place_has_no_more_than_its_limit() -> None:
    assert shares(10, place("", 10), place("a", 0, load=30, limit=3)) == {"": 7, "a": 3}


def test_each_place_with_callers_has_one_whatever_the_size() -> None:
    busy = place("", 0, load=5), place("a", 1, load=5), place("b", 0, load=5)
    assert shares(1, *busy) == {"": 1, "a": 1, "b": 1}
    # One of them without callers gives it up, or keeps it if it is the only one.
    assert shares(1, place("", 1, load=5), place("a", 1), place("b", 1)) == {"": 1, "a": 0, "b": 0}
    assert shares(1, place("", 0), place("a", 1), place("b", 0)) == {"": 0, "a": 1, "b": 0}
    assert shares(2, place("", 0), place("a", 2), place("b", 0)) == {"": 1, "a": 1, "b": 0}
    # And places where nobody can use it have none.
    assert shares(1, *busy[:2], place("b", 1, load=5, claims=False)) == {"": 1, "a": 1, "b": 0}


def test_each_place_with_callers_has_one_whatever_silent_ones_have() -> None:
    silent = place("a", 3, liability=4, load=9, reachable=False)
    assert most_of_all(4, [place("", 0), silent]) == 4
    assert most_of_all(4, [place("", 0, load=2), silent]) == 5
    for load, size in ((1, 3), (2, 3), (9, 5)):
        assert shares(size, place("", 0, load=load), silent) == {"": 1, "a": 3}
    assert shares(3, place("", 0), silent) == {"": 0, "a": 3}


def test_a_place_with_callers_gets_one_of_another_if_a_silent_one_was_to_give_it() -> None:
    silent = place("a", 1, liability=2, reachable=False)
    places = place("", 0, load=1), place("b", 3, load=3), silent
    assert shares(5, *places) == {"": 1, "b": 2, "a": 1}
