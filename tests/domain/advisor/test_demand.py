"""The demand rule: what it recommends to whom, in which words, and the laws it keeps."""

from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.advisor import (
    EVIDENCE,
    Confidence,
    DemandConfig,
    DemandRule,
    PoolObservation,
    PoolSizingRecommendation,
    ReasonCode,
    ScalingAction,
    ServerLoad,
    TrialPhase,
)
from app.domain.advisor.growth_blockers import percent
from app.domain.advisor.lateness import Lateness
from app.domain.errors import InvalidInput
from app.domain.pool import PoolState
from tests.domain.advisor.observations import TICK, histogram, observations, seen

RULE = DemandRule()
ALLOWANCE = RULE.config.burst_allowance
IDLE = {"rate": 0.0}


def recommendations(
    ticks: Iterable[PoolObservation], rule: DemandRule = RULE
) -> list[PoolSizingRecommendation]:
    """The rule's recommendations for one tick after another, 5 seconds apart."""
    memory, advice = rule.initial_memory(), []
    for count, tick in enumerate(ticks, start=1):
        said, memory = rule.advise(memory, replace(tick, at=count * TICK))
        advice.append(said)
    return advice


def last(*ticks: PoolObservation, rule: DemandRule = RULE) -> PoolSizingRecommendation:
    return recommendations(ticks, rule)[-1]


def applied_sizes(size: int, loads: Iterable[dict[str, Any]]) -> list[int]:
    """The sizes of a pool that follows the advice, beginning with *size*."""
    memory, sizes = RULE.initial_memory(), [size]
    for count, load in enumerate(loads, start=1):
        tick = seen(sizes[-1], at=count * TICK, **load)
        advice, memory = RULE.advise(memory, tick)
        sizes.append(advice.new_size)
    return sizes


# --- growing


def test_a_load_that_needs_more_connections_gets_them() -> None:
    advice = last(*[seen(5, rate=40.0, hold=0.2, waiting=3.0, late=20)] * 2)
    assert (advice.action, advice.reason_code) == (
        ScalingAction.SCALE_UP,
        ReasonCode.DEMAND_ABOVE_SIZE,
    )
    assert advice.new_size == advice.wanted == 12
    assert advice.reason == (
        "40 of 400 callers waited over 100 ms or got no connection within the last 10 s. "
        "At 40 leases/s × 201 ms, 5 connections cannot keep up; 12 make under 1 % wait over 100 ms"
    )


def test_each_place_without_callers_adds_a_connection_to_what_the_load_needs() -> None:
    load: dict[str, Any] = {"rate": 40.0, "hold": 0.2, "waiting": 3.0, "late": 20, "active": 5.0}
    advice = last(*[seen(7, idle_places=2, opened=5, **load)] * 2)
    assert (advice.reason_code, advice.new_size) == (ReasonCode.DEMAND_ABOVE_SIZE, 14)
    assert advice.evidence["idle_places"] == 2
    assert advice.reason.endswith(
        " At 40 leases/s × 201 ms, 7 connections, 2 of them at places without callers, cannot keep "
        "up; 14 make under 1 % wait over 100 ms"
    )
    # A load that five connections carry keeps two more.
    light = last(*[seen(20, rate=5.0, hold=0.2, at=0.0, idle_places=2)] * 200)
    usual = last(*[seen(20, rate=5.0, hold=0.2, at=0.0)] * 200)
    assert (light.wanted or 0) == (usual.wanted or 0) + 2


def test_a_size_that_leaves_some_late_says_how_many() -> None:
    advice = last(*[seen(10, rate=40.0, hold=0.2)] * 2)
    assert advice.reason == (
        "At 40 leases/s × 201 ms, 10 connections would make 6 % of callers wait over 100 ms; "
        "12 make under 1 % wait"
    )
    assert advice.expected is not None
    assert advice.expected.late_share_before == pytest.approx(0.06, abs=0.01)
    assert advice.expected.late_share_after is not None
    assert advice.expected.late_share_after < 0.01
    assert (advice.expected.connections_before, advice.expected.connections_after) == (10, 12)


