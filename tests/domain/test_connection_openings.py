"""When a waiting caller is worth another connection."""

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.connection_openings import LASTING, SOON, openings_wanted

counts = st.integers(0, 100)
seconds = st.floats(0.0001, 10.0)


@pytest.mark.parametrize(
    ("leased", "hold", "connect", "wanted"),
    [
        # Nothing comes back in time: each waiter gets one.
        (0, 0.15, 0.01, 3),
        (5, 0.15, 0.01, 3),
        # A connect is quick, but a wait of 25 ms is not worth one: 6 leases of 150 ms, one ends.
        (6, 0.15, 0.01, 2),
        (12, 0.15, 0.01, 1),
        # Leases of 10 ms: each connection serves two more in that time.
        (1, 0.010, 0.01, 1),
        (2, 0.010, 0.01, 0),
        # A slow connect comes too late for all of them.
        (5, 0.15, 0.15, 0),
    ],
)
def test_no_connection_is_opened_for_callers_whom_ending_leases_will_serve_sooner(
    leased: int, hold: float, connect: float, wanted: int
) -> None:
    assert (
        openings_wanted(3, 0, leased, hold=hold, connect=connect, longest_wait=0.0, busy_for=0.0)
        == wanted
    )


def test_where_nobody_found_one_idle_for_long_each_waiter_gets_one() -> None:
    few = partial(openings_wanted, 8, 1, 2, hold=0.002, connect=0.01, longest_wait=0.003)
    assert few(busy_for=LASTING / 2) == 0
    assert few(busy_for=LASTING) == 7


def test_connections_that_come_count() -> None:
    assert openings_wanted(5, 2, 0, hold=0.1, connect=0.01, longest_wait=0.0, busy_for=0.0) == 3
    assert openings_wanted(2, 5, 0, hold=0.1, connect=0.01, longest_wait=0.0, busy_for=0.0) == 0


@pytest.mark.parametrize(("hold", "connect"), [(None, 0.01), (0.1, None), (0.0, 0.01)])
def test_without_measurements_every_waiter_gets_one(
    hold: float | None, connect: float | None
) -> None:
    assert (
        openings_wanted(5, 1, 50, hold=hold, connect=connect, longest_wait=0.0, busy_for=0.0) == 4
    )


@given(st.integers(1, 100), counts, seconds, seconds)
def test_a_connection_is_opened_if_no_lease_ended_in_the_time_of_a_connect(
    waiting: int, leased: int, hold: float, connect: float
) -> None:
    late = openings_wanted(
        waiting,
        0,
        leased,
        hold=hold,
        connect=connect,
        longest_wait=max(connect, SOON),
        busy_for=0.0,
    )
    assert 1 <= late <= waiting


@given(st.tuples(counts, counts, counts), seconds, seconds, seconds)
def test_never_more_than_there_are_waiters_without_one(
    pool: tuple[int, int, int], hold: float, connect: float, longest_wait: float
) -> None:
    wanted = openings_wanted(
        *pool, hold=hold, connect=connect, longest_wait=longest_wait, busy_for=0.0
    )
    waiting, coming, _ = pool
    assert 0 <= wanted <= max(0, waiting - coming)
