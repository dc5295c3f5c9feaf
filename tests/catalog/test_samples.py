"""Samples are downsampled to minutes and hours, and queried in time steps."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from app.catalog.catalog import Catalog
from app.domain.history import History, HistoryPoint, Resolution
from tests.catalog.values import NOON, sample
from tests.fixtures.postgres import Database

MINUTE, HOUR, DAY = Resolution.MINUTE, Resolution.HOUR, Resolution.DAY
TABLES = {
    Resolution.RAW: "samples",
    MINUTE: "samples_by_minute",
    HOUR: "samples_by_hour",
    DAY: "samples_by_day",
}


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


async def history(
    catalog: Catalog, start: float = 0.0, end: float = 60.0, *, step: float = 10.0
) -> History:
    """Acme's history, from and to in seconds after noon."""
    return await catalog.samples.query_history(
        "acme", start=after(start), end=after(end), step=step
    )


async def points(
    catalog: Catalog, start: float = 0.0, end: float = 60.0, *, step: float = 10.0
) -> dict[float, HistoryPoint]:
    """The same, by the second after noon at which each step begins."""
    found = await history(catalog, start, end, step=step)
    return {(point.at - NOON).total_seconds(): point for point in found.points}


async def downsample(catalog: Catalog, seconds: float) -> None:
    """Downsample everything before that many seconds after noon, one step after the other."""
    for resolution in (MINUTE, HOUR, DAY):
        until = resolution.floor(after(seconds))
        while await catalog.samples.downsample(resolution, until) < until:
            pass


async def count(database: Database, resolution: Resolution) -> int:
    async with database.connected() as connection:
        found: int = await connection.fetchval(f"SELECT count(*) FROM {TABLES[resolution]}")
    return found


async def polls_of(catalog: Catalog, seconds: Sequence[float]) -> None:
    await catalog.samples.add([sample(seconds=second, acquired=1) for second in seconds])


# -- reading ---------------------------------------------------------------------------------


async def test_without_samples_there_is_no_history(catalog: Catalog) -> None:
    await catalog.samples.add([])
    await catalog.samples.add([sample("other")])
    assert await points(catalog) == {}


async def test_gauges_are_averaged_and_percentiles_at_their_worst(catalog: Catalog) -> None:
    await catalog.samples.add(
        [
            sample(seconds=0, active_connections=1, wait_p95_ms=2.0),
            sample(
                seconds=5, active_connections=2, wait_p95_ms=4.0, waiting_requests=3, acquired=1
            ),
            sample(seconds=9.999, active_connections=5),
            sample(seconds=10, active_connections=4),
        ]
    )
    found = await points(catalog)
    assert list(found) == [0.0, 10.0]
    first = found[0.0]
    assert (first.samples, first.total_connections) == (3, 5.0)
    assert (first.waiting_requests, first.waiting_requests_max) == (1.0, 3)
    assert first.active_connections == 8 / 3
    assert first.idle_connections == 7 / 3
    assert isinstance(first.active_connections, float)
    assert (first.wait_p95_ms, first.wait_p99_ms) == (4.0, None)
    assert found[10.0].wait_p95_ms is None


async def test_a_step_without_leases_has_no_times_of_leases(catalog: Catalog) -> None:
    times: dict[str, Any] = {
        "wait_p95_ms": 2.0,
        "wait_p99_ms": 3.0,
        "hold_p95_ms": 9.0,
        "connect_p95_ms": 5.0,
    }
    await catalog.samples.add(
        [
            sample(seconds=0, acquired=1, **times),
            sample(seconds=10, **times),
            sample(seconds=20, timeouts=1, **times),
            sample(seconds=30, connection_seconds=1.5, **times),
        ]
    )
    found = await points(catalog)
    known = {at: (each.wait_p95_ms, each.wait_p99_ms) for at, each in found.items()}
    assert known == {0.0: (2.0, 3.0), 10.0: (None, None), 20.0: (2.0, 3.0), 30.0: (2.0, 3.0)}
    assert [each.hold_p95_ms for each in found.values()] == [9.0, None, 9.0, 9.0]
    assert [each.connect_p95_ms for each in found.values()] == [5.0] * 4


