"""The advisor's settings are one row under the rules of desired state."""

from dataclasses import replace

import pytest
from sqlalchemy.exc import DBAPIError

from app.catalog.catalog import Catalog
from app.domain.advisor import PoolPressureMonitorConfig
from app.domain.desired import AdvisorMode, AdvisorSettings
from app.domain.errors import StaleVersion
from tests.catalog.values import event, refused_event

SETTINGS = AdvisorSettings(
    rule="hysteresis",
    mode=AdvisorMode.RECOMMEND,
    config=PoolPressureMonitorConfig(enabled=True, scale_down_idle_ratio=0.1),
)


async def test_before_anything_is_saved_there_are_none(catalog: Catalog) -> None:
    assert await catalog.advisor.load() is None
    with pytest.raises(StaleVersion):
        await catalog.advisor.save(SETTINGS, event=event(), expected_generation=1)


async def test_settings_are_loaded_as_they_were_saved(catalog: Catalog) -> None:
    saved = await catalog.advisor.save(SETTINGS, event=event(), expected_generation=0)
    assert saved == replace(SETTINGS, generation=1)
    assert await catalog.advisor.load() == saved


async def test_only_a_change_grows_the_generation(catalog: Catalog) -> None:
    await catalog.advisor.save(SETTINGS, event=event("advisor.changed"))
    assert (await catalog.advisor.save(SETTINGS, event=event("no"))).generation == 1
    off = replace(SETTINGS, mode=AdvisorMode.OFF)
    assert await catalog.advisor.save(off, event=event("advisor.changed")) == replace(
        off, generation=2
    )
    with pytest.raises(StaleVersion):
        await catalog.advisor.save(SETTINGS, event=event("no"), expected_generation=1)
    told = await catalog.events.page()
    assert [each.action for each in told] == ["advisor.changed"] * 2


async def test_no_change_without_its_event(catalog: Catalog) -> None:
    with pytest.raises(DBAPIError):
        await catalog.advisor.save(SETTINGS, event=refused_event())
    assert await catalog.advisor.load() is None
