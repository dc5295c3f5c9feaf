"""Which advice supersedes an open recommendation: a person may be about to apply it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from app.catalog import audit_log
from app.control.advisor import recommendation_store
from app.domain.advisor import ReasonCode
from app.domain.advisor.sizing_recommendation import ScalingAction
from tests.catalog.values import recommendation
from tests.fixtures.control import Control
from tests.fixtures.turns import counted_turns

QUEUE, LATE = ReasonCode.QUEUE_ABOVE_TARGET, ReasonCode.LATE_WAITS


@pytest.mark.parametrize(
    ("before", "made", "now", "reason", "stays"),
    [
        pytest.param(2, 4, 3, QUEUE, True, id="one less"),
        pytest.param(2, 4, 5, LATE, True, id="one more"),
        pytest.param(2, 4, 6, QUEUE, False, id="two more"),
        pytest.param(30, 50, 62, LATE, True, id="a quarter more"),
        pytest.param(30, 50, 63, QUEUE, False, id="over a quarter more"),
        pytest.param(14, 28, 18, QUEUE, True, id="less growth for the same reason"),
        pytest.param(14, 28, 18, LATE, True, id="less growth for another reason"),
        pytest.param(60, 40, 44, QUEUE, True, id="a little less of a cut"),
        pytest.param(60, 40, 50, QUEUE, False, id="less of a cut"),
        pytest.param(60, 40, 20, QUEUE, True, id="more of a cut"),
        pytest.param(60, 40, 70, QUEUE, False, id="growth instead of a cut"),
    ],
)
async def test_an_open_one_stays_while_the_advice_says_about_the_same(
    control: Control, before: int, made: int, now: int, reason: ReasonCode, *, stays: bool
) -> None:
    given = recommendation(max_size=before)
    action = ScalingAction.between(before, made)
    given = replace(given, advice=replace(given.advice, action=action, new_size=made))
    store = control.advisor_loop._store
    await store.add(given)
    action = ScalingAction.between(before, now)
    advice = replace(given.advice, action=action, new_size=now, reason_code=reason)
    found = store.find_open("acme", advice, before)
    assert found == (given if stays else None)


async def test_advice_that_goes_up_and_down_leaves_open_the_most_that_it_said(
    control: Control,
) -> None:
    """One client for seven minutes, as it happened once: nine sizes, and a person reads two."""
    store, seen = control.advisor_loop._store, []
    for size in (9, 16, 10, 16, 11, 16, 18, 15, 16):
        given = recommendation(max_size=8)
        given = replace(given, advice=replace(given.advice, new_size=size))
        if store.find_open("acme", given.advice, 8) is None:
            await store.add(given)
            seen.append(size)
    assert seen == [9, 16]
    assert await control.actions(pool="acme") == ["recommendation.superseded"]


async def test_one_that_is_repeated_stays_open_and_one_that_is_not_expires(
    control: Control,
) -> None:
    store, lifetime = control.advisor_loop._store, timedelta(minutes=10)
    now = datetime.now(UTC)
    given = recommendation(max_size=8, created_at=now, expires_at=now + lifetime)
    await store.add(given)
    await store.renew(given, given.advice, lifetime)
    assert store.open["acme"] is given  # half of its time is left
    late = replace(given, expires_at=now + lifetime / 3)
    store.open["acme"] = late
    await store.renew(late, replace(given.advice, new_size=20), lifetime)
    assert store.open["acme"] is late
    await store.renew(late, replace(given.advice, new_size=11), lifetime)
    renewed = store.open["acme"]
    assert renewed.expires_at >= now + lifetime
    assert (await control.catalog.recommendations.get(given.id)) == renewed
    old = replace(late, created_at=now - timedelta(hours=24))
    store.open["acme"] = old
    await store.renew(old, given.advice, lifetime)
    assert store.open["acme"] is old
    store.drop(old)
    await store.renew(old, given.advice, lifetime)
    assert not store.open


async def test_of_many_that_expire_together_some_are_closed_in_each_turn(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, now = control.advisor_loop._store, datetime.now(UTC)
    for number in range(7):
        await store.add(recommendation(f"t{number}", expires_at=now))
    monkeypatch.setattr(recommendation_store, "_EXPIRED_AT_ONCE", 3)
    async with counted_turns() as turns:
        monkeypatch.setattr(audit_log, "log", turns.counted(audit_log.log))
        await store.expire()
    assert (turns.calls, turns.most) == (7, 3)
    assert not store.open


async def test_a_size_of_one_more_than_the_dismissed_one_is_dismissed_too(control: Control) -> None:
    given = recommendation(max_size=2)
    store = control.advisor_loop._store
    store._dismissed["acme"] = replace(given, advice=replace(given.advice, new_size=3))
    assert store.find_dismissed("acme", replace(given.advice, new_size=4), 2) is not None
    assert store.find_dismissed("acme", replace(given.advice, new_size=5), 2) is None
