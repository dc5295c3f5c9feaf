"""The budget's laws under every sequence of claims: never overdrawn, and nobody forgotten."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from app.pools.budget import is_small_claim, max_reserved
from tests.pools.budget_client import Pool, TimedBudget

# Enough for a reserve of two: one idle connection, and one place that stays free.
LIMITS = st.sampled_from([0, 1, 2, 3, 5, 8, 12, 16])


class BudgetMachine(RuleBasedStateMachine):
    """Every sequence of asking, connecting, giving back and closing among four pools."""

    pools: list[Pool]
    numbers = st.integers(0, 3)

    @initialize(limit=LIMITS)
    def begin(self, limit: int) -> None:
        self.budget = TimedBudget(limit)
        self.highest = limit
        self.pools = [
            Pool("plain", self.budget),
            Pool("heavy", self.budget, weight=3),
            Pool("kept", self.budget, min_size=2),
            Pool("light", self.budget, weight=2),
        ]
        for pool in self.pools:
            pool.dispatch()

    def chosen(self, data: st.DataObject, what: str) -> Pool | None:
        able = [pool for pool in self.pools if getattr(pool, what)]
        return data.draw(st.sampled_from(able), label=what) if able else None

    @rule(number=numbers, callers=st.integers(1, 8))
    def ask(self, number: int, callers: int) -> None:
        if self.pools[number].works:
            self.pools[number].ask(callers)

    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        if pool := self.chosen(data, "waiting"):
            pool.waiting -= 1
            pool.dispatch()

    @rule(data=st.data())
    def connect(self, data: st.DataObject) -> None:
        if pool := self.chosen(data, "connecting"):
            pool.connect()

    @rule(data=st.data())
    def connect_in_vain(self, data: st.DataObject) -> None:
        if pool := self.chosen(data, "connecting"):
            pool.connect_in_vain()

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        if not (pool := self.chosen(data, "leased")):
            return
        pool.leased -= 1
        if self.budget.must_yield(pool):
            mine = pool.share_after(0)
            others = [other.share_after(0) for other in self.pools if other is not pool]
            assert mine is not None
            least = min((share for share in others if share is not None), default=mine)
            promised = self.budget.limit - self.budget.used + sum(p.closing for p in self.pools)
            assert least < mine or (promised < 1 and not is_small_claim(mine))
        pool.leased += 1
        pool.release()

    @rule(data=st.data())
    def break_down(self, data: st.DataObject) -> None:
        if pool := self.chosen(data, "leased"):
            pool.leased -= 1
            pool.begin_close()
            pool.dispatch()

    @rule(data=st.data())
    def expire(self, data: st.DataObject) -> None:
        if pool := self.chosen(data, "idle"):
            pool.idle -= 1
            pool.begin_close()
            pool.dispatch()

    @rule(data=st.data())
    def close_one(self, data: st.DataObject) -> None:
        if pool := self.chosen(data, "closing"):
            pool.close_one()

    @rule(number=numbers, max_size=st.integers(2, 8))
    def resize(self, number: int, max_size: int) -> None:
        pool = self.pools[number]
        pool.max_size = max_size
        while pool.idle and pool.live + pool.connecting > max_size:
            pool.idle -= 1
            pool.begin_close()
        pool.dispatch()

    @rule(number=numbers)
    def close_pool(self, number: int) -> None:
        pool = self.pools[number]
        pool.works, pool.waiting = False, 0
        while pool.idle:
            pool.idle -= 1
            pool.begin_close()
        self.budget.forget(pool)

    @rule(number=numbers)
    def open_pool(self, number: int) -> None:
        if not self.pools[number].works:
            self.pools[number].works = True
            self.pools[number].dispatch()

    @rule(limit=LIMITS)
    def change_limit(self, limit: int) -> None:
        self.budget.set_limit(limit)
        self.highest = max(limit, self.budget.used)

    @rule(seconds=st.sampled_from([0.1, 0.6, 1.5]))
    def pass_time(self, seconds: float) -> None:
        self.budget.clock.let_pass(seconds)

    @rule()
    def come_to_rest_and_wait(self) -> None:
        # What is opened is used, and belongs to the reserve for another while.
        for _ in range(40):
            self.come_to_rest()
            self.budget.clock.let_pass(1.5)
            if not any(pool.connecting or pool.closing for pool in self.pools):
                break
        assert not self.spare_places(kept=0) or not any(pool.shortfall for pool in self.pools)

    @rule()
    def come_to_rest(self) -> None:
        for _ in range(1000):
            if not self.finish_one():
                return
        pytest.fail(f"connections wander without end: {self.pools}")

    def finish_one(self) -> bool:
        for pool in self.pools:
            if pool.closing:
                pool.close_one()
                return True
            if pool.connecting:
                pool.connect()
                return True
        return False

    @invariant()
    def what_was_taken_and_not_given_back_is_open(self) -> None:
        assert self.budget.used == sum(pool.open for pool in self.pools)

    @invariant()
    def the_limit_holds_unless_it_was_lowered(self) -> None:
        assert self.budget.used <= self.highest
        self.highest = max(self.budget.limit, min(self.highest, self.budget.used))

    @invariant()
    def nobody_wants_what_is_free_but_the_places_of_the_reserve(self) -> None:
        free = self.budget.limit - self.budget.used
        for pool in self.pools:
            if pool.shortfall:
                kept = (
                    0
                    if is_small_claim(pool.share_after(0))
                    else max(1, round(self.budget.limit * 0.15))
                )
                assert free <= kept, self.pools

    @precondition(lambda self: not any(pool.connecting or pool.closing for pool in self.pools))
    @invariant()
    def at_rest_nobody_wants_what_another_could_spare(self) -> None:
        reserve = max_reserved(self.budget.limit)
        for pool in self.pools:
            if pool.shortfall:
                modest = is_small_claim(pool.share_after(0))
                assert not self.spare_places(kept=0 if modest else reserve), self.pools

    def spare_places(self, *, kept: int) -> int:
        """Places free or taken by what could be closed, without those that are *kept*."""
        idle = sum(
            min(pool.idle, max(0, pool.live - pool.min_size)) for pool in self.pools if pool.works
        )
        return max(0, self.budget.limit - self.budget.used + idle - kept)


TestAnySequenceOfClaims = BudgetMachine.TestCase
TestAnySequenceOfClaims.settings = settings(
    deadline=None, max_examples=300, stateful_step_count=40, print_blob=True
)
