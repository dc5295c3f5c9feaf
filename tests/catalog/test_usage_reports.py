"""Who used connections for how long: sums over stored samples, by group, page by page."""

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest

from app.catalog.catalog import Catalog
from app.catalog.database import CatalogAddress
from app.domain.errors import QueryTimeout
from app.domain.history import PoolSample, Resolution
from app.domain.tenant import PoolStrategy
from app.domain.usage_report import Grouping, UsageOrder, UsageReport
from tests.catalog.values import NOON, event, sample, spec
from tests.fixtures.postgres import Database

DAY = 86_400.0


def used(subject: str, seconds: float, held: float, **changes: Any) -> PoolSample:
    """Let *subject* hold a connection for *held* seconds until that many seconds after noon."""
    return sample(subject, seconds, connection_seconds=held, acquired=1, **changes)


async def report(
    catalog: Catalog,
    start: float = 0.0,
    end: float = 60.0,
    grouping: Grouping = Grouping.TENANT,
    **options: Any,
) -> UsageReport:
    """A report, from and to in seconds after noon."""
    return await catalog.usage_reports.make(
        start=NOON + timedelta(seconds=start),
        end=NOON + timedelta(seconds=end),
        grouping=grouping,
        **{"limit": 100, **options},
    )


def held(found: UsageReport) -> dict[str | None, float]:
    return {row.group: row.connection_seconds for row in found.groups}


async def downsample(catalog: Catalog, until: datetime) -> None:
    for resolution in list(Resolution)[1:]:
        end = resolution.floor(until)
        while await catalog.samples.downsample(resolution, end) < end:
            pass


async def test_those_that_used_most_come_first(catalog: Catalog) -> None:
    await catalog.samples.add(
        [
            used("acme", 0, 2.5),
            used("acme", 5, 1.25),
            used("globex", 5, 7.0, timeouts=2),
            used("idle", 5, 0.0),
            used("shared@local", 5, 99.0),
            used("globex", 60, 5.0),
        ]
    )
    found = await report(catalog)
    assert [
        (row.group, row.tenants, row.connection_seconds, row.leases, row.timeouts)
        for row in found.groups
    ] == [("globex", 1, 7.0, 1, 2), ("acme", 1, 3.75, 2, 0), ("idle", 1, 0.0, 1, 0)]
    total = found.total
    assert (found.group_count, total.connection_seconds, total.leases, total.timeouts) == (
        *(3, 10.75, 4),
        2,
    )
    assert held(await report(catalog, among=["acme"])) == {"acme": 3.75}


async def test_a_report_that_takes_too_long_is_no_outage(
    catalog_address: CatalogAddress, catalog_database: Database
) -> None:
    catalog = Catalog(catalog_address, deadline=3.0)
    try:
        await catalog.samples.add([used("acme", 0, 2.5)])
        assert held(await report(catalog)) == {"acme": 2.5}
        async with catalog_database.connected() as other, other.transaction():
            await other.execute("LOCK TABLE samples_by_day")
            # The second one waits for the first.
            reports = [asyncio.create_task(report(catalog), name="report") for _ in range(2)]
            for each in reports:
                with pytest.raises(QueryTimeout, match="ask for a shorter period"):
                    await each
            assert catalog.available
        assert held(await report(catalog)) == {"acme": 2.5}
    finally:
        await catalog.close()


async def test_nothing_stored_is_an_empty_report(catalog: Catalog) -> None:
    found = await report(catalog)
    assert (found.groups, found.group_count) == ((), 0)
    assert found.period.start == found.period.end


@pytest.mark.parametrize("order", UsageOrder)
async def test_pages_have_every_group_once(catalog: Catalog, order: UsageOrder) -> None:
    """Also groups with the same use."""
    names = [f"t{number}" for number in range(9)]
    await catalog.samples.add([used(name, 0, int(name[1:]) // 3 / 7) for name in names])
    whole = await report(catalog, order=order)
    seen: list[str | None] = []
    after = None
    while page := (await report(catalog, order=order, after=after, limit=2)).groups:
        seen += [row.group for row in page]
        after = (float(order.sign * getattr(page[-1], order.measure)), page[-1].place)
    values = [order.sign * getattr(row, order.measure) for row in whole.groups]
    assert values == sorted(values)
    assert sorted(map(str, seen)) == names
    assert seen == [row.group for row in whole.groups]


async def test_tenants_count_to_what_they_belong_to_now(catalog: Catalog) -> None:
    shared = PoolStrategy.SHARED
    for declared in (
        spec("acme", labels={"plan": "gold"}),
        spec("globex", strategy=shared, labels={"plan": "gold"}),
        spec("initech", strategy=shared, server="other", labels={"plan": "\u20ac: 'x'"}),
        spec("plain"),
    ):
        await catalog.tenants.save(declared, event=event())
    names = ("acme", "globex", "initech", "plain", "deleted")
    await catalog.samples.add([used(name, 0, 2.0**number) for number, name in enumerate(names)])
    for grouping, expected in [
        (Grouping.POOL, {"acme": 1, "shared@local": 2, "shared@other": 4, "plain": 8, None: 16}),
        (Grouping.SERVER, {"local": 11, "other": 4, None: 16}),
        (Grouping.LABEL, {"gold": 3, "\u20ac: 'x'": 4, None: 24}),
    ]:
        found = await report(catalog, grouping=grouping, label="plan")
        assert held(found) == expected
        assert sum(row.tenants for row in found.groups) == 5
        assert found.total.connection_seconds == 31


async def test_a_report_stays_the_same_while_samples_are_downsampled_and_deleted(
    catalog: Catalog,
) -> None:
    """Three days; six hours of the last one are stored by poll. Each hour has its own sum."""
    hours = range(-48, 24)
    polls = [
        used("acme", hour * 3600 + 1800 * half, hour + 100) for hour in hours for half in (0, 1)
    ]
    await catalog.samples.add(polls)
    end = NOON + timedelta(days=1)
    cases = [(-48 * 3600, DAY), (-36 * 3600, 12 * 3600), (-12 * 3600, 6 * 3600), (3600, 7200)]
    expected = [
        sum(
            each.connection_seconds
            for each in polls
            if start <= (each.at - NOON).total_seconds() < to
        )
        for start, to in cases
    ]
    for step in ("raw", "downsampled", "deleted"):
        if step == "downsampled":
            await downsample(catalog, end - timedelta(hours=6))
        elif step == "deleted":
            for resolution, age in [(Resolution.RAW, 6), (Resolution.MINUTE, 20)]:
                limit = end - timedelta(hours=age)
                while await catalog.samples.delete_before(resolution, limit):
                    pass
        for (start, to), seconds in zip(cases, expected, strict=True):
            found = await report(catalog, start, to)
            assert held(found) == {"acme": seconds}, (step, start, to)
            assert (found.period.start, found.period.end) == (
                NOON + timedelta(seconds=start),
                NOON + timedelta(seconds=to),
            )


async def test_an_end_within_an_hour_whose_minutes_are_gone_moves_to_its_start(
    catalog: Catalog,
) -> None:
    await catalog.samples.add([used("acme", minute * 60, 1.0) for minute in range(240)])
    await downsample(catalog, NOON + timedelta(hours=4))
    for resolution in (Resolution.RAW, Resolution.MINUTE):
        while await catalog.samples.delete_before(resolution, NOON + timedelta(hours=3)):
            pass
    found = await report(catalog, 5400, 3.5 * 3600)
    assert held(found) == {"acme": 150.0}
    assert found.period.start == NOON + timedelta(hours=1)
    assert found.period.end == NOON + timedelta(hours=3.5)
