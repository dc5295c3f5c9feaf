"""The budget's laws under every sequence of claims: never overdrawn, and nobody forgotten."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from app.pools.budget import ConnectionBudget
from tests.unit.claimant import Pool


class BudgetMachine(RuleBasedStateMachine):
    """Every sequence of asking, connecting, giving back and closing among four pools."""

    pools: list[Pool]
    numbers = st.integers(0, 3)

    @initialize(limit=st.integers(0, 8))
    def begin(self, limit: int) -> None:
        self.budget = ConnectionBudget(limit)
        self.highest = limit
        self.pools = [
            Pool("plain", self.budget),
            Pool("heavy", self.budget, weight=3),
            Pool("kept", self.budget, min_size=2),
            Pool("light", self.budget, weight=2),
        ]
        for pool in self.pools:
            pool.pump()

    def chosen(self, data: st.DataObject, what: str) -> Pool | None:
        able = [pool for pool in self.pools if getattr(pool, what)]
        return data.draw(st.sampled_from(able), label=what) if able else None

    @rule(number=numbers, callers=st.integers(1, 4))
    def ask(self, number: int, callers: int) -> None:
        if self.pools[number].works:
            self.pools[number].ask(callers)

    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        if pool := self.chosen(data, "waiting"):
            pool.waiting -= 1
            pool.pump()

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
            assert min(share for share in others if share is not None) < mine
        pool.leased += 1
        pool.release()

    @rule(data=st.data())
    def break_down(self, data: st.DataObject) -> None:
        if pool := self.chosen(data, "leased"):
            pool.leased -= 1
            pool.begin_close()
            pool.pump()

    @rule(data=st.data())
    def expire(self, data: st.DataObject) -> None:
        if pool := self.chosen(data, "idle"):
            pool.idle -= 1
            pool.begin_close()
            pool.pump()

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
        pool.pump()

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
            self.pools[number].pump()

    @rule(limit=st.integers(0, 8))
    def change_limit(self, limit: int) -> None:
        self.budget.set_limit(limit)
        self.highest = max(limit, self.budget.used)

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
    def nobody_wants_what_is_free(self) -> None:
        if self.budget.used < self.budget.limit:
            assert not any(pool.unserved for pool in self.pools), self.pools

    @precondition(lambda self: not any(pool.connecting or pool.closing for pool in self.pools))
    @invariant()
    def at_rest_nobody_wants_what_another_could_spare(self) -> None:
        spare = sum(
            min(pool.idle, max(0, pool.live - pool.min_size)) for pool in self.pools if pool.works
        )
        if self.budget.used - spare < self.budget.limit:
            assert not any(pool.unserved for pool in self.pools), self.pools


TestAnySequenceOfClaims = BudgetMachine.TestCase
