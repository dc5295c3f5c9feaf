"""Poller: measures every pool, stores the samples, closes what nobody uses, asks for advice.

Nothing here waits for a tenant's server: a hung one must not keep the others from being
seen. Testing connections is `checker.py`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic

import structlog

from app.catalog.catalog import Catalog
from app.control.advisor.advisor_loop import AdvisorLoop
from app.control.audit import audit_events
from app.control.audit.outbox import AuditOutbox
from app.control.background.yield_to_loop import yield_to_loop
from app.control.monitoring.sampler import Sampler
from app.control.monitoring.snapshot import Snapshot, Snapshots
from app.domain.audit import POLLER
from app.domain.errors import CatalogUnavailable
from app.domain.history import PoolSample, Resolution
from app.domain.pool import PoolStats
from app.pools.manager import TenantPoolManager

# After so many pools the loop gets a turn, so that a poll never keeps it for long.
_SLICE = 50
# Rows encoded at once, for the same reason.
_BATCH = 200

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PollReport:
    """What one poll did."""

    pools: int
    samples_stored: int
    connections_closed: int
    pools_evicted: int
    recommendations: int
    leak_suspects: int
    took_seconds: float


class Poller:
    """One poll after the other, each leaving a report."""

    def __init__(
        self,
        catalog: Catalog,
        manager: TenantPoolManager,
        advising: AdvisorLoop,
        journal: AuditOutbox,
        snapshots: Snapshots,
    ) -> None:
        """Measure *manager*'s pools."""
        self._catalog = catalog
        self._manager = manager
        self._advising = advising
        self._journal = journal
        self._snapshots = snapshots
        self.poll_count = 0
        self._sampling = Sampler()
        self._unsaved: list[PoolSample] = []
        self.last_report: PollReport | None = None
        self.last_at: float | None = None
        # When a minute began before which everything measured is stored; it may go back.
        self.stored_until: datetime | None = None

    async def run_once(self) -> PollReport:
        """Measure, sweep, evict, advise and store, once."""
        began = monotonic()
        stored = await self._measure(await self._snapshots.publish())
        closed, suspects = await self._sweep()
        self._manager.evict_expired()
        evicted = self._manager.take_evictions()
        await self._journal.record(*(audit_events.pool_evicted(gone, POLLER) for gone in evicted))
        recommendations = 0
        try:
            recommendations = await self._advising.tick()
        except CatalogUnavailable as error:
            _log.warning("not advised", reason=error.detail)
        self.poll_count += 1
        self.last_at = monotonic()
        self.last_report = PollReport(
            pools=self._manager.active_pools,
            samples_stored=stored,
            connections_closed=closed,
            pools_evicted=len(evicted),
            recommendations=recommendations,
            leak_suspects=suspects,
            took_seconds=self.last_at - began,
        )
        return self.last_report

    async def _measure(self, snapshot: Snapshot) -> int:
        """Store what is new of every open pool and shared tenant active lately; how many samples.

        Batch by batch: holding thousands at once makes Python's garbage collector look at
        everything there is, which takes longer than all our own slices together.
        """
        stored, at = 0, datetime.now(UTC)
        try:
            stored += await self._save()
            for count, (subject, size, stats) in enumerate(self._subjects(snapshot), start=1):
                self._unsaved += self._sampling.sample(subject, at, size, stats)
                if len(self._unsaved) >= _BATCH:
                    stored += await self._save()
                elif count % _SLICE == 0:
                    await yield_to_loop()
            self._unsaved += self._sampling.end_missing(at, self._is_known)
            stored += await self._save()
        except CatalogUnavailable as error:
            _log.warning("samples not stored", reason=error.detail)
        else:
            self.stored_until = Resolution.MINUTE.floor(at)
        return stored

    async def _save(self) -> int:
        """Store what is not stored yet.

        When that fails nobody knows whether it was: the same samples are stored again before
        anything else is measured, so that nothing they counted is lost, or told twice.
        """
        unsaved, self._unsaved = self._unsaved, []
        try:
            for first in range(0, len(unsaved), _BATCH):
                await self._catalog.samples.add(unsaved[first : first + _BATCH])
        except (CatalogUnavailable, asyncio.CancelledError):
            self._unsaved = unsaved
            raise
        return len(unsaved)

    def _subjects(self, snapshot: Snapshot) -> Iterator[tuple[str, int, PoolStats]]:
        for pool in snapshot.pools.values():
            yield pool.pool_id, pool.stats.metrics.total_connections, pool.stats
        for account in self._manager.recently_active_tenants():
            tenant = snapshot.tenants.get(account.tenant.spec.id)
            if tenant is not None:
                yield tenant.spec.id, 0, tenant.stats

    def _is_known(self, subject: str) -> bool:
        """A deleted tenant begins anew; a server's shared pool counts on when it opens again."""
        return "@" in subject or subject in self._manager.tenant_states

    async def _sweep(self) -> tuple[int, int]:
        closed = suspects = 0
        for count, pool in enumerate(list(self._manager.pools()), start=1):
            now = monotonic()
            closed += pool.close_expired(now)
            suspects += len(pool.leak_suspects(now))
            if count % _SLICE == 0:
                await yield_to_loop()
        return closed, suspects
