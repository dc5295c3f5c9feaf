"""Snapshots: takes them, one at a time and in slices, so that the event loop is never kept long.

One is taken at each poll: that is the beat others follow. Between two beats a new one is taken
when somebody asks and the newest is older than a second, or a change was made since: whoever
writes and then reads sees what they wrote.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from time import monotonic

from app.catalog.catalog import Catalog
from app.control.background.yield_to_loop import yield_to_loop
from app.control.monitoring.isolation_audit import findings_of
from app.control.monitoring.snapshot import PoolSnapshot, ServerSnapshot, Snapshot, TenantSnapshot
from app.domain.pool import PoolState
from app.pools.event_loop_lag import EventLoopLag
from app.pools.manager import TenantPoolManager
from app.pools.pool import Pool
from app.pools.tenant_state import TenantState

MAX_AGE_SECONDS = 1.0
# A turn of the loop ends after so many seconds.
_SLICE_SECONDS = 0.002
# Taking snapshots on demand leaves at least so many parts in one of the time to everything else.
_REST_FACTOR = 4
# Percentiles forget in steps of a tenth of their window; until half of that is over they stand.
_REUSE_WINDOW_RATIO = 0.05


class Snapshots:
    """The newest snapshot, and the next one."""

    def __init__(self, manager: TenantPoolManager, catalog: Catalog, lag: EventLoopLag) -> None:
        """Look at *manager*'s pools; nothing is looked at yet."""
        self._manager = manager
        self._catalog = catalog
        self._lag = lag
        self._lock = asyncio.Lock()
        self._changes = 0
        self._seen_changes = 0
        self._rest_until = 0.0
        self._next_beat = asyncio.Event()
        self.latest: Snapshot | None = None
        self.published: Snapshot | None = None
        self.is_closed = False

    def invalidate(self) -> None:
        """Note that something was changed: the newest snapshot does not show it."""
        self._changes += 1

    @property
    def fresh(self) -> Snapshot | None:
        """The newest snapshot if nothing better can be had; else None."""
        newest = self.latest
        if newest is None or self._seen_changes != self._changes:
            return None
        return newest if _is_young(newest) else None

    async def current(self) -> Snapshot:
        """A snapshot that shows all changes made before this was called."""
        wanted = self._changes
        newest = self.fresh
        if newest is not None:
            return newest
        async with self._lock:
            newest = self.latest
            if newest is not None and self._seen_changes >= wanted and _is_young(newest):
                return newest
            await asyncio.sleep(max(0.0, self._rest_until - monotonic()))
            return await self._take()

    async def publish(self) -> Snapshot:
        """Take one, and let it be a beat."""
        async with self._lock:
            self.published = await self._take()
        self._strike()
        return self.published

    async def wait_published(self, sequence: int) -> Snapshot | None:
        """The newest beat after *sequence*; None when there will be no more."""
        while not self.is_closed and (
            self.published is None or self.published.sequence <= sequence
        ):
            await self._next_beat.wait()
        return None if self.is_closed else self.published

    def close(self) -> None:
        """Let nobody wait for a beat any more."""
        self.is_closed = True
        self._strike()

    def _strike(self) -> None:
        struck, self._next_beat = self._next_beat, asyncio.Event()
        struck.set()

    async def _take(self) -> Snapshot:
        look = _SnapshotBuilder(self._manager, self.latest)
        changes, turn, took = self._changes, monotonic(), 0.0
        for _ in look.steps():
            if (so_long := monotonic() - turn) > _SLICE_SECONDS:
                took += so_long
                await yield_to_loop()
                turn = monotonic()
        took += monotonic() - turn
        await yield_to_loop()
        self.latest = look.snapshot(self._lag, catalog_available=self._catalog.available)
        self._seen_changes = changes
        self._rest_until = monotonic() + min(_REST_FACTOR * took, MAX_AGE_SECONDS)
        return self.latest


def _is_young(snapshot: Snapshot) -> bool:
    return monotonic() - snapshot.at < MAX_AGE_SECONDS


