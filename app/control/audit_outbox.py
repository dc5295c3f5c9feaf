"""The outbox of audit events that are not stored yet."""

from collections import Counter, deque
from collections.abc import Sequence
from itertools import islice

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
        self.dropped = 0

    @property
    def pending(self) -> Sequence[AuditEvent]:
        """Events not yet stored, oldest first."""
        return tuple(self._pending)

    async def record(self, *events: AuditEvent) -> None:
        """Store *events* now, or when the catalog is back."""
        self.enqueue(*events)
        await self.flush()

    def enqueue(self, *events: AuditEvent) -> None:
        """Store *events* with the next flush; if there are too many, some are dropped."""
        for event in events:
            log(event)
        self._pending.extend(events)
        if len(self._pending) > _CAPACITY:
            self._make_room()

    def _make_room(self) -> None:
        """Drop events until there is room for another batch."""
        room = _CAPACITY - _BATCH
        counts = Counter(map(_owner, self._pending))
        level = fair_level(room, [(count, 1) for count in counts.values()]) or 0
        newest: deque[AuditEvent] = deque()
        left = dict.fromkeys(counts, max(1, int(level)))
        for event in reversed(self._pending):
            owner = _owner(event)
            if left[owner] and len(newest) < room:
                left[owner] -= 1
                newest.appendleft(event)
        self.dropped += len(self._pending) - len(newest)
        self._pending = newest

    async def flush(self) -> None:
        """Store pending events if the catalog is reachable."""
        while self._pending:
            batch = list(islice(self._pending, _BATCH))
            # Removed first: a concurrent flush must not store them twice.
            for _ in batch:
                self._pending.popleft()
            stored = False
            try:
                await self._catalog.audit_log.append(batch)
                stored = True
            except CatalogUnavailable:
                _log.warning("audit events queued", events=len(batch))
                return
            finally:
                if not stored:
                    self._pending.extendleft(reversed(batch))


def _owner(event: AuditEvent) -> str | None:
    """Whose event it is: a tenant's, a pool's, or the service's."""
    return event.tenant or event.pool
