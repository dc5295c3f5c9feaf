"""Recommendations: made, stored, applied by a person or by the advisor itself."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from math import inf
from time import monotonic
from uuid import UUID, uuid4

import pytest

from app.catalog.advisor_settings import StoredAdvisorSettings
from app.control import audit_events
from app.control.advisor.placement_advisor import PlacementAdvisor
from app.domain.advisor import (
    DemandConfig,
    Placement,
    PlacementConfig,
    PoolSizingRecommendation,
    ReasonCode,
    ScalingAction,
)
from app.domain.advisor_settings import AdvisorRule
from app.domain.audit import ADVISOR, Actor
from app.domain.desired_pool import PoolChange
from app.domain.errors import (
    CatalogUnavailable,
    PoolLimitReached,
    RecommendationClosed,
    RecommendationIsPlacement,
    RecommendationNotFound,
)
from app.domain.pool import PoolState
from app.domain.recommendation import Recommendation, RecommendationStatus
from app.domain.tenant import AdvisorMode, PoolStrategy
from tests.fixtures.control import PERSON, Control, spec_of
from tests.fixtures.pools import pool_of
from tests.fixtures.postgres import Database
from tests.fixtures.waiting import eventually


@asynccontextmanager
async def crowd(control: Control, name: str, *, waiting: int) -> AsyncIterator[None]:
    """Hold all connections of a tenant's pool, with *waiting* more callers in its queue."""
    done = asyncio.Event()

    async def hold() -> None:
        async with control.manager.lease(name, timeout=30):
            await done.wait()

    size = control.manager.desired.size(
        name, control.manager.tenants.state(name).tenant.spec.strategy
    )
    holders = [asyncio.create_task(hold()) for _ in range(size.max_size + waiting)]
    try:
        await eventually(lambda: waits(control, name) == waiting)
        yield
    finally:
        done.set()
        await asyncio.gather(*holders)


def waits(control: Control, name: str) -> int:
    """The number of callers that wait for a tenant's pool."""
    pool = control.manager.find(name)
    return pool.metrics.waiting_requests if pool else 0


async def sampled(control: Control, times: int) -> int:
    """Sample that often, whatever the interval is; returns how many recommendations that made."""
    made = 0
    for _ in range(times):
        control.advisor_loop._due = 0.0
        made += await control.advisor_loop.tick()
    return made


async def recommended(control: Control, name: str = "acme") -> Recommendation:
    """A tenant with a new recommendation for a larger pool."""
    await control.tenant(name)
    async with crowd(control, name, waiting=4):
        assert await sampled(control, 2) == 1
    return control.advisor_loop.open_recommendations[name]


async def apply(control: Control, recommendation_id: UUID, actor: Actor) -> Recommendation:
    return await (await control.recommendation_applier.apply(recommendation_id, actor))


async def dismiss(control: Control, recommendation_id: UUID, actor: Actor) -> Recommendation:
    return await (await control.recommendation_applier.dismiss(recommendation_id, actor))


async def test_callers_who_wait_sample_after_sample_lead_to_a_recommendation(
    control: Control,
) -> None:
    recommendation = await recommended(control)
    assert recommendation.tenant == "acme"
    assert (recommendation.advice.current_size, recommendation.advice.new_size) == (5, 10)
    assert recommendation.metrics.waiting_requests == 4
    assert "4 requests waiting" in recommendation.advice.reason


async def test_advice_that_is_not_applied_stays_one_recommendation(
    control: Control,
) -> None:
    await control.tenant("acme")
    async with crowd(control, "acme", waiting=4):
        assert await sampled(control, 10) == 1
    assert control.advisor_loop.adjustments_total == 1
    [stored] = await control.catalog.recommendations.page()
    assert stored.advice.new_size == 10


async def test_an_applied_recommendation_resizes_the_pool_and_leaves_an_event(
    control: Control,
) -> None:
    recommendation = await recommended(control)
    applied = await apply(control, recommendation.id, PERSON)
    assert (applied.status, applied.closed_by) == (RecommendationStatus.APPLIED, PERSON.name)
    pool = pool_of(control.manager, "acme")
    assert pool.size.max_size == 10
    assert control.advisor_loop.open_recommendations == {}
    assert (await control.actions(pool="acme"))[-1] == "recommendation.applied"


