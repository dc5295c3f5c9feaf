"""Which of a node's entries the service does not know yet: most of thousands do not change."""

from collections.abc import Mapping
from dataclasses import replace

from app.domain.nodes.report import EntryReport, NodeReport

MOST_ENTRIES = 500
"""The most entries in one report: far below the longest body, and read within milliseconds."""


class ReportChanges:
    """Shortens the reports of one session."""

    def __init__(self) -> None:
        self._base = 0
        # The entries as the service has them.
        self._known: Mapping[str, EntryReport] = {}

    def shorten(self, report: NodeReport) -> NodeReport:
        """Return *report* with only the entries that changed, or with some of them."""
        known = self._known
        changed = [
            entry
            for entry in report.entries
            # Most entries are the same object: this saves thousands of comparisons.
            if (before := known.get(entry.name)) is not entry and before != entry
        ]
        return replace(
            report,
            entries=tuple(changed[:MOST_ENTRIES]),
            base=self._base,
            more=len(changed) > MOST_ENTRIES,
        )

    def accepted(self, report: NodeReport, *, wants_all: bool) -> None:
        """Note that the service has *report*; *wants_all* if it does not know the report's base."""
        if wants_all:
            self._base, self._known = 0, {}
            return
        self._base = report.sequence
        self._known = {**self._known, **{entry.name: entry for entry in report.entries}}
