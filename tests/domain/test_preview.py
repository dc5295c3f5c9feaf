"""A preview: what a change would do to connections, reckoned from the pool of this moment."""

import pytest

from app.domain.plan import Open, Pause, Resize, Resume, Step
from app.domain.pool import PoolMetrics, PoolSize
from app.domain.preview import (
    Effects,
    Plan,
    PlanAction,
    PlanStep,
    plan_close,
    plan_of_steps,
    plan_recycle,
)

SMALL = PoolSize(min_size=0, max_size=5)


def pool(idle: int = 0, active: int = 0, waiting: int = 0) -> PoolMetrics:
    return PoolMetrics(
        total_connections=idle + active,
        idle_connections=idle,
        active_connections=active,
        waiting_requests=waiting,
    )


def resize(**after: int) -> Resize:
    return Resize(before=SMALL, after=PoolSize(**after))


@pytest.mark.parametrize(
    ("steps", "now", "opened", "closed"),
    [
        ([], pool(2), 0, 0),
        ([Open(size=SMALL, paused=False)], None, 1, 0),
        ([Open(size=PoolSize(min_size=3, max_size=5), paused=False)], None, 3, 0),
        ([Open(size=SMALL, paused=True)], None, 0, 0),
        ([resize(max_size=2)], pool(3, 1), 0, 2),
        ([resize(max_size=9)], pool(0, 5), 0, 0),
        ([resize(max_size=9)], pool(0, 5, waiting=3), 3, 0),
        ([resize(max_size=6)], pool(0, 5, waiting=3), 1, 0),
        ([resize(min_size=4, max_size=5)], pool(1), 3, 0),
        ([resize(min_size=4, max_size=5), Pause()], pool(1), 0, 1),
        ([Pause()], pool(2, 1), 0, 3),
        ([Resume()], pool(), 0, 0),
    ],
)
def test_steps_have_effects(
    steps: list[Step], now: PoolMetrics | None, opened: int, closed: int
) -> None:
    told = plan_of_steps("acme", steps, now)
    assert told.effects == Effects(connections_opened=opened, connections_closed=closed)
    assert len(told.steps) == len(steps)
    assert {step.target for step in told.steps} <= {"pool acme"}


def test_closing_cuts_at_most_what_is_lent_and_says_who_is_in_for_it() -> None:
    told = plan_close("acme", pool(1, 2, waiting=3), 5.0)
    assert told.effects == Effects(connections_closed=3, leases_cut=2)
    assert [warning.split()[0] for warning in told.warnings] == ["2", "3"]
    assert plan_close("acme", pool(1, 2), 0.0).warnings == ()


def test_recycling_opens_again_what_is_kept_or_lent() -> None:
    told = plan_recycle("acme", PoolSize(min_size=1, max_size=5), pool(2, 2))
    assert told.effects == Effects(connections_opened=2, connections_closed=4)


def test_previews_add_up() -> None:
    step = PlanStep(action=PlanAction.FORGET, target="tenant acme")
    one = Plan(steps=(step,), effects=Effects(leases_cut=1), warnings=("a",))
    assert one + Plan() == Plan() + one == one
    assert (one + one).effects.leases_cut == 2
