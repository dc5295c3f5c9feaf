"""Changes of pools made while the catalog is unreachable: a pause or its end, and a recycling.

Such a change takes effect at once, and is kept in memory until the catalog is back; then the
Reconciler stores it. Until then its audit event waits in the outbox. If the process ends before
that, the change is lost.
"""

from app.catalog.catalog import Catalog
from app.control.audit_outbox import AuditOutbox
from app.control.keyed_locks import KeyedLocks
from app.domain.audit import AuditEvent
from app.domain.desired_pool import DesiredPool
from app.pools.manager import TenantPoolManager


class UnsavedChanges:
    """The pools whose desired state is newer in memory than in the catalog."""

    def __init__(
        self, catalog: Catalog, manager: TenantPoolManager, outbox: AuditOutbox, locks: KeyedLocks
    ) -> None:
        self._catalog = catalog
        self._manager = manager
        self._outbox = outbox
        self._locks = locks
        self._pools: set[str] = set()

    def __contains__(self, pool_id: str) -> bool:
        return pool_id in self._pools

    def keep(self, desired: DesiredPool, event: AuditEvent) -> None:
        """Apply a change that the catalog could not store."""
        self._pools.add(desired.pool_id)
        self._manager.desired.put(desired)
        self._enqueue(event)

    def saved(self, pool_id: str, event: AuditEvent) -> None:
        """Drop the kept change: a later one of the pool was stored, though without its *event*."""
        self._pools.discard(pool_id)
        self._enqueue(event)

    async def save(self) -> int:
        """Store all of them; return the number of pools.

        Raises:
            CatalogUnavailable
        """
        count = 0
        for pool_id in list(self._pools):
            async with self._locks.hold_if_free(pool_id) as is_free:
                if not is_free:  # another change is under way; the next tick saves it
                    continue
                desired = self._manager.desired.get(pool_id)
                if pool_id in self._pools and desired is not None:
                    stored, _ = await self._catalog.pools.save(
                        pool_id, desired.size, pause=desired.pause, recycles=desired.recycles
                    )
                    self._manager.desired.put(stored)
                    count += 1
                self._pools.discard(pool_id)
        return count

    def _enqueue(self, event: AuditEvent) -> None:
        if event.before != event.after:
            self._outbox.enqueue(event)