async def test_a_recommendation_has_one_end(control: Control) -> None:
    recommendation = await recommended(control)
    await dismiss(control, recommendation.id, PERSON)
    with pytest.raises(RecommendationClosed):
        await apply(control, recommendation.id, PERSON)
    with pytest.raises(RecommendationNotFound):
        await apply(control, uuid4(), PERSON)
    assert control.manager.desired == {}


async def test_two_who_apply_at_once_apply_it_once(control: Control) -> None:
    recommendation = await recommended(control)
    answers = await asyncio.gather(
        *(apply(control, recommendation.id, PERSON) for _ in range(2)),
        return_exceptions=True,
    )
    assert [type(response) for response in answers].count(Recommendation) == 1
    assert (await control.actions()).count("recommendation.applied") == 1


async def test_a_tick_waits_for_no_change_of_a_pool_and_adds_nothing_to_it(
    control: Control, database: Database
) -> None:
    recommendation = await recommended(control)
    async with database.connected() as stranger, crowd(control, "acme", waiting=4):
        transaction = stranger.transaction()
        await transaction.start()
        await stranger.execute("ALTER ROLE tenant_acme CONNECTION LIMIT 7")
        applying = asyncio.create_task(apply(control, recommendation.id, PERSON))
        await eventually(lambda: "acme" in control.manager.desired)
        assert await sampled(control, 2) == 0
        assert not applying.done()
        latest = control.advisor_loop.latest_advice["acme"]
        assert latest.blocked_by == "another change of the pool is in progress"
        await transaction.rollback()
        assert (await applying).status is RecommendationStatus.APPLIED
    assert len(await control.catalog.recommendations.page()) == 1


async def test_an_automatic_resize_is_written_once_and_already_applied(control: Control) -> None:
    await control.tenant("acme")
    await in_mode(control, AdvisorMode.APPLY)
    async with crowd(control, "acme", waiting=4):
        assert await sampled(control, 2) == 1
        await eventually(lambda: size_of(control, "acme") == 10)
    [stored] = await control.catalog.recommendations.page()
    assert (stored.status, stored.closed_by) == (RecommendationStatus.APPLIED, ADVISOR.name)
    assert (stored.max_size, stored.advice.new_size) == (5, 10)
    assert control.advisor_loop.open_recommendations == {}
    actions = await control.actions(pool="acme")
    assert actions[-2:] == ["pool.resized", "recommendation.applied"]
    # Also of a pool whose size nobody had set.
    [resized] = await control.catalog.audit_log.page(action="pool.resized")
    sizes = [(each or {}).get("max_size") for each in (resized.before, resized.after)]
    assert sizes == [5, 10]


