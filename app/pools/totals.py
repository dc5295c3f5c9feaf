"""Counters and histograms of the whole service, by server and strategy.

This file creates the recorders and sums up what they count, so that nothing is lost or counted
twice when tenants are deleted: a shared pool's recorder counts the leases of all its tenants.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from app.domain.counters import Counters, Durations
from app.domain.tenant import PoolStrategy, TenantSpec
from app.pools.recorder import Recorder
from app.pools.tenant_state import TenantState

MetricGroup = tuple[str, PoolStrategy]
"""A server's name, and a strategy."""


class CounterTotals:
    """All recorders, and the sums of their counts, including those of deleted tenants."""

    def __init__(self, window: float) -> None:
        """Percentiles of its recorders cover *window* seconds."""
        self._window = window
        self._shared: dict[str, Recorder] = {}
        self._counters: defaultdict[MetricGroup, Counters] = defaultdict(Counters)
        # Sums of ended slices.
        self._durations: defaultdict[MetricGroup, Durations] = defaultdict(Durations)

    def recorder_for(self, spec: TenantSpec) -> Recorder:
        group = (spec.server, spec.strategy)
        # Zeros, so that Prometheus sees the first increase.
        self._counters.setdefault(group, Counters())
        return Recorder(self._window, None if spec.is_shared else self._durations[group])

    def shared_recorder(self, server: str) -> Recorder:
        if server not in self._shared:
            durations = self._durations[server, PoolStrategy.SHARED]
            self._shared[server] = Recorder(self._window, durations)
        return self._shared[server]

    def add_deleted(self, state: TenantState) -> None:
        """Keep the counts of a deleted tenant's recorder."""
        spec = state.tenant.spec
        if not spec.is_shared:
            if growth := state.recorder.take_growth():
                self._counters[spec.server, spec.strategy] += growth
            state.recorder.flush()

    def totals(self) -> Totals:
        """Start totals, to which the caller adds every present tenant."""
        durations: defaultdict[MetricGroup, Durations] = defaultdict(Durations)
        for group, ended in self._durations.items():
            durations[group].merge(ended)
        totals = Totals(self._counters, durations)
        for server, recorder in self._shared.items():
            totals.add_recorder((server, PoolStrategy.SHARED), recorder)
        return totals


@dataclass(slots=True, eq=False)
class Totals:
    """Sums by server and strategy since the service started, computed in steps."""

    counters: defaultdict[MetricGroup, Counters]
    durations: defaultdict[MetricGroup, Durations]

    def add_recorder(self, group: MetricGroup, recorder: Recorder) -> None:
        """Add a recorder's counts, unless they have been added already."""
        if growth := recorder.take_growth():
            self.counters[group] += growth
        recorder.add_unflushed_to(self.durations[group])

    def add(self, state: TenantState) -> None:
        """Add a tenant, even if it was deleted since the totals were started."""
        spec = state.tenant.spec
        if not spec.is_shared:
            self.add_recorder((spec.server, spec.strategy), state.recorder)

    def complete(self, before: Totals | None) -> None:
        """Finish the sums. None is below *before*: Prometheus would take that for a restart.

        A histogram slice that ended between two steps is missing until the next totals.
        """
        self.counters = self.counters.copy()
        for group, durations in before.durations.items() if before else ():
            self.durations[group].raise_to(durations)