async def test_growth_is_added_up(catalog: Catalog) -> None:
    await catalog.samples.add(
        [
            sample(seconds=0, acquired=100, timeouts=1),
            sample(seconds=5, acquired=30),
            sample(seconds=15, acquired=20, timeouts=3),
        ]
    )
    grown = {at: (point.acquired, point.timeouts) for at, point in (await points(catalog)).items()}
    assert grown == {0.0: (130, 1), 10.0: (20, 3)}
    assert isinstance((await points(catalog))[0.0].acquired, int)


async def test_polls_that_measured_the_same_are_read_as_if_each_had_been_stored(
    catalog: Catalog,
) -> None:
    """A busy one at 0 s, idle ones at 5, 10, 15, 20 and 25 s."""
    await catalog.samples.add(
        [
            sample(seconds=0, active_connections=5, acquired=1),
            sample(seconds=25, polls=5, gap_seconds=5.0),
        ]
    )
    found = await points(catalog)
    assert {at: point.samples for at, point in found.items()} == {0.0: 2, 10.0: 2, 20.0: 2}
    assert [point.active_connections for point in found.values()] == [2.5, 0.0, 0.0]
    assert list(await points(catalog, 10, 20)) == [10.0]
    assert list(await points(catalog, 28)) == []


async def test_steps_without_a_sample_are_left_out(catalog: Catalog) -> None:
    await polls_of(catalog, [0, 45])
    assert list(await points(catalog)) == [0.0, 40.0]


async def test_the_end_is_not_included_and_steps_do_not_move_with_the_start(
    catalog: Catalog,
) -> None:
    await polls_of(catalog, range(0, 60, 5))
    found = await points(catalog, 3, 30)
    assert {at: point.samples for at, point in found.items()} == {0.0: 1, 10.0: 2, 20.0: 2}


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


# -- rolling up ------------------------------------------------------------------------------


async def test_a_minute_weighs_each_poll_alike(catalog: Catalog) -> None:
    await catalog.samples.add(
        [
            sample(seconds=0, active_connections=5, acquired=7, waiting_requests=10),
            sample(seconds=40, polls=8, gap_seconds=5.0),
            sample(seconds=50, active_connections=5, acquired=2, timeouts=1, wait_p99_ms=3.5),
            sample("other", seconds=50, acquired=99),
        ]
    )
    before = await points(catalog, step=60)
    await downsample(catalog, 60)
    found = await history(catalog, step=60)
    assert found.resolution is MINUTE
    [minute] = found.points
    assert {0.0: minute} == before
    assert (minute.samples, minute.acquired, minute.timeouts) == (10, 9, 1)
    assert (minute.active_connections, minute.waiting_requests) == (1.0, 1.0)
    assert (minute.waiting_requests_max, minute.wait_p99_ms) == (10, 3.5)