def test_a_size_above_what_the_load_needs_says_why() -> None:
    late: dict[str, Any] = {"rate": 40.0, "hold": 0.2, "waiting": 3.0, "late": 20}
    saturated_pool, other = (last(*[seen(10, active=busy, **late)] * 2) for busy in (10.0, None))
    assert saturated_pool.reason_code is other.reason_code is ReasonCode.DEMAND_ABOVE_SIZE
    assert (saturated_pool.new_size, other.new_size) == (13, 20)
    because = "includes 1 more because callers were late repeatedly"
    assert saturated_pool.reason.endswith(
        f" are too few; 12 make under 1 % wait over 100 ms; 13 {because}"
    )
    assert other.reason.endswith(
        f" are too few; 12 make under 1 % wait over 100 ms; 20 {because}, and 7 for bursts"
    )


def test_a_single_connection_is_too_few() -> None:
    late = seen(1, rate=8.0, hold=0.05, active=1.0, waiting=3.0, late=20)
    assert " 1 connection is too few; " in last(late, late).reason


def test_a_step_is_followed_in_at_most_three_ticks() -> None:
    quiet: dict[str, Any] = {"rate": 10.0, "hold": 0.15}
    busy: dict[str, Any] = {"rate": 100.0, "hold": 0.15}
    sizes = applied_sizes(6, [quiet] * 60 + [busy] * 60)
    settled = sizes[-1]
    assert 21 * 3 <= settled <= 21 * 5
    assert all(abs(size - settled) <= 0.1 * settled for size in sizes[63:])


def test_what_the_load_needs_is_granted_at_once_and_room_for_bursts_by_doubling() -> None:
    quiet: dict[str, Any] = {"rate": 10.0}
    advice = last(*[seen(3, **quiet)] * 10, seen(3, rate=400.0, waiting=900.0))
    assert advice.reason_code is ReasonCode.DEMAND_ABOVE_SIZE
    assert advice.new_size == advice.evidence["needed_size"]
    assert advice.new_size > 10 * 3
    sizes = applied_sizes(3, [quiet] * 10)
    assert all(after <= 2 * before for before, after in pairwise(sizes))
    assert sizes[1:4] == [6, 12, 23]


def test_leases_that_slow_each_other_down_make_the_steps_small() -> None:
    light = [seen(20, rate=20.0, hold=0.1)] * 10
    slow = [saturated(20, 1000, 0.2)] * 14
    advice = last(*light, *slow)
    assert (advice.action, advice.new_size) == (ScalingAction.SCALE_UP, 25)


def test_late_callers_get_more_even_if_the_forecast_disagrees() -> None:
    late = seen(25, rate=40.0, late=10, waiting=2.0)
    first, second = recommendations([late, late])
    assert (first.action, second.action) == (ScalingAction.STABLE, ScalingAction.SCALE_UP)
    assert (second.reason_code, second.wanted) == (ReasonCode.LATE_WAITS, 29)
    assert second.reason.startswith("5 % of the last 200 callers waited over 100 ms")
    assert second.reason.endswith("; growing from 25 to 50 connections, of which 21 are for bursts")


@pytest.mark.parametrize(
    "facts",
    [{"rate": 0.2, "late": 1}, {"rate": 4.0, "late": 20, "mean_open": 2.0, "opened": 2}],
    ids=["one caller", "not all that it may have were open"],
)
def test_who_waits_for_a_login_would_wait_at_any_size(facts: dict[str, Any]) -> None:
    """The first callers of a pool, or of a tenant on a node, wait until a connection is open."""
    busy, cold = seen(7, rate=20.0, hold=0.01), seen(7, hold=0.01, **facts)
    for advice in recommendations([busy, busy, cold, cold, cold]):
        assert advice.reason_code is ReasonCode.ROOM_FOR_BURSTS
        assert advice.evidence["needed_size"] == 1


