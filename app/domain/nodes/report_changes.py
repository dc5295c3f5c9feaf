"""What the service does not know yet of a node's entries: most of thousands do not change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from app.domain.nodes.report import EntryReport, NodeReport

MOST_ENTRIES = 500
"""Of one report: it stays far below the longest body, and is read within some milliseconds."""


class ReportChanges:
    """Shortens the reports of one session."""

    def __init__(self) -> None:
        self._base = 0
        # As the service has them.
        self._known: Mapping[str, EntryReport] = {}

    def shorten(self, report: NodeReport) -> NodeReport:
        """*report* with the entries that have changed, or with some of them."""
        known = self._known
        changed = [
            entry
            for entry in report.entries
            # Most are the same object: thousands of comparisons less.
            if (before := known.get(entry.name)) is not entry and before != entry
        ]
        return replace(
            report,
            entries=tuple(changed[:MOST_ENTRIES]),
            base=self._base,
            more=len(changed) > MOST_ENTRIES,
        )

    def accepted(self, report: NodeReport, *, wants_all: bool) -> None:
        """The service has *report*, and *wants_all* if it does not know what that builds on."""
        if wants_all:
            self._base, self._known = 0, {}
            return
        self._base = report.sequence
        self._known = {**self._known, **{entry.name: entry for entry in report.entries}}
