"""Logins that Postgres refuses to a node's pooler, as the pooler's log says.

The service logs in from another machine, and perhaps not at all while all clients are on nodes.
"""

import re
from collections.abc import Iterable, Sequence

from app.domain.nodes.configuration import NodeEntry
from app.domain.nodes.report import EntryReport

# In seconds: while clients wait, the pooler tries again several times a second.
_TRIED_AGAIN = 10.0
# Without any connection, nothing shows for so long that a login may work again.
_FORGOTTEN = 600.0
_names = re.compile(r'"([^"]+)"').findall
# A role can choose a library for its sessions, with other roles' names in that of a missing file.
_LIBRARIES = "$libdir/"


class RefusedLogins:
    """The latest refusal of each entry's role, until it has a connection again or is removed."""

    def __init__(self) -> None:
        self._latest: dict[str, tuple[float, str]] = {}

    def note(self, reasons: Sequence[str], entries: Iterable[NodeEntry], now: float) -> None:
        """Take in Postgres' *reasons*. One that names none of the roles concerns the server."""
        if reasons:
            of_role = {entry.role: entry.name for entry in entries}
            for reason in reasons:
                for role in _names(reason.partition(_LIBRARIES)[0]):
                    if role in of_role:
                        self._latest[of_role[role]] = now, reason

    def problem(self, entries: Iterable[EntryReport], now: float) -> str:
        """What an operator should know; empty if no login is known to be refused."""
        if not self._latest:
            return ""
        remembered = {
            entry.name: _TRIED_AGAIN if entry.connections else _FORGOTTEN for entry in entries
        }
        self._latest = {
            name: (at, reason)
            for name, (at, reason) in self._latest.items()
            if now - at < remembered.get(name, 0.0)
        }
        if not self._latest:
            return ""
        first, *others = sorted(self._latest)
        more = f" and {len(others):,} more" if others else ""
        return f"Postgres refuses the login of tenant {first}{more}: {self._latest[first][1]}."