async def test_downsampling_changes_no_answer(catalog: Catalog) -> None:
    """Eleven quarters of an hour, queried in steps of each resolution."""
    await polls_of(catalog, range(0, 9900, 15))
    expected = {
        step: dict.fromkeys(range(0, 9900 // step * step, step), 4 * step / 60)
        for step in (60, 900)
    } | {3600: {0: 240.0, 3600: 240.0, 7200: 180.0}}
    for until in (0, 60, 5400, 9900):
        await downsample(catalog, until)
        for step, polls in expected.items():
            found = await points(catalog, 0, 9900, step=step)
            assert {at: point.samples for at, point in found.items()} == polls, (until, step)
            assert {at: point.acquired for at, point in found.items()} == polls, (until, step)


async def test_each_step_is_one_minute_and_gaps_are_skipped(
    catalog: Catalog, catalog_database: Database
) -> None:
    await polls_of(catalog, [0, 59, 60, 30 * 86_400])
    until = after(31 * 86_400)
    done = [await catalog.samples.downsample(MINUTE, until) for _ in range(4)]
    assert done == [after(60), after(120), after(30 * 86_400 + 60), until]
    assert await count(catalog_database, MINUTE) == 3


async def test_downsampling_again_changes_nothing(
    catalog: Catalog, catalog_database: Database
) -> None:
    await polls_of(catalog, range(0, 7200, 30))
    for _ in range(2):
        await downsample(catalog, 7200)
    assert await count(catalog_database, MINUTE) == 120
    assert await count(catalog_database, HOUR) == 2
    assert {at: p.acquired for at, p in (await points(catalog, 0, 7200, step=3600)).items()} == {
        0.0: 120,
        3600.0: 120,
    }


async def test_samples_from_the_future_do_not_delay_the_present(
    catalog: Catalog, catalog_database: Database
) -> None:
    """The clock was two days ahead for a while."""
    await polls_of(catalog, [2 * 86_400, 2 * 86_400 + 60])
    await downsample(catalog, 2 * 86_400 + 120)
    await polls_of(catalog, [0, 30])
    await downsample(catalog, 60)
    assert await count(catalog_database, MINUTE) == 3
    assert [point.samples for point in (await history(catalog, step=60)).points] == [2]


async def test_samples_that_come_late_are_counted_in_each_resolution(catalog: Catalog) -> None:
    """An instance whose clock is behind took over from one that had downsampled these minutes."""
    await polls_of(catalog, range(0, 7200, 30))
    await downsample(catalog, 7200)
    await polls_of(catalog, range(3610, 7200, 60))
    for resolution in (MINUTE, HOUR):
        at, until = after(3610), after(7200)
        while at < until:
            at = await catalog.samples.downsample(resolution, until, again_from=at)
        found = await points(catalog, 0, 7200, step=resolution.step.total_seconds())
        assert sum(point.acquired for point in found.values()) == 240 + 60


async def test_a_minute_whose_samples_were_deleted_in_part_stays(catalog: Catalog) -> None:
    await polls_of(catalog, range(0, 120, 10))
    await downsample(catalog, 120)
    assert await catalog.samples.delete_before(Resolution.RAW, after(30)) == 3
    for at in (after(0), after(60)):
        await catalog.samples.downsample(MINUTE, after(120), again_from=at)
    assert [p.acquired for p in (await history(catalog, 0, 120, step=60)).points] == [6, 6]


async def test_coarser_samples_answer_where_finer_ones_are_gone(
    catalog: Catalog,
) -> None:
    await polls_of(catalog, range(0, 3 * 3600, 30))
    await downsample(catalog, 3 * 3600)
    recent, past = (2 * 3600, 3 * 3600), (0, 3 * 3600)
    assert (await history(catalog, *past, step=10)).resolution is Resolution.RAW
    while await catalog.samples.delete_before(Resolution.RAW, after(2 * 3600)):
        pass
    assert (await history(catalog, *recent, step=30)).resolution is Resolution.RAW
    assert (await history(catalog, *past, step=30)).resolution is MINUTE
    assert sum(p.acquired for p in (await history(catalog, *past, step=30)).points) == 360
    while await catalog.samples.delete_before(MINUTE, after(2 * 3600)):
        pass
    found = await history(catalog, *past, step=60)
    assert (found.resolution, [p.acquired for p in found.points]) == (HOUR, [120, 120, 120])


async def test_a_young_tenant_has_fine_steps_although_its_first_hour_began_before_it(
    catalog: Catalog,
) -> None:
    await polls_of(catalog, range(1800, 7200, 30))
    await downsample(catalog, 7200)
    assert (await history(catalog, 0, 7200, step=60)).resolution is MINUTE


# -- deleting --------------------------------------------------------------------------------


async def test_old_samples_are_deleted_bit_by_bit(catalog: Catalog) -> None:
    await polls_of(catalog, range(10))
    deleted = [
        await catalog.samples.delete_before(Resolution.RAW, after(7), limit=5) for _ in range(3)
    ]
    assert deleted == [5, 2, 0]
    assert list(await points(catalog, step=1)) == [7.0, 8.0, 9.0]


async def test_a_clock_far_ahead_deletes_two_minutes_at_a_time(catalog: Catalog) -> None:
    await polls_of(catalog, range(0, 600, 60))
    far = after(400 * 86_400)
    assert await catalog.samples.delete_before(Resolution.RAW, far) == 2
    assert min(await points(catalog, 0, 600, step=1)) == 120.0
