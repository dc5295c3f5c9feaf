"""Poller: measures every pool, stores the samples, closes what nobody uses, asks for advice.

Nothing here waits for a tenant's server: a hung one must not keep the others from being
seen. Testing connections is `checker.py`'s.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import monotonic

import structlog

from app.catalog.catalog import Catalog
from app.control import told
from app.control.advising import Advising
from app.control.journal import Journal
from app.domain.errors import CatalogUnavailable
from app.domain.event import Actor
from app.domain.sample import PoolSample
from app.pools.manager import TenantPoolManager

POLLER = Actor(name="poller")
# After so many pools the loop gets a turn, so that a poll never keeps it for long.
_SLICE = 50
_FORGET_EVERY = 60.0
# Rows encoded at once, for the same reason.
_BATCH = 500

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
        advising: Advising,
        journal: Journal,
        *,
        retention: timedelta,
    ) -> None:
        """Measure *manager*'s pools; samples older than *retention* are deleted."""
        self._catalog = catalog
        self._manager = manager
        self._advising = advising
        self._journal = journal
        self._retention = retention
        self._forget_due = 0.0
        self.last: PollReport | None = None
        self.last_at: float | None = None

    async def run_once(self) -> PollReport:
        """Measure, sweep, evict, advise and store, once."""
        began = monotonic()
        samples = await self._measure()
        closed, suspects = await self._sweep()
        self._manager.evict_expired()
        evicted = self._manager.take_evictions()
        await self._journal.record(*(told.pool_evicted(gone, POLLER) for gone in evicted))
        recommendations, stored = 0, 0
        try:
            recommendations = await self._advising.tick()
            for first in range(0, len(samples), _BATCH):
                await self._catalog.samples.add(samples[first : first + _BATCH])
            stored = len(samples)
            await self._forget_old()
        except CatalogUnavailable as error:
            _log.warning("samples not stored", reason=error.detail)
        self.last_at = monotonic()
        self.last = PollReport(
            pools=self._manager.active_pools,
            samples_stored=stored,
            connections_closed=closed,
            pools_evicted=len(evicted),
            recommendations=recommendations,
            leak_suspects=suspects,
            took_seconds=self.last_at - began,
        )
        return self.last

    async def _measure(self) -> list[PoolSample]:
        """A sample of every open pool, and of every shared tenant that did something lately."""
        at = datetime.now(UTC)
        samples: list[PoolSample] = []
        for count, pool in enumerate(list(self._manager.pools()), start=1):
            samples.append(
                PoolSample(
                    subject=pool.pool_id,
                    at=at,
                    total_connections=pool.metrics.total_connections,
                    stats=self._manager.pool_stats(pool),
                )
            )
            if count % _SLICE == 0:
                await asyncio.sleep(0)
        for count, account in enumerate(self._manager.recently_active(), start=1):
            stats = self._manager.tenant_stats(account)
            samples.append(
                PoolSample(subject=account.tenant.spec.id, at=at, total_connections=0, stats=stats)
            )
            if count % _SLICE == 0:
                await asyncio.sleep(0)
        return samples

    async def _sweep(self) -> tuple[int, int]:
        closed = suspects = 0
        for count, pool in enumerate(list(self._manager.pools()), start=1):
            now = monotonic()
            closed += pool.sweep(now)
            suspects += len(pool.leak_suspects(now))
            if count % _SLICE == 0:
                await asyncio.sleep(0)
        return closed, suspects

    async def _forget_old(self) -> None:
        now = monotonic()
        if now >= self._forget_due:
            self._forget_due = now + _FORGET_EVERY
            await self._catalog.samples.delete_before(datetime.now(UTC) - self._retention)
