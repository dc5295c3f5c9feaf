"""An operation: its plan changes nothing, and its execution follows a plan made under the lock."""

from functools import partial

import pytest

from app.control.keyed_locks import KeyedLocks
from app.control.operation import Operation, PlanFor
from app.domain.errors import PoolNotFound
from app.domain.plan import Effects, Plan, PlanAction, plan_step


class Counter:
    """A number that operations increment."""

    def __init__(self) -> None:
        self.locks = KeyedLocks()
        self.value = 0

    def count_up(self) -> Operation[int, int]:
        async def plan() -> PlanFor[int]:
            if self.value > 1:
                raise PoolNotFound
            step = plan_step(PlanAction.RECORD, f"counter {self.value + 1}")
            return PlanFor.of(self.value, step, Plan(effects=Effects(leases_cut=1)))

        async def execute(plan: PlanFor[int]) -> int:
            assert self.locks.is_held("counter")
            self.value = plan.subject + 1
            return self.value

        return Operation(plan=plan, execute=execute, lock=partial(self.locks.hold, "counter"))


async def test_planning_changes_nothing() -> None:
    counter = Counter()
    for _ in range(3):
        plan = await counter.count_up().plan()
        assert [step.target for step in plan.steps] == ["counter 1"]
        assert plan.effects == Effects(leases_cut=1)
    assert counter.value == 0


async def test_awaiting_an_operation_plans_again_and_executes_under_the_lock() -> None:
    counter = Counter()
    first, second = counter.count_up(), counter.count_up()
    assert [await first, await second] == [1, 2]
    assert not counter.locks.is_held("counter")


async def test_what_refuses_the_plan_refuses_the_execution() -> None:
    counter = Counter()
    counter.value = 2
    with pytest.raises(PoolNotFound):
        await counter.count_up().plan()
    with pytest.raises(PoolNotFound):
        await counter.count_up()
    assert counter.value == 2
