"""The outbox of audit events that are not stored yet."""

import asyncio
from collections import Counter, deque
from collections.abc import Sequence

import structlog

from app.catalog.audit_log import log
from app.catalog.catalog import Catalog
from app.domain.advisor.fair_share import fair_level
from app.domain.audit import AuditEvent
from app.domain.errors import CatalogUnavailable

_CAPACITY = 10_000
_BATCH = 500

_log = structlog.get_logger(__name__)


class AuditOutbox:
    """Stores the events of operations, evictions and background tasks in batches.

    Changes of desired state store their events in their own transactions. While the catalog is
    unreachable, the newest events are kept here and stored when it is back. When memory for them is
    full, those of whom most are kept lose their oldest: nobody loses one to the load of another.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._pending: deque[AuditEvent] = deque()
        self._in_flight: Sequence[AuditEvent] = ()
        self._flushing = asyncio.Lock()
        self._failed_flushes = 0
        self.dropped = 0

    @property
    def pending(self) -> Sequence[AuditEvent]:
        """Events not yet stored, oldest first."""
        return (*self._in_flight, *self._pending)

    async def record(self, *events: AuditEvent) -> None:
        """Store *events* now, or when the catalog is back."""
        self.enqueue(*events)
        await self.flush()

    def enqueue(self, *events: AuditEvent) -> None:
        """Store *events* with the next flush; if there are too many, some are dropped."""
        for event in events:
            log(event)
        self._pending.extend(events)
        if len(self._in_flight) + len(self._pending) > _CAPACITY:
            self._make_room()

    def _make_room(self) -> None:
        """Drop events until there is room for another batch."""
        room = _CAPACITY - _BATCH - len(self._in_flight)
        counts = Counter(map(_owner, self._pending))
        level = int(fair_level(room, [(count, 1) for count in counts.values()]) or 0)
        left = dict.fromkeys(counts, level)
        # What the rounded level leaves: the newest events have it, one of each owner.
        spare = room - sum(min(count, level) for count in counts.values())
        newest: deque[AuditEvent] = deque()
        for event in reversed(self._pending):
            owner = _owner(event)
            if left[owner] == 0 and spare:
                spare -= 1
            elif left[owner] <= 0:
                continue
            left[owner] -= 1
            newest.appendleft(event)
        self.dropped += len(self._pending) - len(newest)
        self._pending = newest

    async def flush(self) -> None:
        """Store pending events if the catalog is reachable."""
        failed_before = self._failed_flushes
        async with self._flushing:  # one at a time: events keep their order
            # Whoever waited for one that failed need not wait for the next to fail.
            while self._pending and self._failed_flushes == failed_before:
                await self._store_batch()

    async def _store_batch(self) -> None:
        batch = min(_BATCH, len(self._pending))
        self._in_flight = [self._pending.popleft() for _ in range(batch)]
        try:
            await self._catalog.audit_log.append(self._in_flight)
            self._in_flight = ()
        except CatalogUnavailable:
            self._failed_flushes += 1
            _log.warning("audit events queued", events=batch)
        finally:
            self._pending.extendleft(reversed(self._in_flight))
            self._in_flight = ()


def _owner(event: AuditEvent) -> str | None:
    """Whose event it is: a tenant's, a pool's, or the service's."""
    return event.tenant or event.pool
