"""The policy's laws under every sequence of events: the budget holds, and nobody is forgotten."""

from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from app.domain.time_sharing import KEPT_MOVES, most_moves
from app.pools.scheduling.policy import decide, floor_of
from tests.pools.scheduling.model_pool import MOVE_SECONDS, ModelPool, ModelServer

LIMITS = st.sampled_from([0, 1, 2, 3, 5, 8, 12, 16])
# After that long, no connection is kept for a tenant that is expected back.
KEPT = KEPT_MOVES * MOVE_SECONDS


class PolicyMachine(RuleBasedStateMachine):
    """Every sequence of asking, connecting, giving back and closing among four pools."""

    pools: list[ModelPool]
    numbers = st.integers(0, 3)

    @initialize(limit=LIMITS, slots=st.integers(1, 5))
    def begin(self, limit: int, slots: int) -> None:
        self.server = ModelServer(limit, slots)
        self.budget = self.server.budget
        self.highest = limit
        self.pools = [
            ModelPool("plain", self.server, max_size=6),
            ModelPool("heavy", self.server, max_size=6, weight=3),
            ModelPool("kept", self.server, max_size=6, min_size=2),
            ModelPool("light", self.server, max_size=6, weight=2),
        ]
        for pool in self.pools:
            pool.dispatch()

    def chosen(self, data: st.DataObject, what: str) -> ModelPool | None:
        able = [pool for pool in self.pools if getattr(pool, what)]
        return data.draw(st.sampled_from(able), label=what) if able else None

    # -- events --------------------------------------------------------------------------------

    @rule(number=numbers, callers=st.integers(1, 8))
    def ask(self, number: int, callers: int) -> None:
        if self.pools[number].is_open:
            self.pools[number].ask(callers)

    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        if pool := self.chosen(data, "callers"):
            pool.give_up()

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
        if pool := self.chosen(data, "leased"):
            busy, is_over = self.budget.connect_slots.busy, self.budget.is_over
            # What exceeds a lowered limit closes without being moved.
            if not pool.release() and not is_over:
                assert busy < most_moves(self.budget.limit)
                assert busy < self.budget.connect_slots.limit

    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        if pool := self.chosen(data, "leased"):
            pool.lose()

    @rule(data=st.data())
    def expire(self, data: st.DataObject) -> None:
        if pool := self.chosen(data, "idle"):
            pool.expire()

    @rule(data=st.data())
    def break_off(self, data: st.DataObject) -> None:
        # Unnoticed until somebody is to get it.
        if pool := self.chosen(data, "idle"):
            data.draw(st.sampled_from(pool.idle)).is_current = False

    @rule(data=st.data())
    def close_one(self, data: st.DataObject) -> None:
        if pool := self.chosen(data, "closing"):
            pool.close_one()

    @rule(number=numbers, max_size=st.integers(2, 8))
    def resize(self, number: int, max_size: int) -> None:
        self.pools[number].resize(max_size)

    @rule(number=numbers)
    def close_pool(self, number: int) -> None:
        self.pools[number].close()

    @rule(number=numbers)
    def reopen_pool(self, number: int) -> None:
        self.pools[number].reopen()

    @rule(number=numbers, can_open=st.booleans())
    def pause_opening(self, number: int, *, can_open: bool) -> None:
        self.pools[number].can_open = can_open
        self.pools[number].dispatch()

    @rule(limit=LIMITS)
    def change_limit(self, limit: int) -> None:
        self.highest = max(limit, self.budget.used)
        self.server.set_limit(limit)

    @rule(frozen=st.booleans())
    def freeze(self, *, frozen: bool) -> None:
        self.budget.freeze(frozen=frozen)
        self.server.policy_executor.run()

    @rule(keeps=st.booleans())
    def keep_min_size(self, *, keeps: bool) -> None:
        self.server.policy_executor.keep_min_size(self.pools, keeps=keeps)

    @rule(seconds=st.sampled_from([0.1, 0.6, 1.5]))
    def pass_time(self, seconds: float) -> None:
        self.server.clock.let_pass(seconds)

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

    @rule()
    def come_to_rest_and_wait(self) -> None:
        for _ in range(40):
            self.come_to_rest()
            self.server.clock.let_pass(1.5)
            if not any(pool.connecting or pool.closing for pool in self.pools):
                return
        pytest.fail(f"connections wander without end: {self.pools}")

    # -- laws ----------------------------------------------------------------------------------

    @invariant()
    def what_was_taken_and_not_given_back_is_open(self) -> None:
        assert self.budget.used == sum(pool.open for pool in self.pools)
        assert self.budget.closing == sum(pool.closing for pool in self.pools)

    @invariant()
    def the_limit_holds_unless_it_was_lowered(self) -> None:
        assert self.budget.used <= self.highest
        self.highest = max(self.budget.limit, min(self.highest, self.budget.used))

    @invariant()
    def nothing_beyond_the_limit_is_idle_unless_a_min_size_is_kept(self) -> None:
        if self.budget.is_over and not (self.budget.is_frozen or self.budget.keeps_min_size):
            assert not any(pool.idle for pool in self.pools), self.pools

    @invariant()
    def nobody_waits_beside_an_idle_connection_of_his_own(self) -> None:
        for pool in self.pools:
            assert not (pool.callers and pool.idle), pool

    @invariant()
    def callers_of_a_pool_are_served_in_their_order(self) -> None:
        for pool in self.pools:
            waiting = [caller.number for caller in pool.callers]
            assert all(one < other for one, other in pairwise([*pool.served, *waiting]))

    @invariant()
    def no_pool_has_more_than_it_may_unless_it_was_cut(self) -> None:
        for pool in self.pools:
            allowed = pool.size.max_size if pool.is_open else 0
            assert not pool.idle or pool.live + pool.connecting <= allowed

    @invariant()
    def the_budget_knows_who_wants_more(self) -> None:
        assert set(self.budget.unsatisfied) == {pool for pool in self.pools if pool.shortfall}

    @invariant()
    def nothing_is_left_to_do_and_asking_changes_nothing(self) -> None:
        before = self.everything()
        for pool in (None, *self.pools):
            assert not decide(pool, self.budget, self.server.clock.asked_at), pool
        assert self.everything() == before

    def everything(self) -> list[object]:
        pools = [
            [*pool.idle, *pool.leased, pool.connecting, pool.closing, *pool.callers]
            for pool in self.pools
        ]
        budget = self.budget
        return [pools, list(budget.unsatisfied), budget.spare.first, repr(budget)]

    @invariant()
    def nobody_wants_what_is_free_while_a_connect_slot_is(self) -> None:
        slots = self.budget.connect_slots
        if wanting := [pool for pool in self.pools if pool.shortfall]:
            # A pool that already has its share opens one at a time, while nobody else opens any.
            waits = slots.busy > 0 and any(len(pool.leased) > 1 for pool in wanting)
            assert self.budget.free <= 0 or slots.free <= 0 or waits, self.pools

    @precondition(lambda self: not any(pool.connecting or pool.closing for pool in self.pools))
    @invariant()
    def at_rest_nobody_wants_what_another_could_spare(self) -> None:
        if any(pool.shortfall for pool in self.pools) and not self.budget.is_frozen:
            assert not self.spare_places(), self.pools

    def spare_places(self) -> int:
        """Places that are free, or taken by idle connections whose tenant is not expected back."""
        idle = 0
        for pool in self.pools:
            if pool.is_open:
                unused = [one for one in pool.idle if one.idle_since <= self.now - KEPT]
                idle += min(len(unused), max(0, pool.live - floor_of(pool, self.budget)))
        return max(0, self.budget.free + idle)

    @property
    def now(self) -> float:
        return self.server.clock.asked_at


TestAnySequenceOfEvents = pytest.mark.long(PolicyMachine.TestCase)
TestAnySequenceOfEvents.settings = settings(
    deadline=None, max_examples=300, stateful_step_count=40, print_blob=True
)