def test_as_long_as_callers_who_got_nothing_are_in_the_window_the_reason_says_so() -> None:
    """Twenty long statements on eight connections: twelve time out, and eight finish."""
    long: dict[str, Any] = {"hold": 25.0, "released": 0, "hold_times": histogram(), "active": 8.0}
    begun = seen(8, rate=4.0, waiting=12.0, acquired=8, wait=histogram((0.0, 8)), **long)
    timed_out = seen(8, timeouts=12, **long)
    advice = recommendations([begun, timed_out, *[seen(8, **long)] * 70])
    for each in advice[1:58]:
        assert each.reason.startswith(
            "12 of 20 callers waited over 100 ms or got no connection within the last "
        )
        assert each.evidence["late_share"] == 0.6
        assert "carry the load" not in each.reason
    grown = advice[5]
    assert (grown.reason_code, grown.new_size) == (ReasonCode.ROOM_FOR_BURSTS, 16)
    assert grown.reason.endswith(
        " within the last 30 s. A limit of 16 absorbs more of such bursts, and unused connections "
        "are not opened"
    )
    assert grown.expected is not None
    assert grown.expected.late_share_before == 0.6
    assert advice[-1].evidence["late_share"] == 0.0
    assert "got no connection" not in advice[-1].reason


def test_a_pool_whose_callers_all_come_in_time_is_not_said_to_make_them_wait() -> None:
    """Short statements at 100 per second after four of 15 s."""
    long: dict[str, Any] = {"released": 0, "hold_times": histogram(), "active": 4.0}
    ended = histogram((15.0, 4), (0.002, 500))
    ending = seen(5, rate=100.0, hold_times=ended, active=2.2, opened=5)
    brief = seen(5, rate=100.0, hold=0.002)
    advice = recommendations([seen(5, rate=0.8, **long), ending, *[brief] * 30])
    assert not any("cannot" in each.reason for each in advice)
    for each in advice[2:]:
        assert each.reason_code is not ReasonCode.DEMAND_ABOVE_SIZE
        assert each.evidence["needed_size"] == 1


def test_one_late_tick_of_three_is_forgiven() -> None:
    fine, late = seen(25, rate=40.0), seen(25, rate=40.0, late=10, waiting=2.0)
    advice = recommendations([late, fine, fine, late, fine, fine, late])
    assert {each.action for each in advice} == {ScalingAction.STABLE}


def test_a_short_queue_gets_a_short_step() -> None:
    late = seen(40, rate=40.0, late=10, waiting=0.4)
    assert last(late, late).wanted == 41


def test_waiting_for_disks_makes_the_steps_small() -> None:
    disks = ServerLoad(samples=3, io_share=0.8)
    advice = last(*[seen(8, rate=300.0, waiting=9.0, server=disks)] * 2)
    assert (advice.action, advice.new_size) == (ScalingAction.SCALE_UP, 10)


def test_a_load_that_is_carried_still_gets_room_for_bursts() -> None:
    advice = last(*[seen(14, rate=40.0, hold=0.2)] * 2)
    assert (advice.action, advice.reason_code) == (
        ScalingAction.SCALE_UP,
        ReasonCode.ROOM_FOR_BURSTS,
    )
    assert (advice.new_size, advice.wanted) == (28, 12)
    assert advice.evidence["burst_allowance"] == 4 * 12
    assert advice.reason == (
        "14 connections carry the load, of which it needs 12; a limit of 28 leaves room for "
        "bursts, and unused connections are not opened"
    )
    just_enough = last(*[seen(12, rate=40.0, hold=0.2)] * 2)
    assert just_enough.reason.startswith("12 connections carry the load, but leave none for bursts")