class _SnapshotBuilder:
    """A snapshot in the making. Rows that would be the same are taken over from the one before."""

    def __init__(self, manager: TenantPoolManager, before: Snapshot | None) -> None:
        """Begin: every tenant and pool there is now will be in it."""
        self._manager = manager
        self._before = before
        self._at = monotonic()
        self._as_of = datetime.now(UTC)
        self._pools: dict[str, PoolSnapshot] = {}
        self._tenants: dict[str, TenantSnapshot] = {}
        # All in one turn: what is deleted meanwhile is still counted, and counted once.
        self._totals = manager.service_metrics.totals()
        self._accounts = list(manager.tenant_states.values())
        self._open = list(manager.pools())

    def steps(self) -> Iterator[None]:
        """Look at one thing after the other."""
        pools = self._before.pools if self._before else {}
        for pool in self._open:
            if pool.state is not PoolState.CLOSED:
                self._pools[pool.pool_id] = self._pool(pool, pools.get(pool.pool_id))
            yield
        tenants = self._before.tenants if self._before else {}
        for account in self._accounts:
            name = account.tenant.spec.id
            self._tenants[name] = self._tenant(account, tenants.get(name))
            self._totals.add(account)
            yield
        # What is nearly in order already is sorted quickly.
        self._pools = dict(sorted(self._pools.items()))
        yield
        self._tenants = dict(sorted(self._tenants.items()))

    def snapshot(self, lag: EventLoopLag, *, catalog_available: bool) -> Snapshot:
        """What was seen."""
        manager, before = self._manager, self._before
        if before is not None:
            self._totals.raise_to(before.totals)
        return Snapshot(
            sequence=1 if before is None else before.sequence + 1,
            at=self._at,
            as_of=self._as_of,
            pools=self._pools,
            tenants=self._tenants,
            totals=self._totals,
            servers=tuple(
                ServerSnapshot(
                    name=name,
                    state=server.state,
                    max_connections=server.limits.max_connections if server.limits else None,
                    budget=server.budget.limit,
                    used=server.budget.used,
                )
                for name, server in sorted(manager.servers.items())
            ),
            evictions=Counter(manager.evictions),
            findings=Counter(
                (spec.server, spec.strategy, found.severity) for spec, found in findings_of(manager)
            ),
            loop_lag=(lag.latest, lag.worst),
            catalog_available=catalog_available,
        )

    def _pool(self, pool: Pool, before: PoolSnapshot | None) -> PoolSnapshot:
        manager, metrics, recorder = self._manager, pool.metrics, pool.recorder
        desired = manager.desired.get(pool.pool_id)
        access_count, tenants = manager.access_count(pool), manager.tenant_count(pool.pool_id)
        suspects = tuple(pool.leak_suspects(self._at)) if metrics.active_connections else ()
        mark = (
            *(recorder.counters, recorder.created_at, pool.state, pool.size, desired),
            *(access_count, tenants, suspects),
            *(metrics.total_connections, metrics.active_connections, metrics.waiting_requests),
        )
        if before is not None and before.inputs == mark and self._is_current(before):
            return before
        return PoolSnapshot(
            inputs=mark,
            measured_at=self._at,
            pool_id=pool.pool_id,
            server=pool.server.name,
            strategy=pool.config.strategy,
            state=pool.state,
            size=pool.size,
            desired=desired.size if desired else pool.config.default_size,
            paused=desired.paused if desired else False,
            generation=desired.generation if desired else 0,
            tenants=tenants,
            stats=recorder.stats(metrics, monotonic()),
            access_count=access_count,
            suspects=suspects,
        )

    def _tenant(self, account: TenantState, before: TenantSnapshot | None) -> TenantSnapshot:
        spec = account.tenant.spec
        pool = self._pools.get(spec.pool_id)
        own = pool if pool is not None and not spec.is_shared else None
        state = PoolState.CLOSED if pool is None else pool.state
        size = pool.size if pool else self._manager.desired_size(spec.pool_id, spec.strategy)
        most = min(spec.max_leases or size.max_size, size.max_size)
        recorder = account.recorder
        mark = (
            *(spec, state, most, own and own.stats),
            *(recorder.counters, recorder.created_at, account.leased, account.waiting),
        )
        if before is not None and before.inputs == mark and self._is_current(before):
            return before
        return TenantSnapshot(
            inputs=mark,
            measured_at=own.measured_at if own else self._at,
            spec=spec,
            pool_state=state,
            max_size=most,
            stats=own.stats if own else recorder.stats(account.metrics, monotonic()),
        )

    def _is_current(self, row: PoolSnapshot | TenantSnapshot) -> bool:
        """Whether its percentiles still are what they would be."""
        stats = row.stats
        if self._at - row.measured_at < _REUSE_WINDOW_RATIO * stats.window_seconds:
            return True
        return all(each.p50_ms is None for each in (stats.wait, stats.hold, stats.connect))
