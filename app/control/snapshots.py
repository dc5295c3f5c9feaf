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
from app.control.self_check import findings_of
from app.control.snapshot import PoolRow, ServerRow, Snapshot, TenantRow
from app.control.turn import next_turn
from app.domain.pool import PoolState
from app.pools.account import TenantAccount
from app.pools.lag import LoopLag
from app.pools.manager import TenantPoolManager
from app.pools.pool import TenantPool

FRESH_SECONDS = 1.0
# A turn of the loop ends after so many seconds.
_TURN = 0.002
# Taking snapshots on demand leaves at least so many parts in one of the time to everything else.
_REST = 4
# Percentiles forget in steps of a tenth of their window; until half of that is over they stand.
_SHARE_OF_WINDOW = 0.05


class Snapshots:
    """The newest snapshot, and the next one."""

    def __init__(self, manager: TenantPoolManager, catalog: Catalog, lag: LoopLag) -> None:
        """Look at *manager*'s pools; nothing is looked at yet."""
        self._manager = manager
        self._catalog = catalog
        self._lag = lag
        self._lock = asyncio.Lock()
        self._changes = 0
        self._seen_changes = 0
        self._rest_until = 0.0
        self._next_beat = asyncio.Event()
        self.newest: Snapshot | None = None
        self.beat: Snapshot | None = None
        self.is_over = False

    def outdate(self) -> None:
        """Note that something was changed: the newest snapshot does not show it."""
        self._changes += 1

    @property
    def fresh(self) -> Snapshot | None:
        """The newest snapshot if nothing better can be had; else None."""
        newest = self.newest
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
            newest = self.newest
            if newest is not None and self._seen_changes >= wanted and _is_young(newest):
                return newest
            await asyncio.sleep(max(0.0, self._rest_until - monotonic()))
            return await self._take()

    async def tick(self) -> Snapshot:
        """Take one, and let it be a beat."""
        async with self._lock:
            self.beat = await self._take()
        self._strike()
        return self.beat

    async def after(self, sequence: int) -> Snapshot | None:
        """The newest beat after *sequence*; None when there will be no more."""
        while not self.is_over and (self.beat is None or self.beat.sequence <= sequence):
            await self._next_beat.wait()
        return None if self.is_over else self.beat

    def end(self) -> None:
        """Let nobody wait for a beat any more."""
        self.is_over = True
        self._strike()

    def _strike(self) -> None:
        struck, self._next_beat = self._next_beat, asyncio.Event()
        struck.set()

    async def _take(self) -> Snapshot:
        look = _Look(self._manager, self.newest)
        changes, turn, took = self._changes, monotonic(), 0.0
        for _ in look.steps():
            if (so_long := monotonic() - turn) > _TURN:
                took += so_long
                await next_turn()
                turn = monotonic()
        took += monotonic() - turn
        await next_turn()
        self.newest = look.snapshot(self._lag, catalog_available=self._catalog.available)
        self._seen_changes = changes
        self._rest_until = monotonic() + min(_REST * took, FRESH_SECONDS)
        return self.newest


def _is_young(snapshot: Snapshot) -> bool:
    return monotonic() - snapshot.at < FRESH_SECONDS


class _Look:
    """A snapshot in the making. Rows that would be the same are taken over from the one before."""

    def __init__(self, manager: TenantPoolManager, before: Snapshot | None) -> None:
        """Begin: every tenant and pool there is now will be in it."""
        self._manager = manager
        self._before = before
        self._at = monotonic()
        self._as_of = datetime.now(UTC)
        self._pools: dict[str, PoolRow] = {}
        self._tenants: dict[str, TenantRow] = {}
        # All in one turn: what is deleted meanwhile is still counted, and counted once.
        self._count = manager.ledger.count()
        self._accounts = list(manager.accounts.values())
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
            self._count.add(account)
            yield
        # What is nearly in order already is sorted quickly.
        self._pools = dict(sorted(self._pools.items()))
        yield
        self._tenants = dict(sorted(self._tenants.items()))

    def snapshot(self, lag: LoopLag, *, catalog_available: bool) -> Snapshot:
        """What was seen."""
        manager, before = self._manager, self._before
        if before is not None:
            self._count.keep_up_with(before.count)
        return Snapshot(
            sequence=1 if before is None else before.sequence + 1,
            at=self._at,
            as_of=self._as_of,
            pools=self._pools,
            tenants=self._tenants,
            count=self._count,
            servers=tuple(
                ServerRow(
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
            loop_lag=(lag.now, lag.worst),
            catalog_available=catalog_available,
        )

    def _pool(self, pool: TenantPool, before: PoolRow | None) -> PoolRow:
        manager, metrics, recorder = self._manager, pool.metrics, pool.recorder
        desired = manager.desired.get(pool.pool_id)
        access_count, tenants = manager.access_count(pool), manager.tenants_of(pool.pool_id)
        suspects = tuple(pool.leak_suspects(self._at)) if metrics.active_connections else ()
        mark = (
            *(recorder.version, recorder.created_at, pool.state, pool.size, desired),
            *(access_count, tenants, suspects),
            *(metrics.total_connections, metrics.active_connections, metrics.waiting_requests),
        )
        if before is not None and before.mark == mark and self._stands(before):
            return before
        return PoolRow(
            mark=mark,
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
            metrics=metrics,
            stats=recorder.stats(metrics, monotonic()),
            access_count=access_count,
            suspects=suspects,
        )

    def _tenant(self, account: TenantAccount, before: TenantRow | None) -> TenantRow:
        spec = account.tenant.spec
        pool = self._pools.get(spec.pool_id)
        own = pool if pool is not None and not spec.is_shared else None
        state = PoolState.CLOSED if pool is None else pool.state
        size = pool.size if pool else self._manager.desired_size(spec.pool_id, spec.strategy)
        most = min(spec.max_leases or size.max_size, size.max_size)
        recorder = account.recorder
        mark = (
            *(spec, state, most, own and own.stats),
            *(recorder.version, recorder.created_at, account.leased, account.waiting),
        )
        if before is not None and before.mark == mark and self._stands(before):
            return before
        return TenantRow(
            mark=mark,
            measured_at=own.measured_at if own else self._at,
            spec=spec,
            pool_state=state,
            max_size=most,
            stats=own.stats if own else recorder.stats(account.metrics, monotonic()),
        )

    def _stands(self, row: PoolRow | TenantRow) -> bool:
        """Whether its percentiles still are what they would be."""
        stats = row.stats
        if self._at - row.measured_at < _SHARE_OF_WINDOW * stats.window_seconds:
            return True
        return all(each.p50_ms is None for each in (stats.wait, stats.hold, stats.connect))
