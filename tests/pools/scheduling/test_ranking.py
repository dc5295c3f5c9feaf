"""Items by rank, beside a plain dictionary."""

from hypothesis import given
from hypothesis import strategies as st

from app.pools.scheduling.ranking import Ranking

ITEMS = st.sampled_from("abcdef")
RANKS = st.sampled_from([0.0, 1.0, 2.0, float("inf")])
CHANGES = st.tuples(st.sampled_from(["put", "add", "bring_forward", "drop"]), ITEMS, RANKS)


@given(changes=st.lists(CHANGES, max_size=200))
def test_the_first_has_the_lowest_rank_and_of_equals_was_put_first(
    changes: list[tuple[str, str, float]],
) -> None:
    ranking: Ranking[str, float] = Ranking()
    ranks: dict[str, tuple[float, int]] = {}
    for number, (change, item, rank) in enumerate(changes):
        if change == "drop":
            ranking.drop(item)
            ranks.pop(item, None)
        else:
            getattr(ranking, change)(item, rank)
            known = ranks.get(item)
            if known is None or change == "put" or (change == "bring_forward" and rank < known[0]):
                ranks[item] = rank, number
        first = min(ranks, key=ranks.__getitem__, default=None)
        assert ranking.first == (None if first is None else (first, ranks[first][0]))


def test_changes_of_the_same_items_keep_few_outdated_entries() -> None:
    ranking: Ranking[int, float] = Ranking()
    for number in range(10_000):
        item = number % 7
        if number % 3:
            ranking.drop(item)
        ranking.put(item, float(-number if number % 2 else number))
        assert len(ranking._heap) <= 2 * 7 + 16
