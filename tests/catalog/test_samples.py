"""Samples are stored in bulk and come back folded into time steps."""

from datetime import timedelta

from app.catalog.catalog import Catalog
from app.domain.sample import HistoryPoint
from tests.catalog.values import NOON, sample
from tests.fixtures.postgres import Database


async def history(
    catalog: Catalog, start: float = 0.0, end: float = 60.0, *, step: float = 10.0
) -> dict[float, HistoryPoint]:
    """Acme's history from and to seconds after noon, by the second at which each step begins."""
    points = await catalog.samples.history(
        "acme",
        start=NOON + timedelta(seconds=start),
        end=NOON + timedelta(seconds=end),
        step=step,
    )
    return {(point.at - NOON).total_seconds(): point for point in points}


async def test_without_samples_there_is_no_history(catalog: Catalog) -> None:
    await catalog.samples.add([])
    await catalog.samples.add([sample("other")])
    assert await history(catalog) == {}


async def test_gauges_are_averaged_and_percentiles_at_their_worst(catalog: Catalog) -> None:
    await catalog.samples.add(
        [
            sample(seconds=0, active=1, wait_p95_ms=2.0),
            sample(seconds=5, active=2, wait_p95_ms=4.0),
            sample(seconds=9.999, active=5),
            sample(seconds=10, active=4),
        ]
    )
    points = await history(catalog)
    assert list(points) == [0.0, 10.0]
    first = points[0.0]
    assert (first.samples, first.total_connections, first.waiting_requests) == (3, 5.0, 0.0)
    assert first.active_connections == 8 / 3
    assert first.idle_connections == 7 / 3
    assert isinstance(first.active_connections, float)
    assert (first.wait_p95_ms, first.wait_p99_ms) == (4.0, None)
    assert points[10.0].wait_p95_ms is None


async def test_counters_are_told_as_growth(catalog: Catalog) -> None:
    await catalog.samples.add(
        [
            sample(seconds=0, acquired=100, timeouts=1),
            sample(seconds=5, acquired=130, timeouts=1),
            sample(seconds=10, acquired=150, timeouts=4),
            sample(seconds=15, acquired=150, timeouts=4),
        ]
    )
    grown = {at: (point.acquired, point.timeouts) for at, point in (await history(catalog)).items()}
    assert grown == {0.0: (30, 0), 10.0: (20, 3)}
    assert isinstance((await history(catalog))[0.0].acquired, int)


async def test_growth_is_told_from_the_sample_before_the_first_step(catalog: Catalog) -> None:
    await catalog.samples.add(
        [sample(seconds=second, acquired=acquired) for second, acquired in [(0, 5), (30, 9)]]
    )
    assert {at: point.acquired for at, point in (await history(catalog, 20)).items()} == {30.0: 4}


async def test_a_counter_that_fell_counts_from_zero(catalog: Catalog) -> None:
    await catalog.samples.add(
        [
            sample(seconds=0, acquired=100),
            sample(seconds=5, acquired=110),
            sample(seconds=10, acquired=3),
            sample(seconds=15, acquired=7),
        ]
    )
    grown = {at: point.acquired for at, point in (await history(catalog)).items()}
    assert grown == {0.0: 10, 10.0: 7}


async def test_steps_without_a_sample_are_left_out(catalog: Catalog) -> None:
    await catalog.samples.add([sample(seconds=0, acquired=1), sample(seconds=45, acquired=8)])
    points = await history(catalog)
    assert list(points) == [0.0, 40.0]
    assert points[40.0].acquired == 7


async def test_the_end_is_not_included_and_steps_do_not_move_with_the_start(
    catalog: Catalog,
) -> None:
    await catalog.samples.add([sample(seconds=second) for second in range(0, 60, 5)])
    points = await history(catalog, 3, 30)
    assert {at: point.samples for at, point in points.items()} == {0.0: 1, 10.0: 2, 20.0: 2}


async def test_a_poll_of_thousands_is_one_operation_and_may_be_repeated(
    catalog: Catalog, catalog_database: Database
) -> None:
    poll = [sample(f"t{number}", acquired=number) for number in range(2000)]
    await catalog.samples.add(poll)
    await catalog.samples.add(poll)
    async with catalog_database.connected() as connection:
        stored = await connection.fetchrow("SELECT count(*), sum(acquired) FROM samples")
    assert stored is not None
    assert tuple(stored) == (2000, sum(range(2000)))


async def test_old_samples_are_deleted_bit_by_bit(catalog: Catalog) -> None:
    await catalog.samples.add([sample(seconds=second) for second in range(10)])
    border = NOON + timedelta(seconds=7)
    assert await catalog.samples.delete_before(border, limit=5) == 5
    assert await catalog.samples.delete_before(border, limit=5) == 2
    assert await catalog.samples.delete_before(border, limit=5) == 0
    assert list(await history(catalog, step=1)) == [7.0, 8.0, 9.0]
