"""What people do to open pools without changing what is wanted: evict, drain, recycle, check.

All of it works while the catalog is away; the journal keeps the events until it is back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from time import monotonic

from app.control.audit import audit_events
from app.control.audit.outbox import AuditOutbox
from app.control.keeper import Keeper, refuse_shared
from app.control.monitoring.poller import POLLER
from app.domain.audit import Actor
from app.domain.errors import PoolNotFound
from app.pools.eviction import Eviction, EvictionReason, SkippedEviction
from app.pools.manager import TenantPoolManager
from app.pools.pool import Pool
from app.pools.tenant_state import TenantState


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """How many idle connections were tested, and how many of them failed and were closed."""

    tested: int
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepReport:
    """Which pools a sweep closed, and which it left open and why."""

    evicted: tuple[Eviction, ...]
    skipped: tuple[SkippedEviction, ...]


class PoolOperations:
    """Operations on open pools, each with its event.

    Each method that names a tenant raises TenantNotFound, PoolNotFound when its pool is not
    open, and PoolIsShared when the pool serves others too and *whole_pool* does not say that
    all of them are meant.
    """

    def __init__(self, manager: TenantPoolManager, keeper: Keeper, journal: AuditOutbox) -> None:
        """Act on *manager*'s pools, through *keeper* where something wanted changes."""
        self._manager = manager
        self._keeper = keeper
        self._journal = journal
        self._closing: set[asyncio.Task[Eviction]] = set()

    async def evict(
        self, tenant_id: str, actor: Actor, *, deadline: float, whole_pool: bool = False
    ) -> Eviction:
        """Close the pool: leases get *deadline* seconds, then they are cut; 0 cuts at once."""
        account, pool = self.open_pool(tenant_id, whole_pool=whole_pool)
        await self._keeper.release_minimum(account, actor)
        # Shielded: an eviction goes on without its caller, and then it is told all the same.
        closing = self._close(pool, EvictionReason.FORCED, deadline, actor)
        eviction = await asyncio.shield(closing)
        await self._journal.flush()
        return eviction

    async def drain(
        self, tenant_id: str, actor: Actor, *, deadline: float, whole_pool: bool = False
    ) -> Pool:
        """Begin to close the pool and return at once; it refuses new leases from now on."""
        _, pool = self.open_pool(tenant_id, whole_pool=whole_pool)
        self._close(pool, EvictionReason.DRAINED, deadline, actor)
        event = audit_events.pool_operated(
            "draining", pool.pool_id, actor, tenant=tenant_id, after={"deadline_seconds": deadline}
        )
        await self._journal.record(event)
        return pool

    async def recycle(self, tenant_id: str, actor: Actor, *, whole_pool: bool = False) -> int:
        """Replace every connection without failing a borrower; how many that will be."""
        _, pool = self.open_pool(tenant_id, whole_pool=whole_pool)
        count = pool.recycle()
        event = audit_events.pool_operated(
            "recycled", pool.pool_id, actor, tenant=tenant_id, after={"connections": count}
        )
        await self._journal.record(event)
        return count

    async def check(self, tenant_id: str, actor: Actor, *, whole_pool: bool = False) -> CheckReport:
        """Test every idle connection now."""
        _, pool = self.open_pool(tenant_id, whole_pool=whole_pool)
        tested, failed = await pool.check(not_since=monotonic())
        event = audit_events.pool_operated(
            "checked",
            pool.pool_id,
            actor,
            tenant=tenant_id,
            after={"tested": tested, "failed": failed},
        )
        await self._journal.record(event)
        return CheckReport(tested=tested, failed=failed)

    async def evict_expired(self, actor: Actor) -> SweepReport:
        """Close every pool unused for longer than its idle timeout."""
        earlier = self._manager.take_evictions()
        self._manager.evict_expired()
        evicted = self._manager.take_evictions()
        await self._journal.record(
            *(audit_events.pool_evicted(eviction, POLLER) for eviction in earlier),
            *(audit_events.pool_evicted(eviction, actor) for eviction in evicted),
        )
        return SweepReport(evicted=tuple(evicted), skipped=tuple(_left_open(self._manager.pools())))

    async def close(self, deadline: float) -> None:
        """Wait until what is closing has been told, at most *deadline* seconds. Safe twice."""
        if self._closing:
            _, untold = await asyncio.wait(self._closing, timeout=deadline)
            for closing in untold:
                closing.cancel()
            await asyncio.gather(*untold, return_exceptions=True)

    def open_pool(self, tenant_id: str, *, whole_pool: bool) -> tuple[TenantState, Pool]:
        """The tenant's account and its open pool; raises as every operation does."""
        account = self._manager.tenant_state(tenant_id)
        refuse_shared(account, whole_pool=whole_pool)
        pool = self._manager.find(account.tenant.spec.pool_id)
        if pool is None:
            raise PoolNotFound(f"The pool of tenant {tenant_id} is not open.")
        return account, pool

    def _close(
        self, pool: Pool, reason: EvictionReason, deadline: float, actor: Actor
    ) -> asyncio.Task[Eviction]:
        async def close_and_tell() -> Eviction:
            eviction = await self._manager.evict(pool, reason, deadline)
            self._journal.enqueue(audit_events.pool_evicted(eviction, actor))
            return eviction

        name = f"pool {pool.pool_id}: evict and tell"
        closing = asyncio.create_task(close_and_tell(), name=name)
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        return closing


def _left_open(pools: Iterable[Pool]) -> Iterable[SkippedEviction]:
    for pool in pools:
        if pool.is_busy:
            reason = "busy"
        elif pool.size.min_size:
            reason = "min_size"
        else:
            reason = "not_expired"
        yield SkippedEviction(pool_id=pool.pool_id, reason=reason)