@pytest.mark.parametrize(
    "facts",
    [
        {"max_allowed": 14},
        {"server": ServerLoad(samples=3, lock_share=0.5)},
        {"active": 13.5, "waiting": 0.5},
        {"late": 9},
        {"size": 12 + 4 * 12 // 2},
    ],
    ids=["at its maximum", "growing would not help", "saturated", "callers late", "half is left"],
)
def test_room_for_bursts_is_not_asked_for_where(facts: dict[str, Any]) -> None:
    fine = seen(14, rate=40.0, hold=0.2, max_allowed=14)
    tick = seen(**({"size": 14, "rate": 40.0, "hold": 0.2} | facts))
    assert last(fine, tick).reason_code is ReasonCode.SIZE_FITS


def test_the_room_is_larger_for_a_larger_load() -> None:
    rooms = {rate: last(*[seen(90, rate=rate)] * 3).evidence for rate in (10.0, 400.0)}
    assert rooms[10.0]["burst_allowance"] == ALLOWANCE
    needed = rooms[400.0]["needed_size"]
    assert needed is not None
    assert rooms[400.0]["burst_allowance"] == 4 * needed


def test_growth_of_a_pool_whose_callers_are_on_time_has_no_room_for_bursts() -> None:
    late, on_time = (last(*[seen(10, rate=40.0, hold=0.2, late=count)] * 2) for count in (20, 0))
    assert late.reason_code is on_time.reason_code is ReasonCode.DEMAND_ABOVE_SIZE
    assert on_time.new_size == on_time.wanted == 12
    assert late.new_size == 20
    assert late.reason.endswith(
        " are too few; 12 make under 1 % wait over 100 ms; 20 includes 8 for bursts"
    )


def test_longer_leases_under_load_get_no_room_for_bursts_and_lose_none() -> None:
    """Otherwise a few long leases would make the advice swing between no room and full room."""
    light = [seen(40, rate=20.0, hold=0.1)] * 30
    advice = last(*light, *[seen(32, rate=90.0, hold=0.3)] * 80)
    assert advice.reason_code is not ReasonCode.ROOM_FOR_BURSTS
    assert advice.action is not ScalingAction.SCALE_DOWN


def test_without_an_allowance_the_size_is_what_the_load_needs() -> None:
    bare = DemandRule(DemandConfig(burst_allowance=0, burst_share=0.0))
    assert last(*[seen(10, rate=40.0, hold=0.2)] * 2, rule=bare).new_size == 12
    assert last(*[seen(14, rate=40.0, hold=0.2)] * 2, rule=bare).action is ScalingAction.STABLE


def test_a_pool_at_its_maximum_says_so() -> None:
    advice = last(*[seen(10, rate=300.0, waiting=9.0, max_allowed=10)] * 2)
    assert (advice.action, advice.reason_code) == (ScalingAction.STABLE, ReasonCode.AT_MAXIMUM)


def test_a_maximum_below_the_size_is_kept() -> None:
    advice = last(seen(20, rate=10.0, max_allowed=12))
    assert (advice.action, advice.new_size) == (ScalingAction.SCALE_DOWN, 12)


def test_a_smaller_limit_is_not_expected_to_make_fewer_callers_late() -> None:
    """With max_leases 1 the other four connections served nobody."""
    advice = last(*[seen(5, rate=1.0, hold=0.6, late=4, max_allowed=1)] * 2)
    assert advice.new_size == 1
    assert advice.expected is not None
    assert advice.expected.late_share_before == 0.8
    assert advice.expected.late_share_after == 0.8


def test_a_share_too_small_to_matter_is_not_written_out() -> None:
    advice = last(*[seen(10, rate=20.0, hold=0.05, late=20)] * 2)
    assert advice.expected is not None
    assert 0.0 < (advice.expected.late_share_after or 0.0) < 1e-9
    assert percent(advice.expected.late_share_after or 0.0) == "under 0.1 %"
    assert [percent(share) for share in (0.0, 0.001, 0.004, 0.062)] == [
        *("0 %", "0.1 %", "0.4 %", "6 %"),
    ]


# --- not growing


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        ({"leak_suspects": 2}, ReasonCode.LEAK_SUSPECTED),
        ({"server": ServerLoad(samples=3, cores=4, running=6.0)}, ReasonCode.CPU_BOUND),
        ({"server": ServerLoad(samples=3, lock_share=0.5)}, ReasonCode.LOCK_CONTENTION),
        (
            {"server": ServerLoad(samples=3, idle_in_transaction_share=0.5)},
            ReasonCode.IDLE_IN_TRANSACTION,
        ),
        ({"server": ServerLoad(samples=3, client_write_share=0.5)}, ReasonCode.SLOW_READER),
    ],
)
def test_where_growing_would_not_help_it_says_why(facts: dict[str, Any], code: ReasonCode) -> None:
    advice = last(*[seen(5, rate=40.0, hold=0.2, waiting=3.0, **facts)] * 2)
    assert (advice.action, advice.reason_code) == (ScalingAction.STABLE, code)
    assert "Growing from 5 to 12 would not help: " in advice.reason


