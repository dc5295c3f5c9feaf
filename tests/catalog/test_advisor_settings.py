"""The advisor's settings are one row, with the rules of desired state."""

import json
from dataclasses import asdict, replace

import pytest
from sqlalchemy.exc import DBAPIError

from app.catalog.catalog import Catalog
from app.catalog.migrate import migrate
from app.domain.advisor import DemandConfig, PoolPressureMonitorConfig, TrialConfig
from app.domain.advisor_settings import AdvisorRule, AdvisorSettings
from app.domain.errors import StaleVersion
from app.domain.tenant import AdvisorMode
from tests.catalog.values import event, refused_event
from tests.fixtures.catalog import address_of, downgrade
from tests.fixtures.postgres import Database

SETTINGS = AdvisorSettings(
    rule=AdvisorRule.DEMAND,
    mode=AdvisorMode.RECOMMEND,
    hysteresis=PoolPressureMonitorConfig(enabled=True, scale_down_idle_ratio=0.1),
    demand=DemandConfig(late_share=0.05, trial=TrialConfig(ticks=4)),
    demand_interval_ms=1_000,
)


async def test_before_anything_is_saved_there_are_none(catalog: Catalog) -> None:
    assert await catalog.advisor.load() == ()
    with pytest.raises(StaleVersion):
        await catalog.advisor.save(SETTINGS, event=event(), expected_generation=1)


async def test_settings_are_loaded_as_they_were_saved(catalog: Catalog) -> None:
    saved = await catalog.advisor.save(SETTINGS, event=event(), expected_generation=0)
    assert saved == replace(SETTINGS, generation=1)
    assert await catalog.advisor.load() == (saved,)


async def test_only_a_change_grows_the_generation(catalog: Catalog) -> None:
    await catalog.advisor.save(SETTINGS, event=event("advisor.changed"))
    assert (await catalog.advisor.save(SETTINGS, event=event("no"))).generation == 1
    off = replace(SETTINGS, mode=AdvisorMode.OFF)
    assert await catalog.advisor.save(off, event=event("advisor.changed")) == replace(
        off, generation=2
    )
    with pytest.raises(StaleVersion):
        await catalog.advisor.save(SETTINGS, event=event("no"), expected_generation=1)
    recorded = await catalog.audit_log.page()
    assert [each.action for each in recorded] == ["advisor.changed"] * 2


async def test_no_change_without_its_event(catalog: Catalog) -> None:
    with pytest.raises(DBAPIError):
        await catalog.advisor.save(SETTINGS, event=refused_event())
    assert await catalog.advisor.load() == ()


async def test_a_catalog_from_before_keeps_its_advisor(database: Database) -> None:
    address = address_of(database)
    await migrate(address)
    await downgrade(address, revision="0003")
    async with database.connected() as connection:
        await connection.execute(
            "INSERT INTO advisor (id, rule, mode, config) VALUES (1, 'hysteresis', 'apply', $1)",
            json.dumps(asdict(PoolPressureMonitorConfig(enabled=True, scale_up_step=7))),
        )
    await migrate(address)
    catalog = Catalog(address)
    try:
        [settings] = await catalog.advisor.load()
    finally:
        await catalog.close()
    assert (settings.rule, settings.mode) == (AdvisorRule.HYSTERESIS, AdvisorMode.APPLY)
    assert (settings.hysteresis.scale_up_step, settings.demand) == (7, DemandConfig())
