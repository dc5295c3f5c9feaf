"""A pool for the policy alone: connections come and go, and callers ask, when a test says so."""

# ruff: noqa: ANN401 - models stand in for connections and waiters

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from app.domain.pool import PoolSize, PoolState
from app.pools.budget import ConnectionBudget
from app.pools.dispatch import shortfall
from app.pools.dispatcher import Dispatcher


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = self.asked_at = 0.0
        self.due: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        self.asked_at = self.now
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None], /) -> None:
        self.due.append((self.now + delay, callback))

    def let_pass(self, seconds: float) -> None:
        self.now += seconds
        ripe = [call for call in self.due if call[0] <= self.now]
        self.due = [call for call in self.due if call[0] > self.now]
        for _, callback in ripe:
            callback()


@dataclass(eq=False)
class ModelConnection:
    """A connection that is idle or leased."""

    opened_at: float
    is_current: bool = True


class ModelServer:
    """A budget with its dispatcher, and the time."""

    def __init__(self, limit: int = 0) -> None:
        self.clock = Clock()
        self.budget: ConnectionBudget[ModelPool] = ConnectionBudget(limit)
        self.dispatcher = Dispatcher(self.budget, self.clock)

    def set_limit(self, limit: int) -> None:
        self.budget.set_limit(limit)
        self.dispatcher.run()


class ModelPool:
    """A pool of one tenant, which opens and closes nothing by itself."""

    undoing_prefetch = 0
    is_failing = False

    def __init__(
        self,
        name: str,
        server: ModelServer,
        *,
        weight: int = 1,
        min_size: int = 0,
        max_size: int = 100,
    ) -> None:
        self.name = name
        self.server = server
        self.weight = weight
        self.size = PoolSize(min_size=min_size, max_size=max_size, warmup_size=0)
        self.state = PoolState.READY
        self.can_open = True
        self.idle: deque[Any] = deque()
        self.leased: list[Any] = []
        self.callers: deque[int] = deque()
        """Who waits, by number."""
        self.served: list[int] = []
        self.asked = self.connecting = self.closing = 0

    def __repr__(self) -> str:
        return (
            f"<{self.name}: {len(self.leased)} leased, {len(self.idle)} idle, "
            f"{self.connecting} connecting, {self.closing} closing; {len(self.callers)} waiting>"
        )

    # -- what the policy reads -----------------------------------------------------------------

    @property
    def connections(self) -> ModelPool:
        return self

    @property
    def waiters(self) -> ModelPool:
        return self

    @property
    def live(self) -> int:
        return len(self.idle) + len(self.leased)

    @property
    def open(self) -> int:
        return self.live + self.connecting + self.closing

    @property
    def servable(self) -> int:
        return len(self.callers)

    def is_current(self, connection: Any, now: float) -> bool:
        return cast("ModelConnection", connection).is_current and now >= connection.opened_at

    def next(self) -> Any:
        return self.callers[0] if self.callers else None

    def share_after(self, served: int) -> float | None:
        return (len(self.leased) + served + 1) / self.weight if served < len(self.callers) else None

    @property
    def is_open(self) -> bool:
        return self.state is PoolState.READY

    @property
    def shortfall(self) -> int:
        return shortfall(self, self.server.budget)

    # -- what the dispatcher does --------------------------------------------------------------

    def serve(self, waiter: Any, connection: Any) -> None:
        assert connection.is_current
        self.idle.remove(connection)
        assert self.callers.popleft() == waiter
        self.served.append(waiter)
        self.leased.append(connection)

    def begin_open(self, *, first: bool) -> None:
        assert self.server.budget.free > 0
        assert self.open < self.size.max_size
        self.connecting += 1
        self.server.budget.begin_open()

    def evict_idle(self, connection: Any) -> None:
        self.idle.remove(connection)
        self._begin_close()

    # -- what happens --------------------------------------------------------------------------

    def dispatch(self) -> None:
        self.server.dispatcher.run(self)

    def ask(self, callers: int = 1) -> None:
        for _ in range(callers):
            self.callers.append(self.asked)
            self.asked += 1
        self.dispatch()

    def give_up(self) -> None:
        """The caller who came last waits no more."""
        self.callers.pop()
        self.dispatch()

    def connect(self) -> None:
        """One that was being opened is there."""
        self.connecting -= 1
        self._put_idle(ModelConnection(self.server.clock.now))
        self.dispatch()

    def connect_in_vain(self) -> None:
        self.connecting -= 1
        self.server.budget.give_back()
        self.dispatch()

    def release(self) -> None:
        """The one leased first comes back."""
        connection = self.leased.pop(0)
        if self.server.dispatcher.keeps(self):
            self._put_idle(connection)
        else:
            self._begin_close()
        self.dispatch()

    def lose(self) -> None:
        """The one leased first turns out to be broken."""
        self.leased.pop(0)
        self._begin_close()
        self.dispatch()

    def expire(self) -> None:
        """An idle one is too old."""
        self.evict_idle(self.idle[0])
        self.dispatch()

    def close_one(self) -> None:
        """One that was being closed is gone."""
        self.closing -= 1
        self.server.budget.end_close()
        self.dispatch()

    def resize(self, max_size: int) -> None:
        self.size = PoolSize(
            min_size=min(self.size.min_size, max_size), max_size=max_size, warmup_size=0
        )
        self.dispatch()

    def close(self) -> None:
        self.state = PoolState.CLOSED
        self.callers.clear()
        self.dispatch()
        self.server.budget.forget(self)
        self.server.dispatcher.run()

    def reopen(self) -> None:
        self.state = PoolState.READY
        self.dispatch()

    def _put_idle(self, connection: Any) -> None:
        self.idle.append(connection)
        self.server.budget.note_use(self, self.server.clock.now)

    def _begin_close(self) -> None:
        self.closing += 1
        self.server.budget.begin_close()

    # -- situations ----------------------------------------------------------------------------

    def with_idle(self, count: int, *, fresh: bool = False) -> ModelPool:
        """This pool, after so many connections were opened and used by nobody any more."""
        now = self.server.clock.now
        for _ in range(count):
            self.server.budget.begin_open()
            self._put_idle(ModelConnection(now if fresh else now - 60))
        return self

    def with_leased(self, count: int) -> ModelPool:
        """This pool, after so many connections were opened and leased."""
        now = self.server.clock.now
        for _ in range(count):
            self.server.budget.begin_open()
            self.leased.append(ModelConnection(now))
            self.server.budget.note_use(self, now)
        return self
