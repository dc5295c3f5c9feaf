"""Advice: sampled, remembered, applied through the Keeper, never walking off by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from uuid import uuid4

import pytest

from app.control.advising import ADVISOR
from app.domain.desired import AdvisorMode
from app.domain.errors import RecommendationClosed, RecommendationNotFound
from app.domain.recommendation import Recommendation, RecommendationStatus
from tests.fixtures.control import PERSON, Control
from tests.fixtures.waiting import eventually


@asynccontextmanager
async def crowd(control: Control, name: str, *, waiting: int) -> AsyncIterator[None]:
    """All connections of a tenant's pool held, and *waiting* more callers in its queue."""
    done = asyncio.Event()

    async def hold() -> None:
        async with control.manager.lease(name, timeout=30):
            await done.wait()

    size = control.manager.desired_size(name, control.manager.account(name).tenant.spec.strategy)
    holders = [asyncio.create_task(hold()) for _ in range(size.max_size + waiting)]
    try:
        await eventually(lambda: waits(control, name) == waiting)
        yield
    finally:
        done.set()
        await asyncio.gather(*holders)


def waits(control: Control, name: str) -> int:
    """How many callers wait for a tenant's pool."""
    pool = control.manager.find(name)
    return pool.metrics.waiting_requests if pool else 0


async def sampled(control: Control, times: int) -> int:
    """Sample so often, whatever the interval says; how many recommendations that made."""
    made = 0
    for _ in range(times):
        control.advising._due = 0.0
        made += await control.advising.tick()
    return made


async def recommended(control: Control, name: str = "acme") -> Recommendation:
    """A tenant that was just recommended a larger pool."""
    await control.tenant(name)
    async with crowd(control, name, waiting=4):
        assert await sampled(control, 2) == 1
    return control.advising.open[name]


async def test_callers_who_wait_sample_after_sample_lead_to_a_recommendation(
    control: Control,
) -> None:
    recommendation = await recommended(control)
    assert recommendation.tenant == "acme"
    assert (recommendation.advice.current_size, recommendation.advice.new_size) == (5, 10)
    assert recommendation.metrics.waiting_requests == 4
    assert "4 requests waiting" in recommendation.advice.reason


async def test_advice_nobody_follows_stays_one_recommendation_and_one_number(
    control: Control,
) -> None:
    await control.tenant("acme")
    async with crowd(control, "acme", waiting=4):
        assert await sampled(control, 10) == 1
    [stored] = await control.catalog.recommendations.page()
    assert stored.advice.new_size == 10


async def test_an_applied_recommendation_resizes_the_pool_and_is_told(control: Control) -> None:
    recommendation = await recommended(control)
    applied = await control.advising.apply(recommendation.id, PERSON)
    assert (applied.status, applied.closed_by) == (RecommendationStatus.APPLIED, PERSON.name)
    pool = control.manager.find("acme")
    assert pool is not None
    assert pool.size.max_size == 10
    assert control.advising.open == {}
    assert (await control.actions(pool="acme"))[-1] == "recommendation.applied"


async def test_a_recommendation_has_one_end(control: Control) -> None:
    recommendation = await recommended(control)
    await control.advising.dismiss(recommendation.id, PERSON)
    with pytest.raises(RecommendationClosed):
        await control.advising.apply(recommendation.id, PERSON)
    with pytest.raises(RecommendationNotFound):
        await control.advising.apply(uuid4(), PERSON)
    assert control.manager.desired == {}


async def test_two_who_apply_at_once_apply_it_once(control: Control) -> None:
    recommendation = await recommended(control)
    answers = await asyncio.gather(
        *(control.advising.apply(recommendation.id, PERSON) for _ in range(2)),
        return_exceptions=True,
    )
    assert [type(answer) for answer in answers].count(Recommendation) == 1
    assert (await control.actions()).count("recommendation.applied") == 1


async def test_in_apply_mode_the_advisor_acts_in_its_own_name(control: Control) -> None:
    await control.tenant("acme")
    await control.advising.put_settings(
        replace(control.advising.settings, mode=AdvisorMode.APPLY), PERSON
    )
    async with crowd(control, "acme", waiting=4):
        await sampled(control, 2)
    assert control.manager.desired["acme"].size.max_size == 10
    [event, *_] = await control.catalog.events.page(action="recommendation.applied")
    assert event.actor == ADVISOR


async def test_switched_off_it_advises_nothing(control: Control) -> None:
    await control.tenant("acme")
    await control.advising.put_settings(
        replace(control.advising.settings, mode=AdvisorMode.OFF), PERSON
    )
    async with crowd(control, "acme", waiting=4):
        assert await sampled(control, 5) == 0


async def test_settings_and_open_recommendations_survive_a_restart(control: Control) -> None:
    recommendation = await recommended(control)
    await control.advising.put_settings(
        replace(control.advising.settings, mode=AdvisorMode.OFF), PERSON
    )
    control.advising._open = {}
    control.advising._settings = replace(control.advising.settings, mode=AdvisorMode.APPLY)
    await control.advising.load()
    assert control.advising.open["acme"].id == recommendation.id
    assert control.advising.settings.mode is AdvisorMode.OFF
