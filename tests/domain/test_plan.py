"""Plans: the steps from a pool's actual state to its desired one, and their effects."""

from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.audit import RECONCILER, AuditEvent
from app.domain.desired_pool import DesiredPool, Pause
from app.domain.plan import (
    ActualPool,
    Effects,
    Plan,
    PlanAction,
    PlanStep,
    plan_close,
    plan_pool,
    plan_record,
    plan_recycle,
)
from app.domain.pool import PoolMetrics, PoolSize
from tests.domain.values import NOON

SMALL = PoolSize(min_size=0, max_size=5)
KEPT = PoolSize(min_size=1, max_size=5)
LARGE = PoolSize(min_size=0, max_size=9)


def connections(idle: int = 0, active: int = 0, waiting: int = 0) -> PoolMetrics:
    return PoolMetrics(
        total_connections=idle + active,
        idle_connections=idle,
        active_connections=active,
        waiting_requests=waiting,
    )


def desired(size: PoolSize = SMALL, *, paused: bool = False) -> DesiredPool:
    pause = Pause(since=NOON, by="ops") if paused else None
    return DesiredPool(pool_id="acme", size=size, pause=pause, generation=1, updated_at=NOON)


def actual(
    size: PoolSize = SMALL, metrics: PoolMetrics | None = None, *, paused: bool = False
) -> ActualPool:
    return ActualPool(size=size, paused=paused, metrics=metrics or connections())


@st.composite
def sizes(draw: st.DrawFn) -> PoolSize:
    max_size = draw(st.integers(1, 6))
    return PoolSize(
        min_size=draw(st.integers(0, max_size)),
        max_size=max_size,
        warmup_size=draw(st.integers(0, max_size)),
    )


targets = st.builds(desired, sizes(), paused=st.booleans())
pools = st.builds(actual, sizes(), paused=st.booleans())


def after(step: PlanStep, pool: ActualPool | None, target: DesiredPool) -> ActualPool:
    """*pool* after executing *step*."""
    assert step.target == "pool acme"
    if step.action is PlanAction.OPEN:
        assert pool is None
        assert step.after == {**asdict(target.size), "paused": target.paused}
        return actual(target.size, paused=target.paused)
    assert pool is not None
    if step.action is PlanAction.RESIZE:
        assert (step.before, step.after) == (asdict(pool.size), asdict(target.size))
        return replace(pool, size=target.size)
    assert step.action in {PlanAction.PAUSE, PlanAction.RESUME}
    return replace(pool, paused=step.action is PlanAction.PAUSE)


def executed(plan: Plan, pool: ActualPool | None, target: DesiredPool) -> ActualPool | None:
    for step in plan.steps:
        pool = after(step, pool, target)
    return pool


@pytest.mark.parametrize(
    ("target", "pool", "actions"),
    [
        (desired(), None, []),
        (desired(paused=True), None, []),
        (desired(KEPT), None, ["open"]),
        (desired(KEPT, paused=True), None, []),
        (desired(), actual(), []),
        (desired(LARGE), actual(), ["resize"]),
        (desired(paused=True), actual(), ["pause"]),
        (desired(), actual(paused=True), ["resume"]),
        (desired(LARGE, paused=True), actual(), ["resize", "pause"]),
        (desired(LARGE), actual(paused=True), ["resize", "resume"]),
    ],
)
def test_the_plan_is_what_differs(
    target: DesiredPool, pool: ActualPool | None, actions: list[str]
) -> None:
    assert [step.action for step in plan_pool(target, pool).steps] == actions


@pytest.mark.parametrize("paused", [False, True])
def test_a_pool_that_is_asked_for_now_is_opened_as_desired(*, paused: bool) -> None:
    target = desired(paused=paused)
    plan = plan_pool(target, None, open_now=True)
    assert executed(plan, None, target) == actual(SMALL, paused=paused)


