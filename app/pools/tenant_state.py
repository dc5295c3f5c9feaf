"""A tenant's state: its present leases and waiters, and its counters.

It exists for every known tenant, with or without a pool, so it is small.
"""

from typing import Protocol

from app.domain.isolation_checks import IsolationReport
from app.domain.pool import PoolMetrics
from app.domain.tenant import Tenant
from app.pools.recent_use import NOTE_EVERY, ConnectionUse, Contenders
from app.pools.recorder import Recorder


class WaitLine(Protocol):
    """The tenant's waiting callers, in the queue of a pool."""

    @property
    def waiting(self) -> int:
        """Number of these callers."""

    def note_change(self) -> None:
        """Note that what the tenant holds, or may hold, has changed."""


class TenantState:
    """The running numbers of one tenant; its pool updates them.

    Attributes:
        leased: number of its leases.
        weight: its relative share of scarce connections.
    """

    __slots__ = (
        "_contenders",
        "_line",
        "_usage",
        "isolation",
        "leased",
        "recorder",
        "tenant",
        "weight",
    )

    def __init__(
        self, tenant: Tenant, recorder: Recorder, contenders: Contenders | None = None
    ) -> None:
        """Start without leases; *contenders* are those of its server, if there is a server."""
        self.tenant = tenant
        self.recorder = recorder
        self.leased = 0
        self.weight = tenant.spec.weight
        self.isolation: IsolationReport | None = None
        self._usage = ConnectionUse()
        self._line: WaitLine | None = None
        self._contenders = contenders or Contenders()

    def update(self, tenant: Tenant) -> None:
        """Apply a change to the tenant; counters continue."""
        if self.leased or self._line is not None:
            self._contenders.reweigh(self.weight, tenant.spec.weight)
        self.tenant = tenant
        self.weight = tenant.spec.weight
        if self._line is not None:
            self._line.note_change()

    def lease_begun(self, wait: float, now: float) -> None:
        """Count another lease, which waited *wait* seconds."""
        usage = self._usage
        if now >= usage.noted_at + NOTE_EVERY:
            usage.note(self.leased, now)
        usage.begin_lease(now)
        if self._line is not None:
            self._line.note_change()
        elif not self.leased:
            self._contenders.join(self.weight)
        self.leased += 1
        self.recorder.record_acquire(wait, now)

    def lease_ended(self, hold: float, now: float) -> None:
        """Count a lease that ended after *hold* seconds."""
        self._usage.end_lease(now)
        self.leased -= 1
        if self._line is not None:
            if not self.leased:
                self._usage.note(0, now)
            self._line.note_change()
        elif not self.leased:
            self._contenders.leave(self.weight)
        self.recorder.record_release(hold, now)

    def wait_begun(self, line: WaitLine, now: float) -> None:
        """Note that the first of its callers waits, in that *line*."""
        if not self.leased and self._line is None:
            self._usage.note(0, now)
            self._contenders.join(self.weight)
        self._line = line

    def wait_ended(self, line: WaitLine) -> None:
        """Note that nobody waits in that *line* any longer.

        If its pool was replaced, its callers already wait in another one.
        """
        if line is self._line:
            self._line = None
            if not self.leased:
                self._contenders.leave(self.weight)

    @property
    def waiting(self) -> int:
        """Number of its waiting callers."""
        return self._line.waiting if self._line is not None else 0

    def report_isolation(self, report: IsolationReport) -> None:
        self.isolation = report

    @property
    def can_lease(self) -> bool:
        """Whether its own limit allows one more lease."""
        cap = self.tenant.spec.max_leases
        return cap is None or self.leased < cap

    def key(self, now: float, *, more: int = 0) -> float:
        """Its use per weight, as a sort key: the smallest is next.

        *more* adds that many leases. See `ConnectionUse.key`.
        """
        return self._usage.key(self.leased, self.weight, now, more=more)

    @property
    def metrics(self) -> PoolMetrics:
        """Its metrics inside a shared pool, where no idle connection is its own."""
        return PoolMetrics(
            total_connections=self.leased,
            idle_connections=0,
            active_connections=self.leased,
            waiting_requests=self.waiting,
        )

    def connection_seconds(self, now: float) -> float:
        """Its connection-seconds so far, running leases included."""
        return self._usage.held + self.leased * now

    def is_active(self, since: float) -> bool:
        """Whether it has leases or waiters, or had some after the monotonic time *since*."""
        return bool(self.leased or self._line) or self.recorder.used_since(since)