@pytest.mark.parametrize(("waiting", "is_said"), [(3.0, True), (0.0, False)])
def test_where_the_size_fits_it_says_what_else_callers_wait_for(
    waiting: float, *, is_said: bool
) -> None:
    locked = ServerLoad(samples=3, lock_share=0.5)
    advice = last(*[seen(12, rate=40.0, hold=0.2, waiting=waiting, server=locked)] * 2)
    assert advice.reason_code is ReasonCode.SIZE_FITS
    why = "; 50 % of the database's active connections wait for locks"
    assert (why in advice.reason) is is_said


@pytest.mark.parametrize(
    "facts",
    [
        {"state": PoolState.PAUSED},
        {"connect_failures": 3},
        {"loop_lag_seconds": 0.2},
        {"mean_open": 2.0, "opened": 2, "active": 2.0, "waiting": 5.0},
    ],
)
def test_where_the_observation_says_nothing_it_keeps_the_size(facts: dict[str, Any]) -> None:
    grows = {"rate": 40.0, "hold": 0.2, "waiting": 3.0}
    for load in (grows, IDLE):
        advice = last(*[seen(9, **(load | facts))] * 80)
        assert (advice.action, advice.confidence) == (ScalingAction.STABLE, Confidence.LOW)


def test_too_few_callers_prove_nothing() -> None:
    advice = last(seen(2, rate=3.0, hold=2.0, waiting=4.0))
    assert (advice.action, advice.reason_code) == (ScalingAction.STABLE, ReasonCode.TOO_FEW_EVENTS)
    assert advice.confidence is Confidence.LOW


def test_a_busy_cpu_does_not_keep_what_is_not_needed() -> None:
    cpu = ServerLoad(samples=3, cores=1, running=9.0)
    assert last(*[seen(40, rate=10.0, server=cpu)] * 80).action is ScalingAction.SCALE_DOWN


# --- shrinking


def test_a_peak_is_kept_for_the_window_and_then_given_back_bit_by_bit() -> None:
    busy, quiet = {"rate": 200.0}, {"rate": 20.0}
    sizes = applied_sizes(20, [busy] * 80 + [quiet] * 150)
    peak = sizes[80]
    assert peak > 20
    assert set(sizes[80:139]) == {peak}
    assert sizes[-1] == 4 + ALLOWANCE
    for before, after in zip(sizes, sizes[12:], strict=False):
        assert after >= before - max(2, int(0.25 * before))


def test_a_size_a_little_too_large_is_left_alone() -> None:
    first = last(*[seen(50, rate=80.0)] * 80)
    needed = first.evidence["needed_size"]
    assert isinstance(needed, int)
    room = 4 * needed
    assert first.evidence["burst_allowance"] == room
    enough = needed + room
    *_, advice = recommendations([seen(enough + 4, rate=80.0)] * 80)
    assert (advice.action, advice.reason_code) == (ScalingAction.STABLE, ReasonCode.SIZE_FITS)
    assert advice.reason.endswith(f"which needs {needed}, and leave {room} for bursts")
    advice = last(*[seen(enough + 8, rate=80.0)] * 80)
    assert (advice.action, advice.new_size) == (ScalingAction.SCALE_DOWN, enough)
    assert f" of {enough + 8} connections, plus {room} for bursts; " in advice.reason
    assert advice.reason.endswith("; reduce by 8")


def test_an_idle_pool_gives_back_all_but_one_and_the_allowance_for_what_comes_rarely() -> None:
    assert applied_sizes(60, [IDLE] * 300)[-1] == 1 + ALLOWANCE


