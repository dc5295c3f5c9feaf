"""The poller: measures every pool, stores samples, closes what is idle, runs the advisor.

Nothing here waits for a tenant's server, so a hanging server does not delay the measurement of
others.
"""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from time import monotonic

import structlog

from app.catalog.catalog import Catalog
from app.control import audit_events
from app.control.advisor.advisor_loop import AdvisorLoop
from app.control.audit_outbox import AuditOutbox
from app.control.monitoring.node_samples import NodeSamples
from app.control.monitoring.sampler import Sampler
from app.control.monitoring.server_changes import ServerChanges
from app.control.monitoring.snapshot import Snapshot, Snapshots
from app.control.time_slices import TimeSlices, in_slices
from app.domain.audit import POLLER
from app.domain.errors import CatalogUnavailable
from app.domain.history import SERVICE, PoolSample, Resolution, tenant_of
from app.domain.pool import PoolStats
from app.pools.leak_detection import leak_suspects
from app.pools.manager import TenantPoolManager

# Rows encoded at once, so that a poll never blocks the event loop for long.
_BATCH = 200

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PollReport:
    """The result of one poll."""

    pools: int
    samples_stored: int
    connections_closed: int
    pools_evicted: int
    recommendations: int
    leak_suspects: int
    took_seconds: float


class Poller:
    """Polls, one at a time."""

    def __init__(
        self,
        catalog: Catalog,
        manager: TenantPoolManager,
        advisor_loop: AdvisorLoop,
        outbox: AuditOutbox,
        snapshots: Snapshots,
        *,
        nodes: NodeSamples,
    ) -> None:
        self._catalog = catalog
        self._manager = manager
        self._advisor_loop = advisor_loop
        self._outbox = outbox
        self._snapshots = snapshots
        self._nodes = nodes
        self.poll_count = 0
        self._sampler = Sampler()
        self._server_changes = ServerChanges(manager.servers)
        self._unsaved: list[PoolSample] = []
        self.last_report: PollReport | None = None
        self.last_at: float | None = None
        # All samples of minutes before this one are stored; it may go back.
        self.stored_until: datetime | None = None
        # Of the first poll, and of the first one after each time that the clock was set back. From
        # there on, samples of an earlier instance, or of this one, may be downsampled already.
        self.sampled_since: datetime | None = None
        self._sampled_at: datetime | None = None

    async def run_once(self) -> PollReport:
        """Measure, close what expired, advise and store."""
        began = monotonic()
        stored = await self._measure(await self._snapshots.publish())
        closed, suspects = await self._close_expired()
        evicted = await self._evict_expired()
        await self._outbox.record(*self._server_changes.take_events())
        recommendations = 0
        try:
            recommendations = await self._advisor_loop.tick()
        except CatalogUnavailable as error:
            _log.warning("advisor tick failed", reason=error.detail)
        self.poll_count += 1
        self.last_at = monotonic()
        self.last_report = PollReport(
            pools=self._manager.active_pools,
            samples_stored=stored,
            connections_closed=closed,
            pools_evicted=evicted,
            recommendations=recommendations,
            leak_suspects=suspects,
            took_seconds=self.last_at - began,
        )
        return self.last_report

    async def finish(self) -> None:
        """Measure for the last time, and store everything."""
        await self._measure(await self._snapshots.publish())
        self._unsaved += self._sampler.end_all()
        with suppress(CatalogUnavailable):
            await self._save()

    async def _measure(self, snapshot: Snapshot) -> int:
        """Sample every open pool and recently active tenant; return the number of stored samples.

        Samples are stored in batches: thousands of them in memory would trigger a full garbage
        collection, which takes longer than all slices of this poll.
        """
        stored, at, slices = 0, datetime.now(UTC), TimeSlices()
        if self._sampled_at is None or at < self._sampled_at:
            self.sampled_since = at
        self._sampled_at = at
        try:
            stored += await self._save()
            held = await self._running_seconds(slices)
            service = snapshot.service
            held += service.counters.hold_seconds
            size = service.metrics.total_connections
            self._unsaved += self._sampler.sample(SERVICE, at, size, service, held)
            for found in self._subjects(snapshot):
                if found is not None:
                    subject, size, stats, held = found
                    self._unsaved += self._sampler.sample(subject, at, size, stats, held)
                if len(self._unsaved) >= _BATCH:
                    stored += await self._save()
                await slices.end_step()
            await slices.end()
            for sample in self._sampler.end_missing(at, self._is_known):
                self._unsaved.append(sample)
                await slices.end_step()
            stored += await self._save()
        except CatalogUnavailable as error:
            _log.warning("samples not stored", reason=error.detail)
        else:
            self.stored_until = Resolution.MINUTE.floor(at)
        return stored

    async def _save(self) -> int:
        """Store the samples not yet stored.

        After a failure it is unknown whether the samples are stored. They are stored again before
        anything else is measured, so that no count is lost or doubled.
        """
        unsaved, self._unsaved = self._unsaved, []
        try:
            for first in range(0, len(unsaved), _BATCH):
                await self._catalog.samples.add(unsaved[first : first + _BATCH])
        except (CatalogUnavailable, asyncio.CancelledError):
            self._unsaved = unsaved
            raise
        return len(unsaved)

    def _subjects(self, snapshot: Snapshot) -> Iterator[tuple[str, int, PoolStats, float] | None]:
        """The subjects to sample: id, size, statistics, and connection-seconds so far.

        None for each tenant that is none, so that no step takes long.
        """
        held = self._manager.connection_seconds
        for pool in snapshot.pools.values():
            size = pool.stats.metrics.total_connections
            yield pool.pool_id, size, pool.stats, held(pool.pool_id, monotonic())
        # Tenants of shared pools, and those whose own pool was closed in the meantime.
        for state in self._manager.recently_active_tenants():
            tenant = snapshot.tenants.get(state.tenant.spec.id) if state else None
            if tenant is None or tenant.spec.id in snapshot.pools:
                yield None
            else:
                yield tenant.spec.id, 0, tenant.stats, held(tenant.spec.id, monotonic())
        for subject, stats, seconds in self._nodes.measure():
            yield subject, stats.metrics.total_connections, stats, seconds

    async def _running_seconds(self, slices: TimeSlices) -> float:
        """Connection-seconds so far of the leases that have not ended."""
        seconds = 0.0
        for pool in list(self._manager.pools()):
            seconds += pool.connections.leased_seconds(monotonic())
            await slices.end_step()
        await slices.end()
        return seconds

    def _is_known(self, subject: str) -> bool:
        """Whether its counters are kept: a deleted tenant restarts at zero.

        A shared pool continues.
        """
        tenant = tenant_of(subject)
        return tenant is None or tenant in self._manager.tenants

    async def _evict_expired(self) -> int:
        """Close idle pools; their events, and those of pools evicted before, go to the outbox."""
        count, manager = 0, self._manager
        async for gone in in_slices(chain(manager.evict_expired(), manager.take_evictions())):
            count += 1
            if gone.is_notable:
                self._outbox.enqueue(audit_events.pool_evicted(gone, POLLER))
        return count

    async def _close_expired(self) -> tuple[int, int]:
        closed, suspects, slices = 0, 0, TimeSlices()
        for pool in list(self._manager.pools()):
            now = monotonic()
            closed += pool.close_expired(now)
            suspects += len(leak_suspects(pool, now))
            await slices.end_step()
        return closed, suspects
