"""The load of a place: the maximum of the last ten seconds."""

from app.control.nodes.split_tenant import RecentLoad


def test_a_load_counts_for_ten_seconds_after_it_has_fallen() -> None:
    load = RecentLoad()
    assert load.at(0.0) == 0
    load.note(5, 100.0)
    # It had that load until now, although nothing was noted for long.
    load.note(1, 150.0)
    assert (load.at(150.0), load.at(159.9), load.at(160.0)) == (5, 5, 1)
    load.note(0, 170.0)
    assert (load.at(179.9), load.at(180.0)) == (1, 0)


def test_a_burst_between_smaller_loads_counts_as_long() -> None:
    load = RecentLoad()
    load.note(2, 100.0)
    load.note(8, 101.0)
    load.note(3, 102.0)
    load.note(4, 105.0)
    assert (load.at(111.9), load.at(112.0)) == (8, 4)


def test_as_large_a_load_counts_from_when_it_was_last_seen() -> None:
    load = RecentLoad()
    load.note(4, 100.0)
    load.note(0, 101.0)
    load.note(4, 109.0)
    load.note(0, 110.0)
    assert (load.at(119.9), load.at(120.0)) == (4, 0)
