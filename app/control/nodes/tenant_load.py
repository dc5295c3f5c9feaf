"""The load of one tenant as reported by nodes, summed over nodes and over time."""

from collections import deque
from collections.abc import Container, Mapping
from dataclasses import dataclass

from app.domain.nodes.ended_transactions import EndedTransactions
from app.domain.nodes.entry_totals import EntryTotals
from app.domain.nodes.estimated_load import EstimatedLoad
from app.domain.nodes.load_reading import LoadReading
from app.domain.nodes.report import EntryReport
from app.domain.nodes.wait_estimate import WaitEstimate
from app.domain.pool import PoolMetrics

# Seconds over which waits are estimated, and between two marks of that time.
_WINDOW = 60.0
_MARK_EVERY = 5.0
_NO_TOTALS = EntryTotals()


@dataclass(slots=True)
class _Place:
    """The tenant on one node.

    Attributes:
        entry: its latest report.
        counted_until: the time until which its gauges have been counted.
    """

    entry: EntryReport
    ended: EndedTransactions
    counted_until: float


class NodeTenantLoad:
    __slots__ = ("_busy", "_marks", "_open", "_places", "_waiting", "changed_at", "totals")

    def __init__(self) -> None:
        self.totals = EntryTotals()
        self.changed_at = 0.0
        self._places: dict[str, _Place] = {}
        self._busy = self._waiting = self._open = 0.0
        self._marks: deque[tuple[float, EntryTotals]] = deque()

    def hear(self, node: str, entry: EntryReport, *, since: float, at: float) -> EntryTotals:
        """Add a change that *node* reports after its report of *since*; return what has ended.

        What it counted before its first report of the tenant is unknown.
        """
        self.changed_at = at
        place = self._places.get(node)
        if place is None:
            self._places[node] = _Place(entry, EndedTransactions.since(entry), at)
            return _NO_TOTALS
        self._count(place, at)
        place.ended, added = place.ended.updated(place.entry, entry)
        if not self._marks or self._marks[-1][0] <= at - _MARK_EVERY:
            self._marks.append((since, self.totals))
        self.totals = self.totals.plus(added)
        place.entry = entry
        return added

    def skip(self, node: str, until: float) -> None:
        """Skip the time up to *until*: *node* was silent, so its use is unknown."""
        if (place := self._places.get(node)) is not None:
            place.counted_until = until

    def drop(self, node: str) -> bool:
        """Note that it is no longer on *node*; return whether it is on no node at all."""
        self._places.pop(node, None)
        return not self._places

    def is_active(self, since: float) -> bool:
        """Whether it changed *since* then, or has connections or clients."""
        return self.changed_at > since or any(
            place.entry.connections or place.entry.clients for place in self._places.values()
        )

    def waiting(self, nodes: Container[str]) -> int:
        """Clients that wait on these nodes."""
        places = self._places.items()
        return sum([place.entry.waiting for name, place in places if name in nodes])

    def reading(self, now: float, heard_at: Mapping[str, float]) -> LoadReading:
        """The reading at *now*; *heard_at*: when each reachable node last reported."""
        current = []
        for node, place in self._places.items():
            if node in heard_at:
                self._count(place, heard_at[node])
                current.append(place.entry)
        connections = sum([entry.connections for entry in current])
        in_use = sum([entry.in_use for entry in current])
        return LoadReading(
            at=now,
            totals=self.totals,
            busy_seconds=self._busy,
            waiting_seconds=self._waiting,
            open_seconds=self._open,
            metrics=PoolMetrics(
                total_connections=connections,
                idle_connections=max(0, connections - in_use),
                active_connections=in_use,
                waiting_requests=sum([entry.waiting for entry in current]),
            ),
            size=sum([entry.size for entry in current]),
        )

    def waits(self, now: float) -> WaitEstimate | None:
        """The waits of the last minute; None if no transaction ended."""
        marks = self._marks
        while len(marks) > 1 and marks[0][0] < now - _WINDOW:
            marks.popleft()
        if not marks or self.changed_at <= max(now - _WINDOW, marks[0][0]):
            return None
        seconds = self.changed_at - marks[0][0]
        load = EstimatedLoad.during(seconds, self.totals.since(marks[0][1]))
        size = sum([place.entry.size for place in self._places.values()])
        return WaitEstimate(load, max(1, size)) if load else None

    def _count(self, place: _Place, until: float) -> None:
        seconds = until - place.counted_until
        if seconds > 0.0:
            entry = place.entry
            self._busy += entry.in_use * seconds
            self._waiting += entry.waiting * seconds
            self._open += entry.connections * seconds
            place.counted_until = until