@pytest.mark.parametrize("connect", [None, 0.005, 0.15])
def test_what_the_load_needs_stays_open_whatever_a_connect_costs(connect: float | None) -> None:
    advice = last(seen(50, rate=40.0, hold=0.2, mean_connect=connect))
    assert advice.idle_seconds == RULE.config.idle_seconds
    assert advice.warm_size == advice.evidence["needed_size"] == 12
    assert last(seen(50)).warm_size == 0


def test_connections_that_cannot_be_replaced_are_kept() -> None:
    assert last(seen(5, rate=20.0, connect_failures=1)).idle_seconds is None


def test_long_leases_in_use_are_kept() -> None:
    held = {"rate": 0.0, "active": 7.0}
    size = applied_sizes(60, [{"rate": 40.0}] * 10 + [held] * 300)[-1]
    assert 8 + 4 * 7 <= size <= 9 + 4 * 7


def test_silence_of_a_new_pool_means_nothing_before_the_window_is_over() -> None:
    advice = recommendations([seen(60)] * 60)
    assert {each.reason_code for each in advice[:50]} == {ReasonCode.TOO_FEW_EVENTS}
    assert advice[-1].action is ScalingAction.SCALE_DOWN


def test_a_pool_does_not_shrink_while_callers_wait() -> None:
    quiet = [seen(80, rate=20.0)] * 61
    assert last(*quiet).action is ScalingAction.SCALE_DOWN
    advice = last(*quiet, seen(80, rate=20.0, waiting=76.0))
    assert (advice.action, advice.reason_code) == (ScalingAction.STABLE, ReasonCode.RECENT_PEAK)
    assert advice.reason.endswith(
        " of 80 connections would carry the load, but 76 callers waited a moment ago; "
        "it shrinks while nobody waits"
    )


# --- trials


def saturated(size: int, released: int, hold: float) -> PoolObservation:
    return seen(
        size,
        rate=200.0,
        active=size,
        waiting=20.0,
        late=900,
        released=released,
        hold=hold,
    )


def test_a_growth_into_a_strained_database_is_measured_tried_and_undone() -> None:
    light = [seen(10, rate=20.0, hold=0.1)] * 10
    advice = recommendations([*light, *[saturated(20, 550, 0.2)] * 14])
    pending = advice[-14:]
    codes = [each.reason_code for each in pending]
    assert ReasonCode.TRIAL_PENDING in codes
    proposed = pending[-1]
    assert (proposed.action, proposed.trial) == (ScalingAction.SCALE_UP, TrialPhase.PROPOSED)
    after = recommendations(
        [*light, *[saturated(20, 550, 0.2)] * 14]
        + [saturated(proposed.new_size, 550, 0.25)] * 3
        + [saturated(20, 550, 0.2)] * 5
    )[-8:]
    assert [each.reason_code for each in after[:2]] == [ReasonCode.TRIAL_RUNNING] * 2
    assert {each.trial for each in after[:2]} == {TrialPhase.RUNNING}
    undone, *held = after[2:]
    assert (undone.reason_code, undone.new_size) == (ReasonCode.GROWTH_UNDONE, 20)
    assert {each.reason_code for each in held} == {ReasonCode.CEILING_AFTER_TRIAL}
    assert undone.evidence["elasticity"] == pytest.approx(0.0, abs=1e-9)
    assert undone.reason.endswith(
        ". 25 connections do not pay: 110 leases/s with 20, 110 with 25; "
        "returning to 20 as leases end"
    )


LIGHT = [seen(10, rate=20.0, hold=0.1)] * 10
SLOWED = [*LIGHT, *[saturated(30, 300, 0.5)] * 4]


def test_a_pool_far_past_the_knee_shrinks_to_it_on_trial() -> None:
    """30 connections end 60 leases/s, of 0.5 s instead of 0.1 s: 30 / sqrt(5 - 1) = 15."""
    advice = last(*SLOWED)
    assert (advice.action, advice.new_size) == (ScalingAction.SCALE_DOWN, 15)
    assert (advice.reason_code, advice.trial) == (ReasonCode.PAST_KNEE, TrialPhase.PROPOSED)
    assert advice.confidence is Confidence.MEDIUM
    assert advice.reason.endswith(
        ". 30 connections end 60 leases/s, so each takes 500 ms instead of 101 ms under light "
        "load; 15 should end more"
    )


