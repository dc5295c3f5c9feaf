"""The reports of a node's agents: each has what changed since the one before."""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from app.domain.nodes.ended_transactions import EndedTransactions
from app.domain.nodes.entry_sums import EntrySums
from app.domain.nodes.estimated_load import EstimatedLoad
from app.domain.nodes.report import EntryReport, NodeReport

# Seconds that estimates look back, and seconds between two reports that are kept for them.
_ESTIMATED_SECONDS = 60.0
_KEPT_EVERY = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HeardReport:
    """A received report, and when it arrived, in monotonic seconds.

    Attributes:
        entries: all entries by name, including those unchanged since an earlier report.
        sums: sums over all entries.
        gone: entries of the previous report that the node no longer has.
        is_based: whether the report that this one builds on was received.
    """

    at: float
    report: NodeReport
    entries: Mapping[str, EntryReport]
    sums: EntrySums
    gone: frozenset[str]
    is_based: bool

    @property
    def is_complete(self) -> bool:
        """Whether every entry is known as the node has it now."""
        return self.is_based and not self.report.more

    def is_base_of(self, report: NodeReport) -> bool:
        """Whether *report* has the changes since this one."""
        own = self.report
        return (report.session, report.base) == (own.session, own.sequence)


class HeardReports:
    """The latest report, and some of the last minute, from which entries' loads are measured.

    Attributes:
        latest: None before the first.
    """

    def __init__(self) -> None:
        self.latest: HeardReport | None = None
        self._before: HeardReport | None = None
        self._kept: deque[HeardReport] = deque()

    def add(self, report: NodeReport, at: float, only: Iterable[str] | None) -> HeardReport:
        """Take in the next report.

        Args:
            only: the entries of the node's configuration, if its report is based on that one.
        """
        latest = self.latest
        entries = dict(latest.entries) if latest else {}
        entries.update((entry.name, entry) for entry in report.entries)
        gone = frozenset() if only is None else frozenset(entries.keys() - only)
        for name in gone:
            del entries[name]
        heard = HeardReport(
            at=at,
            report=report,
            entries=entries,
            sums=EntrySums.of(entries.values()),
            gone=gone,
            is_based=not report.base or (latest is not None and latest.is_base_of(report)),
        )
        self._before, self.latest = latest, heard
        kept = self._kept
        if not kept or kept[-1].at <= at - _KEPT_EVERY:
            kept.append(heard)
        while len(kept) > 1 and kept[1].at <= at - _ESTIMATED_SECONDS:
            kept.popleft()
        return heard

    def is_busy(self, entry: EntryReport) -> bool:
        """Whether its clients had work at the latest report, or since the one before."""
        if entry.in_use or entry.waiting:
            return True
        before = self._before.entries.get(entry.name) if self._before else None
        return before is not None and entry.totals.transactions != before.totals.transactions

    def load(self, entry: str) -> EstimatedLoad | None:
        """The load of an entry in the last minute, or since it was idle in that minute.

        None while nothing is known about it.
        """
        latest = self.latest
        # A new entry had no totals before; what it had before its first report is unknown.
        first = self._first_kept(entry)
        if latest is None or first is None or entry not in latest.entries or latest.at <= first.at:
            return None
        before = first.entries[entry]
        seconds = latest.at - first.at
        _, added = EndedTransactions.since(before).updated(before, latest.entries[entry])
        return EstimatedLoad.during(seconds, added)

    def _first_kept(self, entry: str) -> HeardReport | None:
        """The report from which the load of *entry* is measured.

        A load that has just begun, divided by a whole minute, would look small.
        """
        known = [each for each in self._kept if entry in each.entries]
        if not known:
            return None
        first, *later = known
        for each in later:
            now, before = each.entries[entry], first.entries[entry]
            if now.in_use or now.waiting or now.totals.transactions != before.totals.transactions:
                break
            first = each
        return first
