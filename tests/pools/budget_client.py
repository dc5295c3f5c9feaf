"""A claimant of a budget: a pool whose connections come and go when a test says so."""

from __future__ import annotations

from collections.abc import Callable

from app.pools.budget import BudgetClient, ConnectionBudget


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.due: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None], /) -> None:
        self.due.append((self.now + delay, callback))

    def let_pass(self, seconds: float) -> None:
        self.now += seconds
        ripe = [call for call in self.due if call[0] <= self.now]
        self.due = [call for call in self.due if call[0] > self.now]
        for _, callback in ripe:
            callback()


class TimedBudget(ConnectionBudget):
    """A budget, its clock, and how often it was asked for a place."""

    # More than any test asks: who is asked without end is told at once.
    MOST_TAKES = 10_000

    def __init__(self, limit: int = 0) -> None:
        self.clock = Clock()
        self.takes = 0
        super().__init__(limit, clock=self.clock)

    def take(self, claimant: BudgetClient) -> bool:
        self.takes += 1
        assert self.takes < self.MOST_TAKES
        return super().take(claimant)


class Pool:
    """A pool of one tenant, which opens and closes nothing by itself."""

    def __init__(
        self, name: str, budget: TimedBudget, *, weight: int = 1, min_size: int = 0
    ) -> None:
        self.name = name
        self.budget = budget
        self.weight = weight
        self.min_size = min_size
        self.max_size = 6
        self.waiting = self.idle = self.leased = self.connecting = self.closing = 0
        self.fresh = 0
        """How many of the idle ones were opened a moment ago."""
        self.works = True

    def __repr__(self) -> str:
        return (
            f"<{self.name}: {self.leased} leased, {self.idle} idle, {self.connecting} connecting, "
            f"{self.closing} closing; {self.waiting} waiting>"
        )

    @property
    def live(self) -> int:
        return self.idle + self.leased

    @property
    def open(self) -> int:
        return self.live + self.connecting + self.closing

    @property
    def shortfall(self) -> int:
        if not self.works:
            return 0
        wanted = max(
            self.waiting - self.idle - self.connecting,
            self.min_size - self.live - self.connecting,
        )
        return max(0, min(wanted, self.max_size - self.open))

    def share_after(self, promised: int) -> float | None:
        coming = self.connecting + promised
        return (self.leased + coming + 1) / self.weight if self.waiting > coming else None

    def dispatch(self) -> None:
        handed = min(self.waiting, self.idle)
        self.waiting -= handed
        self.idle -= handed
        self.leased += handed
        while self.shortfall and self.budget.take(self):
            self.connecting += 1
        if self.idle and self.budget.is_contended:
            self.budget.reclaim()

    def evict_idle(self, *, fresh: bool, keep: int = 0) -> bool:
        spare = self.idle if fresh else self.idle - self.fresh
        if spare <= 0 or self.live <= max(self.min_size, keep):
            return False
        self.idle -= 1
        self.fresh = min(self.fresh, self.idle)
        self.begin_close()
        return True

    def begin_close(self) -> None:
        self.closing += 1
        self.budget.closing()

    def ask(self, callers: int = 1) -> None:
        self.waiting += callers
        self.dispatch()

    def connect(self) -> None:
        self.connecting -= 1
        self.idle += 1
        self.budget.used_now(self, self.budget.clock.now)
        self.dispatch()

    def connect_in_vain(self) -> None:
        self.connecting -= 1
        self.budget.give_back()
        self.dispatch()

    def release(self) -> None:
        self.leased -= 1
        if self.budget.is_contended and self.budget.must_yield(self):
            self.begin_close()
        else:
            self.idle += 1
            self.budget.used_now(self, self.budget.clock.now)
        self.dispatch()

    def close_one(self) -> None:
        self.closing -= 1
        self.budget.closed()
        self.dispatch()

    def with_idle(self, count: int) -> Pool:
        """This pool, after so many connections were opened and used by nobody any more."""
        for _ in range(count):
            assert self.budget.take(self)
            self.connecting += 1
            self.connect()
        return self

    def with_leased(self, count: int) -> Pool:
        """This pool, after so many connections were opened and lent."""
        self.ask(count)
        for _ in range(count):
            self.connect()
        return self
