"""Counters and histograms of the whole service, by server and strategy.

Gives out the recorders and keeps what deleted tenants counted, so that nothing is lost or counted
twice: a shared pool's recorder counts the leases of all its tenants.
"""

from __future__ import annotations

from collections import defaultdict

from app.domain.counters import Counters, Durations
from app.domain.tenant import PoolStrategy, TenantSpec
from app.pools.recorder import Recorder
from app.pools.tenant_state import TenantState

MetricGroup = tuple[str, PoolStrategy]
"""A server's name, and a strategy."""


class ServiceMetrics:
    """All recorders, and the counters of those that are gone."""

    def __init__(self, window: float) -> None:
        """Percentiles of its recorders cover *window* seconds."""
        self._window = window
        self._shared: dict[str, Recorder] = {}
        self._deleted: defaultdict[MetricGroup, Counters] = defaultdict(Counters)
        self._durations: defaultdict[MetricGroup, Durations] = defaultdict(Durations)

    def recorder_for(self, spec: TenantSpec) -> Recorder:
        """A new recorder for a tenant."""
        if spec.is_shared:
            return Recorder(self._window)
        return Recorder(self._window, self._durations[spec.server, spec.strategy])

    def shared_recorder(self, server: str) -> Recorder:
        """The recorder of a server's shared pool."""
        if server not in self._shared:
            durations = self._durations[server, PoolStrategy.SHARED]
            self._shared[server] = Recorder(self._window, durations)
        return self._shared[server]

    def add_deleted(self, state: TenantState) -> None:
        """Keep what a deleted tenant's recorder has counted."""
        spec = state.tenant.spec
        if not spec.is_shared:
            self._deleted[spec.server, spec.strategy] += state.recorder.counters
            state.recorder.flush()

    def totals(self) -> Totals:
        """Totals that are complete once every tenant there is now has been added."""
        totals = Totals()
        for group, counters in self._deleted.items():
            totals.counters[group] += counters
        for group, durations in self._durations.items():
            totals.durations[group].merge(durations)
        for server, recorder in self._shared.items():
            totals.add_recorder((server, PoolStrategy.SHARED), recorder)
        return totals


class Totals:
    """Sums by server and strategy, made in steps."""

    def __init__(self) -> None:
        self.counters: defaultdict[MetricGroup, Counters] = defaultdict(Counters)
        self.durations: defaultdict[MetricGroup, Durations] = defaultdict(Durations)

    def add_recorder(self, group: MetricGroup, recorder: Recorder) -> None:
        """Add what one recorder has counted."""
        self.counters[group] += recorder.counters
        recorder.add_unflushed_to(self.durations[group])

    def add(self, state: TenantState) -> None:
        """Add one tenant, even if it was deleted since the totals were begun."""
        spec = state.tenant.spec
        if not spec.is_shared:
            self.add_recorder((spec.server, spec.strategy), state.recorder)

    def raise_to(self, earlier: Totals) -> None:
        """Let nothing be less than in *earlier*, since Prometheus takes that for a restart.

        A histogram's slice that ended between two steps is missing until the next time, and sums
        of seconds depend on their order in the last digit.
        """
        for group, counters in earlier.counters.items():
            self.counters[group] = self.counters[group].raised_to(counters)
        for group, durations in earlier.durations.items():
            self.durations[group].raise_to(durations)