@given(targets, st.booleans())
def test_a_pool_in_its_desired_state_needs_no_step(target: DesiredPool, open_now: bool) -> None:  # noqa: FBT001
    pool = actual(target.size, paused=target.paused)
    assert plan_pool(target, pool, open_now=open_now) == Plan()


@given(targets, st.none() | pools)
def test_executing_the_plan_makes_the_pool_what_is_desired(
    target: DesiredPool, pool: ActualPool | None
) -> None:
    made = executed(plan_pool(target, pool, open_now=True), pool, target)
    assert made == actual(target.size, paused=target.paused)


@given(targets, st.none() | pools)
def test_once_executed_there_is_nothing_left_to_do(
    target: DesiredPool, pool: ActualPool | None
) -> None:
    assert plan_pool(target, executed(plan_pool(target, pool), pool, target)) == Plan()


@given(targets)
def test_by_itself_only_a_working_pool_that_keeps_connections_is_opened(
    target: DesiredPool,
) -> None:
    assert bool(plan_pool(target, None).steps) == (target.size.min_size > 0 and not target.paused)


@pytest.mark.parametrize(
    ("target", "pool", "opened", "closed"),
    [
        (desired(), None, 1, 0),
        (desired(PoolSize(min_size=3, max_size=5)), None, 3, 0),
        (desired(paused=True), None, 0, 0),
        (desired(), actual(SMALL, connections(2)), 0, 0),
        (desired(PoolSize(max_size=2)), actual(SMALL, connections(3, 1)), 0, 2),
        (desired(LARGE), actual(SMALL, connections(0, 5)), 0, 0),
        (desired(LARGE), actual(SMALL, connections(0, 5, waiting=3)), 3, 0),
        (desired(PoolSize(max_size=6)), actual(SMALL, connections(0, 5, waiting=3)), 1, 0),
        (desired(PoolSize(min_size=4, max_size=5)), actual(SMALL, connections(1)), 3, 0),
        (
            desired(PoolSize(min_size=4, max_size=5), paused=True),
            actual(SMALL, connections(1)),
            0,
            1,
        ),
        (
            desired(PoolSize(min_size=4, max_size=5), paused=True),
            actual(SMALL, paused=True),
            0,
            0,
        ),
        (desired(paused=True), actual(SMALL, connections(2, 1)), 0, 3),
        (desired(), actual(SMALL, paused=True), 0, 0),
    ],
)
def test_steps_have_effects(
    target: DesiredPool, pool: ActualPool | None, opened: int, closed: int
) -> None:
    plan = plan_pool(target, pool, open_now=True)
    assert plan.effects == Effects(connections_opened=opened, connections_closed=closed)


def test_closing_cuts_at_most_the_active_leases_and_warns_of_them_and_of_waiting_callers() -> None:
    plan = plan_close("acme", connections(1, 2, waiting=3), 5.0)
    assert plan.effects == Effects(connections_closed=3, leases_cut=2)
    assert plan.warnings == (
        "Active leases (2) get 5 s to end; after that they are cut.",
        "Waiting callers (3) would be refused.",
    )
    assert plan_close("acme", connections(1, 2), 0.0).warnings == ()


def test_recycling_opens_again_what_is_kept_or_leased() -> None:
    plan = plan_recycle("acme", PoolSize(min_size=1, max_size=5), connections(2, 2))
    assert plan.effects == Effects(connections_opened=2, connections_closed=4)


def test_recording_what_is_recorded_already_is_no_step() -> None:
    event = AuditEvent(at=NOON, actor=RECONCILER, action="pool.paused", after={"paused": True})
    assert plan_record("pool acme", replace(event, before=event.after)) == Plan()
    [step] = plan_record("pool acme", event).steps
    assert (step.action, step.after) == (PlanAction.RECORD, {"paused": True})


def test_plans_add_up() -> None:
    step = PlanStep(action=PlanAction.FORGET, target="tenant acme")
    one = Plan(steps=(step,), effects=Effects(leases_cut=1), warnings=("a",))
    assert one + Plan() == Plan() + one == one
    assert (one + one).effects.leases_cut == 2
