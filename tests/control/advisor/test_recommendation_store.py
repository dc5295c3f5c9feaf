"""Which advice supersedes an open recommendation: a person may be about to apply it."""

from dataclasses import replace

import pytest

from app.domain.advisor import ReasonCode
from app.domain.advisor.sizing_recommendation import ScalingAction
from tests.catalog.values import recommendation
from tests.fixtures.control import Control

QUEUE, LATE = ReasonCode.QUEUE_ABOVE_TARGET, ReasonCode.LATE_WAITS


@pytest.mark.parametrize(
    ("before", "made", "now", "reason", "stays"),
    [
        pytest.param(2, 4, 3, QUEUE, True, id="one less"),
        pytest.param(2, 4, 5, LATE, True, id="one more"),
        pytest.param(2, 4, 6, QUEUE, False, id="two more"),
        pytest.param(30, 50, 55, LATE, True, id="a tenth more"),
        pytest.param(30, 50, 56, QUEUE, False, id="over a tenth more"),
        pytest.param(14, 28, 18, QUEUE, True, id="less growth for the same reason"),
        pytest.param(14, 28, 18, LATE, False, id="less growth for another reason"),
        pytest.param(60, 40, 50, QUEUE, False, id="less of a cut"),
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


async def test_a_size_of_one_more_than_the_dismissed_one_is_dismissed_too(control: Control) -> None:
    given = recommendation(max_size=2)
    store = control.advisor_loop._store
    store._dismissed["acme"] = replace(given, advice=replace(given.advice, new_size=3))
    assert store.find_dismissed("acme", replace(given.advice, new_size=4), 2) is not None
    assert store.find_dismissed("acme", replace(given.advice, new_size=5), 2) is None
