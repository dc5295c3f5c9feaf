"""Pools that want more than there is, for twenty seconds of unreal time: each has its turn."""

# ruff: noqa: ANN401 - models stand in for connections and waiters

from typing import Any

import pytest

from app.domain.time_sharing import ROUND
from app.pools.scheduling.connect_limiter import ConnectSlot
from tests.pools.scheduling.model_pool import MOVE_SECONDS, ModelPool, ModelServer

LIMIT = 4
SECONDS = 20.0
HOLD = 0.02
# Of a login and a closing: together the time of a move.
LOGIN, CLOSING = 0.8 * MOVE_SECONDS, 0.2 * MOVE_SECONDS


class BusyPool(ModelPool):
    """A pool whose callers come again as soon as they were served, or after a while.

    Attributes:
        longest: the longest wait of one of them, in seconds.
    """

    pause = 0.0
    longest = 0.0

    def begin_open(self, slot: ConnectSlot) -> None:
        super().begin_open(slot)
        self.server.clock.call_later(LOGIN, self.connect)

    def _begin_close(self, slot: ConnectSlot | None) -> None:
        super()._begin_close(slot)
        self.server.clock.call_later(CLOSING, self.close_one)

    def serve(self, waiter: Any, connection: Any) -> None:
        super().serve(waiter, connection)
        self.note_wait()
        self.longest = max(self.longest, self.server.clock.now - waiter.since)
        self.server.clock.call_later(HOLD, lambda: self.end(connection))

    def end(self, connection: Any) -> None:
        if self.pause:
            self.server.clock.call_later(self.pause, self.ask)
        else:
            self.ask()
        self.release(self.leased.index(connection))

    def note_wait(self) -> None:
        """Count how long the current callers have waited."""
        waits = [self.server.clock.now - waiter.since for waiter in self.callers]
        self.longest = max([self.longest, *waits])


def run(pools: list[BusyPool]) -> None:
    """Let time pass; callers ask for connections of each pool from the first second on."""
    clock = pools[0].server.clock
    for pool in pools:
        clock.call_later(1.0, pool.ask)
    until = clock.now + SECONDS
    while clock.now < until:
        clock.let_pass(max(0.0, min(timer.at for timer in clock.due) - clock.now))
    for pool in pools:
        pool.note_wait()


@pytest.fixture
def server() -> ModelServer:
    return ModelServer(LIMIT, slots=2)


def longest_round(server: ModelServer, pools: int) -> float:
    """Seconds in which that many pools have had a turn each, if slots only move connections."""
    return max(ROUND, pools * MOVE_SECONDS / min(LIMIT, server.budget.connect_slots.limit))


@pytest.mark.parametrize("pools", [5, 40])
def test_pools_that_always_want_more_take_turns(server: ModelServer, pools: int) -> None:
    equals = [BusyPool(f"pool{number}", server) for number in range(pools)]
    run(equals)
    assert max(pool.longest for pool in equals) < 3 * longest_round(server, pools)
    served = [len(pool.served) for pool in equals]
    assert min(served) > 0.5 * max(served)


def test_who_wants_more_than_all_others_together_starves_nobody(server: ModelServer) -> None:
    flood = BusyPool("flood", server)
    flood.ask(50)
    others = [BusyPool(f"other{number}", server) for number in range(10)]
    for pool in others:
        pool.pause = 0.5
    run(others)
    assert max(pool.longest for pool in others) < ROUND
    assert len(flood.served) > sum(len(pool.served) for pool in others)


def test_a_heavy_user_is_not_starved_by_newcomers_without_any_use(server: ModelServer) -> None:
    veteran = BusyPool("veteran", server).used(100.0)
    assert isinstance(veteran, BusyPool)
    newcomers: list[BusyPool] = []

    def come() -> None:
        pool = BusyPool(f"newcomer{len(newcomers)}", server)
        pool.pause = 1000.0
        newcomers.append(pool)
        pool.ask()
        # More than two slots can open.
        server.clock.call_later(MOVE_SECONDS / 4, come)

    come()
    run([veteran])
    assert veteran.longest < 3 * ROUND
    assert len(veteran.served) > 10
