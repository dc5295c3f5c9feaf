"""A pool for tests of the policy alone: connections and callers come and go when a test says so."""

# ruff: noqa: ANN401 - models stand in for connections

from collections import deque
from dataclasses import dataclass
from math import inf
from typing import Any, Self, cast

from app.domain.pool import PoolSize, PoolState
from app.pools.scheduling.budget import ConnectionBudget
from app.pools.scheduling.connect_limiter import ConnectLimiter, ConnectSlot
from app.pools.scheduling.policy import shortfall
from app.pools.scheduling.policy_executor import PolicyExecutor
from app.pools.smoothed import Smoothed
from app.pools.tenant_state import TenantState
from tests.fixtures.pools import account
from tests.fixtures.unreal import UnrealClock

# The measured time of giving a connection to another pool.
MOVE_SECONDS = 0.05


class Clock(UnrealClock):
    """A time that knows when it was last read."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.asked_at = 1000.0

    def time(self) -> float:
        self.asked_at = self.now
        return self.now


@dataclass(eq=False)
class ModelConnection:
    """A connection that is idle or leased."""

    opened_at: float
    is_current: bool = True
    idle_since: float = 0.0
    leased_at: float = 0.0
    last_user: TenantState | None = None
    kept: tuple[float, int] = (0.0, -1)

    def mark_kept(self, until: float, changes: int) -> None:
        self.kept = until, changes

    def is_kept(self, now: float, changes: int) -> bool:
        return changes == self.kept[1] and now < self.kept[0]


@dataclass(eq=False)
class ModelWaiter:
    """A caller, by number."""

    tenant_state: TenantState
    number: int
    since: float


class ModelServer:
    """A budget with its executor, and the time."""

    def __init__(self, limit: int = 0, slots: int = 100) -> None:
        self.clock = Clock()
        self.budget = ConnectionBudget(limit, ConnectLimiter(slots, self.clock))
        self.budget.note_connect(MOVE_SECONDS)
        self.policy_executor = PolicyExecutor(self.budget, self.clock)

    def set_limit(self, limit: int) -> None:
        self.budget.set_limit(limit)
        self.policy_executor.run()


class ModelPool:
    """A pool of one tenant, which opens and closes nothing by itself."""

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
        self.tenant = account(name, server.budget.contenders, weight=weight)
        self.size = PoolSize(min_size=min_size, max_size=max_size, warmup_size=0)
        self.state = PoolState.READY
        self.can_open = True
        self.idle: deque[Any] = deque()
        self.leased: list[Any] = []
        self.callers: deque[ModelWaiter] = deque()
        self.served: list[int] = []
        self.asked = self.closing = 0
        self.opening: deque[ConnectSlot] = deque()
        self.moving: deque[ConnectSlot | None] = deque()
        self.holds, self.returns = Smoothed(), Smoothed()
        # Long after everything: callers do find idle connections.
        self.idle_found_at = inf
        self.rested_at = 0.0

    def __repr__(self) -> str:
        return (
            f"<{self.name}: {len(self.leased)} leased, {len(self.idle)} idle, "
            f"{self.connecting} connecting, {self.closing} closing; {len(self.callers)} waiting>"
        )

    # -- what the policy reads -----------------------------------------------------------------

    @property
    def most(self) -> int:
        return self.size.max_size

    @property
    def connections(self) -> Self:
        return self

    @property
    def waiters(self) -> Self:
        return self

    @property
    def connecting(self) -> int:
        return len(self.opening)

    @property
    def in_use(self) -> int:
        return len(self.leased)

    @property
    def live(self) -> int:
        return len(self.idle) + len(self.leased)

    @property
    def open(self) -> int:
        return self.live + self.connecting + self.closing

    @property
    def hold(self) -> float:
        return self.holds.mean

    @property
    def servable(self) -> int:
        return len(self.callers)

    def is_current(self, connection: Any, now: float) -> bool:
        return cast("ModelConnection", connection).is_current and now >= connection.opened_at

    def next(self) -> Any:
        return self.callers[0] if self.callers else None

    @property
    def waiting(self) -> int:
        return len(self.callers)

    def note_change(self) -> None:
        """Do nothing: it has only one tenant."""

    @property
    def is_open(self) -> bool:
        return self.state is PoolState.READY

    @property
    def shortfall(self) -> int:
        return shortfall(self, self.server.budget, self.server.clock.asked_at)

    # -- what the executor does ----------------------------------------------------------------

    def serve(self, waiter: Any, connection: Any) -> None:
        assert connection.is_current
        self.idle.remove(connection)
        assert self.callers.popleft() is waiter
        self.served.append(waiter.number)
        self._lease(connection, self.server.clock.now - waiter.since)
        if not self.callers:
            self.tenant.wait_ended(self)

    def _lease(self, connection: Any, wait: float) -> None:
        now = self.server.clock.now
        self.leased.append(connection)
        connection.leased_at = now
        self.tenant.lease_begun(wait, now)

    def begin_open(self, slot: ConnectSlot) -> None:
        assert self.server.budget.free > 0
        assert self.open < self.size.max_size
        self.opening.append(slot)
        self.server.budget.begin_open()

    def evict_idle(self, connection: Any, slot: ConnectSlot | None = None) -> None:
        self.idle.remove(connection)
        self._begin_close(slot)

    # -- what happens --------------------------------------------------------------------------

    def dispatch(self) -> None:
        self.server.policy_executor.run(self)

    def ask(self, callers: int = 1) -> None:
        now = self.server.clock.now
        if self.rested_at and not self.callers:
            self.returns.note(now - self.rested_at)
            self.rested_at = 0.0
        if not self.callers:
            self.tenant.wait_begun(self, now)
        for _ in range(callers):
            self.callers.append(ModelWaiter(self.tenant, self.asked, now))
            self.asked += 1
        self.dispatch()

    def give_up(self) -> None:
        """Let the caller who came last give up."""
        self.callers.pop()
        if not self.callers:
            self.tenant.wait_ended(self)
        self.dispatch()

    def connect(self) -> None:
        """Finish opening a connection."""
        self.opening.popleft().release()
        self._put_idle(ModelConnection(self.server.clock.now))
        self.dispatch()

    def connect_in_vain(self) -> None:
        self.opening.popleft().release()
        self.server.budget.give_back()
        self.dispatch()

    def release(self, place: int = 0) -> bool:
        """Give back the connection leased first, or at that *place*; returns whether it is kept."""
        connection = self._end_lease(place)
        budget = self.server.budget
        kept = self.server.policy_executor.keeps(self, connection)
        if kept:
            self._put_idle(connection)
        else:
            self._begin_close(None if budget.is_over else budget.connect_slots.take())
        self.dispatch()
        return kept

    def _end_lease(self, place: int = 0) -> Any:
        connection, now = self.leased.pop(place), self.server.clock.now
        self.holds.note(now - connection.leased_at)
        connection.last_user = self.tenant
        self.tenant.lease_ended(now - connection.leased_at, now)
        if not self.callers:
            self.rested_at = now
        return connection

    def lose(self) -> None:
        """Lose the connection leased first: it is broken."""
        self._end_lease()
        self._begin_close(None)
        self.dispatch()

    def expire(self) -> None:
        """Let an idle connection expire."""
        self.evict_idle(self.idle[0])
        self.dispatch()

    def close_one(self) -> None:
        """Finish closing a connection."""
        self.closing -= 1
        if (slot := self.moving.popleft()) is not None:
            slot.release()
        self.server.budget.end_close()
        self.dispatch()

    def resize(self, max_size: int) -> None:
        self.size = PoolSize(
            min_size=min(self.size.min_size, max_size), max_size=max_size, warmup_size=0
        )
        self.dispatch()

    def close(self) -> None:
        self.state = PoolState.CLOSED
        if self.callers:
            self.tenant.wait_ended(self)
        self.callers.clear()
        self.dispatch()
        self.server.budget.forget(self)
        self.server.policy_executor.run()

    def reopen(self) -> None:
        self.state = PoolState.READY
        self.dispatch()

    def _put_idle(self, connection: Any) -> None:
        connection.idle_since = self.server.clock.now
        self.idle.append(connection)
        self.server.budget.spare.add(self, self.server.clock.now)

    def _begin_close(self, slot: ConnectSlot | None) -> None:
        self.closing += 1
        self.moving.append(slot)
        self.server.budget.begin_close()

    # -- situations ----------------------------------------------------------------------------

    def with_idle(self, count: int) -> Self:
        """This pool, after that many connections were opened and left idle."""
        for _ in range(count):
            self.server.budget.begin_open()
            self._put_idle(ModelConnection(self.server.clock.now))
        return self

    def used(self, seconds: float) -> Self:
        """This pool, after its tenant held one connection more for that long in the past."""
        now = self.server.clock.now
        self.tenant.lease_begun(0.0, now - seconds)
        self.tenant.lease_ended(seconds, now)
        return self

    def comes_back_after(self, seconds: float) -> None:
        """Let its tenant come back that long after its leases, again and again."""
        for _ in range(50):
            self.returns.note(seconds)

    def leases_take(self, seconds: float) -> None:
        """Let its leases take that long."""
        self.holds.note(seconds)

    def with_leased(self, count: int) -> Self:
        """This pool, after that many connections were opened and leased."""
        for _ in range(count):
            self.server.budget.begin_open()
            self._lease(ModelConnection(self.server.clock.now), 0.0)
        return self
