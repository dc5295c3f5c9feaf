"""One tenant's state: what it holds and waits for now, and what was counted.

Exists for every known tenant, with or without a pool, so it is kept small.
"""

from __future__ import annotations

from typing import Protocol

from app.domain.desired_state import Tenant
from app.domain.isolation_checks import IsolationReport
from app.domain.pool import PoolMetrics
from app.pools.recent_use import NOTE_EVERY, ConnectionUse, Contenders
from app.pools.recorder import Recorder


class WaitOrder(Protocol):
    """Where callers of several tenants wait."""

    def reorder(self, tenant: TenantState) -> None:
        """What *tenant* holds, or may hold, has changed."""


class TenantState:
    """The running numbers of one tenant; the pool that serves it keeps them.

    Attributes:
        leased, waiting: leases that it holds, and callers that wait for one.
        weight: its part of what is scarce, against those of others.
    """

    __slots__ = (
        "_contenders",
        "_order",
        "_usage",
        "isolation",
        "leased",
        "recorder",
        "tenant",
        "waiting",
        "weight",
    )

    def __init__(
        self, tenant: Tenant, recorder: Recorder, contenders: Contenders | None = None
    ) -> None:
        """Begin without leases; *contenders* are those of its server, if there is one."""
        self.tenant = tenant
        self.recorder = recorder
        self.leased = self.waiting = 0
        self.weight = tenant.spec.weight
        self.isolation: IsolationReport | None = None
        self._usage = ConnectionUse()
        self._order: WaitOrder | None = None
        self._contenders = contenders or Contenders()

    def update(self, tenant: Tenant) -> None:
        """Take over a change to the tenant; what was counted goes on."""
        if self.leased or self.waiting:
            self._contenders.reweigh(self.weight, tenant.spec.weight)
        self.tenant = tenant
        self.weight = tenant.spec.weight
        if self._order is not None:
            self._order.reorder(self)

    def lease_begun(self, wait: float, now: float) -> None:
        """It holds one lease more, after it waited *wait* seconds."""
        usage = self._usage
        if now >= usage.noted_at + NOTE_EVERY:
            usage.note(self.leased, now)
        usage.begin_lease(now)
        if self._order is not None:
            self._order.reorder(self)
        elif not self.leased:
            self._contenders.join(self.weight)
        self.leased += 1
        self.recorder.record_acquire(wait, now)

    def lease_ended(self, hold: float, now: float) -> None:
        """It gave one back after *hold* seconds."""
        self._usage.end_lease(now)
        self.leased -= 1
        if self._order is not None:
            if not self.leased:
                self._usage.note(0, now)
            self._order.reorder(self)
        elif not self.leased:
            self._contenders.leave(self.weight)
        self.recorder.record_release(hold, now)

    def wait_begun(self, order: WaitOrder, now: float) -> None:
        """One caller more waits, in that *order* of tenants."""
        if not self.waiting:
            self._order = order
            if not self.leased:
                self._usage.note(0, now)
                self._contenders.join(self.weight)
        self.waiting += 1

    def wait_ended(self, callers: int = 1) -> None:
        """So many *callers*, at least one, wait no more."""
        self.waiting -= callers
        if not self.waiting:
            self._order = None
            if not self.leased:
                self._contenders.leave(self.weight)

    def report_isolation(self, report: IsolationReport) -> None:
        self.isolation = report

    @property
    def can_lease(self) -> bool:
        """Whether its own cap allows one more lease."""
        cap = self.tenant.spec.max_leases
        return cap is None or self.leased < cap

    def has_room_for(self, more: int) -> bool:
        """Whether its own cap allows so many leases *more*."""
        cap = self.tenant.spec.max_leases
        return cap is None or self.leased + more <= cap

    def key(self, now: float, *, more: int = 0) -> float:
        """Its use for its weight, to compare with others'; the smallest is next.

        With so many leases *more*. See `ConnectionUse.key`.
        """
        return self._usage.key(self.leased, self.weight, now, more=more)

    @property
    def metrics(self) -> PoolMetrics:
        """What it holds and waits for inside a shared pool, where no idle connection is its own."""
        return PoolMetrics(
            total_connections=self.leased,
            idle_connections=0,
            active_connections=self.leased,
            waiting_requests=self.waiting,
        )

    def connection_seconds(self, now: float) -> float:
        """How long it has held connections, running leases included, times connections."""
        return self._usage.held + self.leased * now

    def is_active(self, since: float) -> bool:
        """Whether it holds or awaits a lease, or did so after the monotonic time *since*."""
        return bool(self.leased or self.waiting) or self.recorder.used_since(since)
