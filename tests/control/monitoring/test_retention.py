"""Retention follows the poller: samples become minutes and hours, and old ones are deleted."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from app.domain.history import History, Resolution
from tests.catalog.values import sample
from tests.fixtures.control import Control

HOURS = timedelta(hours=3)


async def remembered(control: Control, *ages: timedelta) -> None:
    """Polls that long ago, with one lease each."""
    now = datetime.now(UTC)
    samples = [replace(sample("acme", acquired=1), at=now - age) for age in ages]
    await control.catalog.samples.add(samples)


async def past(control: Control, step: float) -> History:
    now = datetime.now(UTC)
    return await control.catalog.samples.query_history(
        "acme", start=now - 2 * HOURS, end=now, step=step
    )


async def test_polls_become_minutes_and_go_when_they_are_old(control: Control) -> None:
    """Here everything is kept for an hour, whatever the resolution."""
    await remembered(control, timedelta(minutes=63), timedelta(minutes=30))
    await control.poller.run_once()
    report = await control.retention.run_once()
    assert report is not None
    assert report.minutes_complete_until == control.poller.stored_until
    assert report.hours_complete_until == Resolution.HOUR.floor(report.minutes_complete_until)
    assert report.deleted >= 1
    raw = await past(control, 1)
    assert {point.acquired for point in raw.points} == {1}


async def test_samples_not_downsampled_yet_are_not_deleted(control: Control) -> None:
    """One turn downsamples less than fifteen minutes; all in one hour, so that none is done yet."""
    now = datetime.now(UTC)
    age = now - Resolution.HOUR.floor(now - HOURS)
    await remembered(control, *(age - timedelta(minutes=minute) for minute in range(15)))
    await control.poller.run_once()
    for turns in range(1, 30):
        report = await control.retention.run_once()
        assert report is not None
        acquired = sum(point.acquired for point in (await past(control, 60)).points)
        if turns == 1:
            assert report.minutes_complete_until < control.poller.stored_until  # type: ignore[operator]
            assert acquired == 15
        if not report.deleted and report.minutes_complete_until == control.poller.stored_until:
            break
    hours = await past(control, 3600)
    assert hours.resolution is Resolution.HOUR


async def test_nothing_is_downsampled_before_the_first_poll_nor_without_the_catalog(
    control: Control,
) -> None:
    await remembered(control, HOURS)
    assert await control.retention.run_once() is None
    await control.poller.run_once()
    await control.proxy.cut()
    assert await control.retention.run_once() is None
    await control.proxy.pass_through()
    assert await control.retention.run_once() is not None


async def test_what_could_not_be_stored_is_stored_with_the_next_poll(control: Control) -> None:
    await control.tenant("acme")
    async with control.manager.lease("acme"):
        pass
    await control.proxy.cut()
    await control.poller.run_once()
    assert control.poller.stored_until is None
    async with control.manager.lease("acme"):
        pass
    await control.poller.run_once()
    await control.proxy.pass_through()
    await control.poller.run_once()
    assert control.poller.stored_until is not None
    assert sum(point.acquired for point in (await past(control, 3600)).points) == 2
