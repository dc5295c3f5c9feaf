"""Which advice contradicts an earlier recommendation."""

import pytest

from app.domain.advisor import PoolSizingRecommendation, ReasonCode
from app.domain.advisor.sizing_recommendation import ScalingAction

LATE, BUDGET, FITS = ReasonCode.LATE_WAITS, ReasonCode.SERVER_BUDGET, ReasonCode.SIZE_FITS


def advice(new_size: int, code: ReasonCode) -> PoolSizingRecommendation:
    """Advice about a pool of 5."""
    return PoolSizingRecommendation(
        action=ScalingAction.between(5, new_size),
        current_size=5,
        new_size=new_size,
        reason_code=code,
        reason="",
    )


@pytest.mark.parametrize(
    ("made", "now", "reason", "contradicts"),
    [
        pytest.param(10, 10, LATE, False, id="the same"),
        pytest.param(10, 7, BUDGET, False, id="less growth"),
        pytest.param(10, 3, BUDGET, True, id="a cut instead of growth"),
        pytest.param(10, 5, BUDGET, True, id="the budget allows no growth"),
        pytest.param(10, 5, ReasonCode.OPEN_BELOW_TARGET, True, id="not all could be opened"),
        pytest.param(10, 5, ReasonCode.AT_MAXIMUM, True, id="max_leases is reached"),
        pytest.param(10, 5, ReasonCode.CPU_BOUND, True, id="the database is busy"),
        pytest.param(10, 5, FITS, False, id="nothing is asked for now"),
        pytest.param(10, 5, ReasonCode.LOOP_LAG, False, id="nothing is known"),
        pytest.param(10, 5, ReasonCode.HELD_FOR_TRIAL, False, id="growth later"),
        pytest.param(3, 10, LATE, True, id="growth instead of a cut"),
        pytest.param(3, 5, ReasonCode.OPEN_BELOW_TARGET, False, id="no growth beside a cut"),
    ],
)
def test_advice_contradicts_a_growth_that_would_not_help_and_every_change_of_the_other_way(
    made: int, now: int, reason: ReasonCode, *, contradicts: bool
) -> None:
    assert advice(now, reason).contradicts(advice(made, LATE)) is contradicts


def test_a_part_on_nodes_without_new_callers_has_no_share_of_them() -> None:
    found = advice(10, LATE)
    assert "0 %" not in found.with_estimated(0.001, 4.0).reason
    assert "60 % of the latest callers" in found.with_estimated(0.6, 4.0).reason