SLEEPING = {"running": 0.4, "samples": 10}


@pytest.mark.parametrize(
    ("load", "has_knee"),
    [
        (SLEEPING | {"cores": 2}, False),
        (SLEEPING, False),
        (SLEEPING | {"cores": 2, "running": 2.5}, True),
        (SLEEPING | {"running": 20.0}, True),
        (SLEEPING | {"cores": 2, "lock_share": 0.6}, True),
        (SLEEPING | {"io_share": 0.6}, True),
        ({"cores": 2}, True),
    ],
)
def test_leases_that_take_longer_are_a_knee_only_where_the_database_may_be_why(
    load: dict[str, Any], *, has_knee: bool
) -> None:
    """A burst of statements that only sleep takes longer than the quick ones before it."""
    slowed = [replace(each, server=ServerLoad(**load)) for each in SLOWED]
    assert (last(*slowed).action is ScalingAction.SCALE_DOWN) is has_knee


def test_a_few_leases_under_light_load_are_no_measure_of_a_knee() -> None:
    few = seen(10, rate=0.2, hold=0.1)
    assert last(*[few] * 10, *SLOWED[-4:]).action is not ScalingAction.SCALE_DOWN
    assert last(*[few] * 30, *SLOWED[-4:]).action is ScalingAction.SCALE_DOWN


def test_fewer_connections_that_end_more_become_the_ceiling() -> None:
    after = recommendations([*SLOWED, *[saturated(15, 450, 0.17)] * 5])[-5:]
    codes = [advice.reason_code for advice in after]
    assert codes == [ReasonCode.TRIAL_RUNNING] * 2 + [ReasonCode.CEILING_AFTER_TRIAL] * 3
    assert (
        ". 30 connections do not pay: 90 leases/s with 15, 60 with 30; staying at 15 for "
        in after[-1].reason
    )


def test_leases_that_are_slow_by_themselves_get_their_connections_back() -> None:
    """As many at a time end half as many: the work has changed, the database is not slow."""
    after = recommendations([*SLOWED, *[saturated(15, 150, 0.5)] * 4])[-4:]
    assert after[1].reason_code is ReasonCode.TRIAL_RUNNING
    assert after[-1].action is ScalingAction.SCALE_UP
    assert after[-1].new_size >= 30


# --- the pool could not lend


@pytest.mark.parametrize(
    "why", [{"interrupted": True}, {"state": PoolState.PAUSED}, {"connect_failures": 3}]
)
def test_waits_while_the_pool_could_not_lend_are_no_reason_to_grow(why: dict[str, Any]) -> None:
    calm, crowd = seen(5, rate=8.0), seen(5, rate=60.0, waiting=9.0, late=280, timeouts=20, **why)
    during, *after = recommendations([*[calm] * 10, crowd, *[calm] * 3])[-4:]
    assert during.action is ScalingAction.STABLE
    for advice in after:
        is_room = advice.reason_code is ReasonCode.ROOM_FOR_BURSTS
        assert is_room or advice.action is not ScalingAction.SCALE_UP
        assert advice.evidence["late_share"] == 0.0
        assert "waited over" not in advice.reason
    without = recommendations([calm] * 13)[-1]
    assert after[-1].evidence["needed_size"] == without.evidence["needed_size"]


# --- laws


histories = st.integers(1, 80).flatmap(
    lambda size: st.lists(observations() | observations(size), min_size=1, max_size=12)
)