async def test_what_cannot_be_recorded_is_not_applied(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    recommendation = await recommended(control)

    async def away(*_: object, **__: object) -> None:
        raise CatalogUnavailable

    with monkeypatch.context() as patched:
        patched.setattr("app.catalog.desired_pools.record_applied", away)
        with pytest.raises(CatalogUnavailable):
            await apply(control, recommendation.id, PERSON)
    assert control.manager.desired == {}
    assert await control.catalog.pools.load() == ()
    assert control.advisor_loop.open_recommendations.keys() == {"acme"}
    applied = await apply(control, recommendation.id, PERSON)
    assert applied.status is RecommendationStatus.APPLIED
    assert (await control.actions()).count("pool.resized") == 1


def size_of(control: Control, name: str) -> int | None:
    """The max_size in force of a tenant's pool."""
    pool = control.manager.find(name)
    return pool.size.max_size if pool else None


async def test_in_apply_mode_the_advisor_acts_in_its_own_name(control: Control) -> None:
    await control.tenant("acme")
    await control.advisor_loop.put_settings(partial(replace, mode=AdvisorMode.APPLY), PERSON)
    async with crowd(control, "acme", waiting=4):
        await sampled(control, 2)
    assert control.manager.desired["acme"].size.max_size == 10
    [event, *_] = await control.catalog.audit_log.page(action="recommendation.applied")
    assert event.actor == ADVISOR


async def test_switched_off_it_advises_nothing(control: Control) -> None:
    await control.tenant("acme")
    await control.advisor_loop.put_settings(partial(replace, mode=AdvisorMode.OFF), PERSON)
    async with crowd(control, "acme", waiting=4):
        assert await sampled(control, 5) == 0


async def test_settings_and_open_recommendations_survive_a_restart(control: Control) -> None:
    recommendation = await recommended(control)
    await control.advisor_loop.put_settings(partial(replace, mode=AdvisorMode.OFF), PERSON)
    control.advisor_loop._store.open = {}
    control.advisor_loop.settings = replace(control.advisor_loop.settings, mode=AdvisorMode.APPLY)
    await control.advisor_loop.load()
    assert control.advisor_loop.open_recommendations["acme"].id == recommendation.id
    assert control.advisor_loop.settings.mode is AdvisorMode.OFF


async def in_mode(control: Control, mode: AdvisorMode) -> None:
    """Set another mode of the advisor."""
    await control.advisor_loop.put_settings(partial(replace, mode=mode), PERSON)


async def test_an_open_recommendation_is_applied_once_the_mode_is_apply(control: Control) -> None:
    await control.tenant("acme")
    async with crowd(control, "acme", waiting=4):
        assert await sampled(control, 2) == 1
        await in_mode(control, AdvisorMode.APPLY)
        assert await sampled(control, 2) == 0
    assert control.manager.desired["acme"].size.max_size == 10
    assert control.advisor_loop.open_recommendations == {}


async def test_advice_that_could_not_be_applied_is_tried_again(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    await control.tenant("acme")
    await in_mode(control, AdvisorMode.APPLY)

    async def refuse(*_: object, **__: object) -> None:
        raise PoolLimitReached

    async with crowd(control, "acme", waiting=4):
        with monkeypatch.context() as patched:
            patched.setattr(control.recommendation_applier, "auto_apply", refuse)
            assert await sampled(control, 2) == 1
        await sampled(control, 2)
    assert control.manager.desired["acme"].size.max_size == 10


async def test_advice_made_for_another_size_gives_way_to_new_advice(control: Control) -> None:
    recommendation = await recommended(control)
    control.advisor_loop._store.open["acme"] = replace(recommendation, max_size=7)
    async with crowd(control, "acme", waiting=4):
        assert await sampled(control, 2) == 1
    assert control.advisor_loop.open_recommendations["acme"].max_size == 5


async def test_advice_of_a_deleted_tenant_is_forgotten(control: Control) -> None:
    await recommended(control)
    await control.deletions.delete(control.state("acme"), PERSON, deadline=1)
    await control.advisor_loop.tick()
    assert control.advisor_loop.open_recommendations == {}


async def test_advice_that_the_catalog_no_longer_has_is_forgotten_when_it_expires(
    control: Control,
) -> None:
    recommendation = await recommended(control)
    expired = recommendation.closed(RecommendationStatus.EXPIRED, "other", datetime.now(UTC))
    await control.catalog.recommendations.close(expired)
    past = datetime.now(UTC) - timedelta(seconds=1)
    control.advisor_loop._store.open["acme"] = replace(recommendation, expires_at=past)
    await control.advisor_loop.tick()
    assert control.advisor_loop.open_recommendations == {}


async def test_a_round_of_advice_ends_at_the_first_pool_the_catalog_does_not_answer_for(
    control: Control,
) -> None:
    await control.tenant("acme")
    async with crowd(control, "acme", waiting=4):
        await sampled(control, 1)
        await control.proxy.cut()
        with pytest.raises(CatalogUnavailable):
            await sampled(control, 1)


async def test_advice_never_exceeds_the_budget_of_the_server(control: Control) -> None:
    control.manager.servers["local"].budget.set_limit(7)
    recommendation = await recommended(control)
    assert recommendation.advice.new_size == 7
    control.manager.servers["local"].budget.set_limit(6)
    await apply(control, recommendation.id, PERSON)
    assert control.manager.desired["acme"].size.max_size == 6


async def test_advice_never_takes_the_minimum_down(control: Control) -> None:
    await control.tenant("acme")
    await control.pool_operations.put(
        control.state("acme"), PoolChange(min_size=9, max_size=10, warmup_size=10), PERSON
    )
    await eventually(lambda: idle(control, "acme") == 10)
    assert await sampled(control, 2) == 1
    recommendation = control.advisor_loop.open_recommendations["acme"]
    assert recommendation.advice.new_size == 9
    await control.pool_operations.put(control.state("acme"), PoolChange(min_size=10), PERSON)
    with pytest.raises(RecommendationClosed):
        await apply(control, recommendation.id, PERSON)
    assert control.manager.desired["acme"].size.min_size == 10


def idle(control: Control, name: str) -> int:
    """The number of idle connections of a tenant's pool."""
    pool = control.manager.find(name)
    return pool.metrics.idle_connections if pool else 0


async def test_what_was_dismissed_is_not_recommended_again_unless_it_differs(
    control: Control,
) -> None:
    recommendation = await recommended(control)
    await dismiss(control, recommendation.id, PERSON)
    async with crowd(control, "acme", waiting=4):
        assert await sampled(control, 4) == 0
        assert control.advisor_loop.latest_advice["acme"].blocked_by == "it was dismissed recently"
        await control.advisor_loop.load()  # nor does a restart bring it back
        assert await sampled(control, 2) == 0
        other = replace(control.advisor_loop.settings.hysteresis, scale_up_step=20)
        await control.advisor_loop.put_settings(partial(replace, hysteresis=other), PERSON)
        assert await sampled(control, 2) == 1


GROWTH = PoolSizingRecommendation(
    action=ScalingAction.SCALE_UP,
    current_size=5,
    new_size=10,
    reason_code=ReasonCode.QUEUE_ABOVE_TARGET,
    reason="Callers are late",
)
KEPT = replace(GROWTH, action=ScalingAction.STABLE, new_size=5)


async def test_advice_that_says_the_opposite_closes_what_was_recommended(control: Control) -> None:
    recommendation = await recommended(control)
    assert await concluded(control, replace(KEPT, reason_code=ReasonCode.LOOP_LAG)) == 0
    assert control.advisor_loop.open_recommendations.keys() == {"acme"}
    assert await concluded(control, replace(KEPT, reason_code=ReasonCode.OPEN_BELOW_TARGET)) == 0
    assert control.advisor_loop.open_recommendations == {}
    [stored] = await control.catalog.recommendations.page()
    assert (stored.status, stored.closed_by) == (RecommendationStatus.SUPERSEDED, ADVISOR.name)
    [event] = await control.catalog.audit_log.page(action="recommendation.superseded")
    same = {"id": str(stored.id), "placement": None}
    assert event.before == {**same, "new_size": 5, "status": "open"}
    assert event.after == {**same, "new_size": 10, "status": "superseded"}
    with pytest.raises(RecommendationClosed):
        await apply(control, recommendation.id, PERSON)


async def test_growth_is_not_recommended_again_until_it_was_not_refused_for_a_while(
    control: Control,
) -> None:
    await recommended(control)
    refused = replace(KEPT, reason_code=ReasonCode.CPU_BOUND)
    unknown = replace(KEPT, reason_code=ReasonCode.LOOP_LAG)
    advised = [refused, GROWTH, refused, *[unknown] * 5, GROWTH, GROWTH, GROWTH]
    assert [await concluded(control, each) for each in advised] == [*[0] * 10, 1]
    assert len(await control.catalog.recommendations.page()) == 2


async def test_growth_is_not_recommended_in_the_moment_after_a_cut_to_the_fair_share(
    control: Control,
) -> None:
    """When the load ends within an interval, the budget was not used up in all of it."""
    await recommended(control)
    cut = replace(
        KEPT,
        action=ScalingAction.SCALE_DOWN,
        new_size=3,
        reason_code=ReasonCode.SERVER_BUDGET,
    )
    assert [await concluded(control, each) for each in (cut, GROWTH, GROWTH)] == [1, 0, 0]
    latest = control.advisor_loop.latest_advice["acme"]
    assert latest.blocked_by == "a moment ago a larger size would not have helped"


async def test_no_person_is_asked_to_grow_a_pool_beyond_its_share_of_a_used_up_budget(
    control: Control,
) -> None:
    await recommended(control)
    control.manager.servers["local"].budget.set_limit(12)
    assert await concluded(control, GROWTH, share=3.0) == 0
    assert control.advisor_loop.open_recommendations == {}
    latest = control.advisor_loop.latest_advice["acme"].advice
    assert (latest.action, latest.reason_code) == (ScalingAction.STABLE, ReasonCode.SERVER_BUDGET)
    assert "budget of 12 connections is used up" in latest.reason


async def test_nor_is_one_asked_in_mode_apply_about_a_pool_that_a_person_sized(
    control: Control,
) -> None:
    await control.tenant("acme")
    await in_mode(control, AdvisorMode.APPLY)
    await control.pool_operations.put(control.state("acme"), PoolChange(max_size=4), PERSON)
    async with control.manager.lease("acme"):
        pass
    growth = replace(GROWTH, current_size=4)
    assert await concluded(control, growth, share=3.0) == 0
    assert control.advisor_loop.open_recommendations == {}
    latest = control.advisor_loop.latest_advice["acme"]
    assert (latest.advice.reason_code, latest.blocked_by) == (ReasonCode.SERVER_BUDGET, None)
    # What it applies itself follows the rule alone.
    control.pool_operations._resized_by_hand_at.clear()
    await concluded(control, growth, share=3.0)
    assert control.manager.desired["acme"].size.max_size == growth.new_size


async def test_callers_of_two_pools_who_use_up_the_budget_are_advised_alike(
    control: Control,
) -> None:
    control.manager.servers["local"].budget.set_limit(11)
    await control.tenant("globex")
    await recommended(control)
    async with crowd(control, "acme", waiting=4), crowd(control, "globex", waiting=4):
        await sampled(control, 4)
    assert control.advisor_loop.open_recommendations == {}
    latest = control.advisor_loop.latest_advice
    codes = [latest[name].advice.reason_code for name in ("acme", "globex")]
    assert codes == [ReasonCode.SERVER_BUDGET] * 2


async def test_growth_above_max_leases_is_recommended_no_longer(control: Control) -> None:
    await recommended(control)
    spec = replace(control.state("acme").tenant.spec, max_leases=7)
    await control.declare(spec)
    advised = [await concluded(control, GROWTH) for _ in range(2)]
    assert advised == [0, 1]
    found = control.advisor_loop.open_recommendations["acme"].advice
    assert (found.new_size, found.reason) == (
        7,
        "Callers are late; limited to 7 by min_size, max_leases or the server's budget",
    )


async def test_what_was_advised_about_a_tenant_does_not_concern_a_later_one_of_its_id(
    control: Control,
) -> None:
    dismissed = await recommended(control, "globex")
    await dismiss(control, dismissed.id, PERSON)
    await recommended(control)
    for name in ("acme", "globex"):
        await control.deletions.delete(control.state(name), PERSON, deadline=0.0)
        await control.declare(spec_of(name))
        await control.provisioning.provision(control.state(name), PERSON, adopt=True)
    store, size = control.advisor_loop._store, dismissed.max_size
    for _ in range(2):
        assert store.open == {}
        assert store.find_dismissed("globex", dismissed.advice, size) is None
        await store.load()


async def test_what_a_person_sized_is_left_alone_for_a_while(control: Control) -> None:
    await control.tenant("acme")
    await in_mode(control, AdvisorMode.APPLY)
    await control.pool_operations.put(control.state("acme"), PoolChange(max_size=4), PERSON)
    control.pool_operations._resized_by_hand_at.clear()
    await control.advisor_loop.load()  # nor is it forgotten by a restart
    async with crowd(control, "acme", waiting=4):
        assert await sampled(control, 2) == 1
        assert control.manager.desired["acme"].size.max_size == 4
        held = control.advisor_loop.latest_advice["acme"].blocked_by or ""
        assert held.startswith("a person set this size")
        control.pool_operations._resized_by_hand_at["acme"] -= 900
        await sampled(control, 2)
    assert control.manager.desired["acme"].size.max_size == 9


async def test_nor_for_longer_after_an_instance_whose_clock_was_ahead(
    control: Control, catalog_database: Database
) -> None:
    await control.tenant("acme")
    await control.pool_operations.put(control.state("acme"), PoolChange(max_size=4), PERSON)
    async with catalog_database.connected() as connection:
        await connection.execute("UPDATE events SET at = at + interval '5 minutes'")
    await control.advisor_loop.load()
    assert (control.pool_operations.resized_by_hand_at("acme") or inf) <= monotonic()


async def test_the_advisor_resizes_so_many_pools_a_minute_and_no_more(control: Control) -> None:
    control.auto_apply._resizes_per_minute = 1
    await in_mode(control, AdvisorMode.APPLY)
    for name in ("acme", "globex"):
        await control.tenant(name)
    async with crowd(control, "acme", waiting=4), crowd(control, "globex", waiting=4):
        await sampled(control, 2)
    assert len(control.manager.desired) == 1
    [open_one] = control.advisor_loop.open_recommendations.values()
    held = control.advisor_loop.latest_advice[open_one.pool_id].blocked_by
    assert held == "the limit of 1 automatic resizes a minute on this server is reached"


async def test_a_tenant_may_have_a_mode_of_its_own(control: Control) -> None:
    await control.tenant("acme", advisor_mode=AdvisorMode.APPLY)
    await control.tenant("globex")
    await control.tenant("initech", advisor_mode=AdvisorMode.OFF)
    async with (
        crowd(control, "acme", waiting=4),
        crowd(control, "globex", waiting=4),
        crowd(control, "initech", waiting=4),
    ):
        await sampled(control, 2)
    assert control.manager.desired.keys() == {"acme"}
    assert control.advisor_loop.open_recommendations.keys() == {"globex"}
    assert "initech" not in control.advisor_loop.latest_advice


async def borrow(control: Control) -> None:
    async with control.manager.lease("acme", timeout=30) as connection:
        await connection.execute("select pg_sleep(0.1)")


async def demand_rule(control: Control) -> None:
    """Let the demand rule size the pools, and have its first tick."""
    await control.advisor_loop.put_settings(partial(replace, rule=AdvisorRule.DEMAND), PERSON)
    await borrow(control)
    assert await sampled(control, 1) == 0


async def test_the_demand_rule_sees_what_happened_between_two_ticks(control: Control) -> None:
    """It sees a burst that has ended at the tick."""
    await control.tenant("acme")
    await demand_rule(control)
    # Four seconds of work, which take most of the interval on a busy machine, too.
    await asyncio.gather(*(borrow(control) for _ in range(200)))
    assert waits(control, "acme") == 0
    await control.loads.sample()
    assert await sampled(control, 1) == 1
    advice = control.advisor_loop.open_recommendations["acme"].advice
    assert (advice.action, advice.reason_code) == (
        ScalingAction.SCALE_UP,
        ReasonCode.DEMAND_ABOVE_SIZE,
    )
    assert advice.evidence["events"] == 200
    assert advice.expected is not None
    assert advice.expected.late_share_before is not None
    assert advice.expected.late_share_before > 0.5 > (advice.expected.late_share_after or 0.0)
    [stored] = await control.catalog.recommendations.page()
    assert stored.advice.evidence == pytest.approx(advice.evidence)
    assert stored.advice.expected == pytest.approx(advice.expected)


@pytest.mark.parametrize("why", ["pause", "server away"])
async def test_callers_who_waited_for_a_pause_or_an_outage_to_end_are_no_demand(
    control: Control, why: str
) -> None:
    await control.tenant("acme")
    await demand_rule(control)
    pool = pool_of(control.manager, "acme")
    pool.pause()
    callers = [asyncio.create_task(borrow(control)) for _ in range(100)]
    await eventually(lambda: pool.reading(monotonic()).waiting_seconds > 100 * 0.3)
    if why == "pause":
        pool.resume()
    else:
        pool.state = PoolState.READY
        pool.server_back()
        pool.dispatch()
    await asyncio.gather(*callers)
    assert await sampled(control, 2) == 0
    advice = control.advisor_loop.latest_advice["acme"].advice
    assert (advice.action, advice.reason_code) == (ScalingAction.STABLE, ReasonCode.NOT_READY)
    assert advice.evidence["late_share"] == 0.0


async def test_only_in_apply_mode_unused_connections_are_kept_as_long_as_advised(
    control: Control,
) -> None:
    await control.tenant("acme")
    # However slow connects and this loop are here: the test makes them quick and on time.
    unhurried = DemandConfig(patience_seconds=3600, loop_lag_seconds=3600)
    demand = partial(replace, rule=AdvisorRule.DEMAND, demand=unhurried)
    async with control.manager.lease("acme"):
        pool = pool_of(control.manager, "acme")
    kept = []
    for mode in (AdvisorMode.RECOMMEND, AdvisorMode.APPLY, AdvisorMode.OFF):
        await control.advisor_loop.put_settings(partial(demand, mode=mode), PERSON)
        await sampled(control, 1)
        pool.recycle()
        async with crowd(control, "acme", waiting=0):
            await eventually(lambda: pool.metrics.active_connections == pool.size.max_size)
        await sampled(control, 1)
        kept.append(pool.surplus_age)
    assert kept == [None, 10.0, None]


async def test_a_growth_that_is_reverted_is_marked_undone(control: Control) -> None:
    recommendation = await recommended(control)
    await apply(control, recommendation.id, PERSON)
    undo = replace(
        recommendation,
        id=uuid4(),
        max_size=10,
        advice=replace(
            recommendation.advice,
            action=ScalingAction.SCALE_DOWN,
            current_size=10,
            new_size=5,
            reason_code=ReasonCode.GROWTH_UNDONE,
        ),
    )
    await control.advisor_loop._store.add(undo)
    await apply(control, undo.id, PERSON)
    page = await control.catalog.recommendations.page()
    assert {each.id: each.status for each in page} == {
        recommendation.id: RecommendationStatus.UNDONE,
        undo.id: RecommendationStatus.APPLIED,
    }
    assert control.manager.desired["acme"].size.max_size == 5


async def test_a_tenant_that_keeps_the_shared_pool_busy_is_advised_to_move_and_not_moved(
    control: Control,
) -> None:
    await control.tenant("acme", PoolStrategy.SHARED)
    async with control.manager.lease("acme") as connection:
        await connection.execute("select 1")
    placement = control.advisor_loop._placement = PlacementAdvisor(
        control.manager, PlacementConfig(min_seconds=0.2)
    )
    assert await sampled(control, 1) == 0
    control.manager.tenants.state("acme").recorder.hold_seconds += 3600.0
    await asyncio.sleep(0.3)
    placement._due = 0.0
    assert await sampled(control, 1) == 1
    [move] = control.advisor_loop.open_recommendations.values()
    assert (move.tenant, move.pool_id) == ("acme", "shared@local")
    assert (move.placement, move.advice.reason_code) == (Placement.OWN_POOL, ReasonCode.HOT_TENANT)
    with pytest.raises(RecommendationIsPlacement, match="copy the data"):
        await apply(control, move.id, PERSON)
    await dismiss(control, move.id, PERSON)
    placement._due = 0.0
    assert await sampled(control, 1) == 0


@pytest.mark.parametrize("is_paused", [True, False], ids=["still paused", "just resumed"])
async def test_callers_that_waited_for_the_end_of_a_pause_are_no_reason_to_move(
    control: Control, *, is_paused: bool
) -> None:
    await control.tenant("acme", PoolStrategy.SHARED)
    async with control.manager.lease("acme"):
        pass
    placement = control.advisor_loop._placement = PlacementAdvisor(
        control.manager, PlacementConfig(min_seconds=0.2, hot_load=1e9)
    )
    assert await sampled(control, 1) == 0
    recorder, pool = control.state("acme").recorder, control.manager.find("shared@local")
    assert pool is not None
    recorder.hold_seconds += 3600.0
    recorder.record_abandoned(5.0, monotonic())
    await asyncio.sleep(0.3)
    pool.pause()
    if not is_paused:
        pool.resume()
    placement._due = 0.0
    assert await sampled(control, 1) == 0
    # Without a pause they are one.
    pool.resume()
    pool.interrupted_until = -recorder.window
    placement._due = 0.0
    assert await sampled(control, 1) == 1


async def test_what_the_database_does_is_seen(control: Control, database: Database) -> None:
    await control.tenant("acme")
    assert control.loads.of("local") is None
    lock = "select pg_advisory_xact_lock(7)"

    async def wait_for_lock() -> None:
        async with control.manager.lease("acme") as connection:
            await connection.execute(lock)

    async def shows() -> bool:
        """Whether one waits, and the other has done nothing for as long as counts."""
        async with database.connected() as admin:
            shown = """
                select exists (select from pg_locks where locktype = 'advisory' and not granted)
                and exists (select from pg_stat_activity where state = 'idle in transaction'
                            and state_change < clock_timestamp() - interval '50 ms')
            """
            return bool(await admin.fetchval(shown))

    async with control.manager.lease("acme") as holder:
        await holder.execute(lock)
        waiting = asyncio.create_task(wait_for_lock())
        await eventually(shows)
        for _ in range(12):
            await control.loads.sample()
    await waiting
    load = control.loads.of("local")
    assert load is not None
    assert load.samples == 10
    assert load.lock_share > 0.0
    assert load.idle_in_transaction_share > 0.0
    assert load.running < 1.0


ROOM = PoolSizingRecommendation(
    action=ScalingAction.SCALE_UP,
    current_size=5,
    new_size=20,
    reason_code=ReasonCode.ROOM_FOR_BURSTS,
    reason="A burst would wait.",
)


async def concluded(
    control: Control, advice: PoolSizingRecommendation, *, share: float | None = None
) -> int:
    """Conclude *advice* about the tenant's open pool; returns how many recommendations it made."""
    advised = control.advisor_loop._pools.find("acme")
    assert advised is not None
    return await control.advisor_loop._conclude(advised, advice, share)


async def test_room_for_bursts_alone_is_recommended_only_once_callers_are_late(
    control: Control,
) -> None:
    await control.tenant("acme")
    # The first connect of a slow machine makes nobody late.
    patient = partial(replace, demand=DemandConfig(patience_seconds=60))
    await control.advisor_loop.put_settings(patient, PERSON)
    async with control.manager.lease("acme"):
        pass
    assert await concluded(control, ROOM) == 0
    held = control.advisor_loop.latest_advice["acme"].blocked_by
    assert held == "callers are served in time without it; mode `apply` would apply it"
    assert control.advisor_loop.open_recommendations == {}
    assert await concluded(control, replace(ROOM, evidence={"late_share": 0.2})) == 1
    assert control.advisor_loop.open_recommendations["acme"].advice.new_size == 20


@pytest.mark.parametrize("code", [ReasonCode.DEMAND_ABOVE_SIZE, ReasonCode.SERVER_BUDGET])
@pytest.mark.parametrize(("late_share", "made"), [(0.0, 0), (0.2, 1)])
async def test_no_person_is_asked_to_grow_a_pool_by_a_forecast_that_no_caller_confirms(
    control: Control, late_share: float, made: int, code: ReasonCode
) -> None:
    """Callers that gave up waiting are late, too, although no wait was measured."""
    await control.tenant("acme")
    patient = partial(replace, demand=DemandConfig(patience_seconds=60))
    await control.advisor_loop.put_settings(patient, PERSON)
    async with control.manager.lease("acme"):
        evidence = {"late_share": late_share}
    forecast = replace(GROWTH, reason_code=code, evidence=evidence)
    assert await concluded(control, forecast) == made


async def test_late_callers_of_a_pool_twice_as_large_as_needed_are_no_reason_for_more_room(
    control: Control,
) -> None:
    await control.tenant("acme")
    async with control.manager.lease("acme"):
        pass
    for peak, made in [(2, 0), (3, 1)]:
        advice = replace(ROOM, evidence={"window_peak_size": peak, "late_share": 0.2})
        assert await concluded(control, advice) == made


async def test_room_for_bursts_is_given_in_mode_apply_before_anybody_is_late(
    control: Control,
) -> None:
    await control.tenant("acme")
    await in_mode(control, AdvisorMode.APPLY)
    async with control.manager.lease("acme"):
        pool = pool_of(control.manager, "acme")
    assert await concluded(control, ROOM) == 1
    await eventually(lambda: pool.size.max_size == 20)


async def test_settings_that_were_not_stored_after_all_end_no_observation(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = control.advisor_loop
    saved = await loop.put_settings(partial(replace, mode=AdvisorMode.RECOMMEND), PERSON)
    await control.tenant("acme")
    async with control.manager.lease("acme"):
        pass
    await loop.tick()
    [advisor] = loop._advisors.values()
    monkeypatch.setattr(StoredAdvisorSettings, "in_doubt", (1,))
    await loop.read_in_doubt()
    assert loop._advisors["local"] is advisor
    # Those that were stored count from now on, as if their response had come.
    other = replace(saved, mode=AdvisorMode.OFF)
    event = audit_events.advisor_saved(saved, other, PERSON)
    await control.catalog.advisor.save(other, event=event)
    await loop.read_in_doubt()
    assert loop.settings.mode is AdvisorMode.OFF
    assert not loop._advisors
