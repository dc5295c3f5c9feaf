"""What was counted by server and strategy, whoever was deleted and whatever was evicted since.

Gives out the recorders, so that nothing they count is lost or counted twice: what a shared
pool records is all its tenants' leases, and connections that are nobody's own.
"""

from __future__ import annotations

from collections import defaultdict

from app.domain.tenant import PoolStrategy, TenantSpec
from app.pools.durations import Durations
from app.pools.recorder import Recorder
from app.pools.tenant_state import TenantState
from app.pools.totals import Totals

MetricGroup = tuple[str, PoolStrategy]
"""A server's name, and a strategy."""


class ServiceMetrics:
    """All that is counted."""

    def __init__(self, window: float) -> None:
        """Give recorders whose percentiles cover *window* seconds."""
        self._window = window
        self._shared: dict[str, Recorder] = {}
        self._forgotten: defaultdict[MetricGroup, Totals] = defaultdict(Totals)
        self._ended: defaultdict[MetricGroup, Durations] = defaultdict(Durations)

    def recorder_for(self, spec: TenantSpec) -> Recorder:
        """A recorder for a tenant."""
        if spec.is_shared:
            return Recorder(self._window)
        return Recorder(self._window, self._ended[spec.server, spec.strategy])

    def shared_recorder(self, server: str) -> Recorder:
        """The recorder of a server's shared pool."""
        if server not in self._shared:
            ended = self._ended[server, PoolStrategy.SHARED]
            self._shared[server] = Recorder(self._window, ended)
        return self._shared[server]

    def add_deleted(self, account: TenantState) -> None:
        """Keep what a tenant's recorder has counted, and no more than that."""
        spec = account.tenant.spec
        if not spec.is_shared:
            self._forgotten[spec.server, spec.strategy] += account.recorder
            account.recorder.flush()

    def totals(self) -> Count:
        """A sum that has to be given every account there is at this moment, to be complete."""
        count = Count()
        for group, totals in self._forgotten.items():
            count.totals[group] += totals
        for group, durations in self._ended.items():
            count.durations[group].merge(durations)
        for server, recorder in self._shared.items():
            group = (server, PoolStrategy.SHARED)
            count.totals[group] += recorder
            recorder.add_unflushed_to(count.durations[group])
        return count


class Count:
    """A sum by server and strategy, which may take its time."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.totals: defaultdict[MetricGroup, Totals] = defaultdict(Totals)
        self.durations: defaultdict[MetricGroup, Durations] = defaultdict(Durations)

    def add(self, account: TenantState) -> None:
        """Add one tenant, even if it was forgotten since the count began."""
        spec = account.tenant.spec
        totals = self.totals[spec.server, spec.strategy]
        if not spec.is_shared:
            totals += account.recorder
            account.recorder.add_unflushed_to(self.durations[spec.server, spec.strategy])

    def keep_up_with(self, earlier: Count) -> None:
        """Fall behind *earlier* nowhere.

        A histogram's slice that ended while this was counted is missing until the next time, and
        sums of seconds depend on their order in the last digit; to those who read counters, one
        that falls was reset.
        """
        for group, durations in earlier.durations.items():
            self.durations[group].keep_up_with(durations)
        for group, before in earlier.totals.items():
            now = self.totals[group]
            now.total_wait = max(now.total_wait, before.total_wait)
            now.total_hold = max(now.total_hold, before.total_hold)
            now.total_connect = max(now.total_connect, before.total_connect)