@given(histories)
def test_it_keeps_every_law_whatever_it_sees(ticks: list[PoolObservation]) -> None:
    for tick, advice in zip(ticks, recommendations(ticks), strict=True):
        assert advice.current_size == tick.max_size
        assert max(1, tick.min_size) <= advice.new_size <= tick.max_allowed
        sign = (advice.new_size > tick.max_size) - (advice.new_size < tick.max_size)
        assert (
            advice.action
            is [ScalingAction.STABLE, ScalingAction.SCALE_UP, ScalingAction.SCALE_DOWN][sign]
        )
        in_use = min(tick.metrics.active_connections, tick.max_size)
        may_shrink = advice.reason_code in {ReasonCode.GROWTH_UNDONE, ReasonCode.PAST_KNEE}
        assert advice.new_size >= in_use or may_shrink
        assert advice.wanted is not None
        assert 0 <= advice.wanted <= tick.max_allowed
        assert (advice.expected is None) == (advice.action is ScalingAction.STABLE)
        assert advice.evidence.keys() <= EVIDENCE.keys()
        assert advice.reason
        late = Lateness.of(tick, RULE.config.patience_seconds)
        could_lend = tick.state is PoolState.READY and not (
            tick.interrupted or tick.connect_failures
        )
        if late.late and could_lend:
            assert "or got no connection" in advice.reason
            assert (advice.evidence["late_share"] or 0.0) > 0.0
        assert "\n" not in advice.reason


@given(histories)
def test_the_same_input_gets_the_same_output(ticks: list[PoolObservation]) -> None:
    assert recommendations(ticks) == recommendations(ticks)


@given(histories, st.integers(1, 80))
def test_an_idle_pool_never_grows(ticks: list[PoolObservation], size: int) -> None:
    assert recommendations([*ticks, seen(size)])[-1].action is not ScalingAction.SCALE_UP


@given(st.floats(1.0, 300.0), st.floats(1.0, 300.0), st.floats(0.01, 1.0))
def test_more_demand_never_lowers_the_feed_forward_size(
    rate: float, more: float, hold: float
) -> None:
    fewer, busier = (
        last(
            *[seen(50, rate=each, hold=hold, waiting=max(0.0, each * hold - 50), max_allowed=1000)]
            * 5
        ).evidence["needed_size"]
        for each in (rate, rate + more)
    )
    assert fewer is not None
    assert busier is not None
    assert busier >= fewer


@pytest.mark.parametrize("rate", [5.0, 20.0, 60.0, 150.0])
def test_a_steady_load_comes_to_rest(rate: float) -> None:
    sizes = applied_sizes(5, [{"rate": rate, "hold": 0.15}] * 200)
    assert len(set(sizes[120:])) == 1


# --- values


@pytest.mark.parametrize(
    ("values", "culprit"),
    [
        ({"patience_seconds": 0.0}, "patience_seconds"),
        ({"late_share": 0.0}, "late_share"),
        ({"late_share": 1.5}, "late_share"),
        ({"rate_smoothing": float("nan")}, "rate_smoothing"),
        ({"rate_margin": -1.0}, "rate_margin"),
        ({"hold_inflation": 0.9}, "hold_inflation"),
        ({"late_ticks": 0}, "late_ticks"),
        ({"late_ticks": 4}, "late_ticks"),
        ({"max_growth": 1.0}, "max_growth"),
        ({"burst_share": -1.0}, "burst_share"),
        ({"window_seconds": 0.0}, "window_seconds"),
        ({"shrink_share": -0.1}, "shrink_share"),
        ({"burst_allowance": -1}, "burst_allowance"),
        ({"dead_band": 1.1}, "dead_band"),
    ],
)
def test_values_the_rule_cannot_work_with_are_refused_by_name(
    values: dict[str, Any], culprit: str
) -> None:
    with pytest.raises(InvalidInput, match=culprit):
        DemandConfig(**values)


def test_other_targets_need_other_sizes() -> None:
    tick = seen(5, rate=40.0, hold=0.2, waiting=3.0)
    strict = last(
        tick, tick, rule=DemandRule(DemandConfig(patience_seconds=0.001, late_share=0.001))
    )
    loose = last(tick, tick, rule=DemandRule(DemandConfig(patience_seconds=0.5, late_share=0.1)))
    assert loose.wanted is not None
    assert strict.wanted is not None
    assert loose.wanted < 12 < strict.wanted
