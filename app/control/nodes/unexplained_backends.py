"""Back-ends of tenants' roles that are neither this process' nor, by its report, a node's.

A pooler that was killed leaves some, and so does a node that nobody hears any more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection
from math import inf

from app.control.nodes.tracked_node import TrackedNode
from app.pools.manager import TenantPoolManager
from app.pools.role_backends import own_backends, role_backends
from app.pools.server import Server

# A node reports each back-end within two seconds. One that it does not report for so long is none
# of its own.
_UNEXPLAINED_AFTER = 3.0
# Postgres is asked every second; what it said this long ago says nothing of now.
_LATEST_LOOK = 5.0


class UnexplainedBackends:
    """What Postgres shows, less what is known."""

    def __init__(self, manager: TenantPoolManager, clock: Callable[[], float]) -> None:
        self._manager = manager
        self._clock = clock
        # When Postgres last said which back-ends there are, by server.
        self._looked_at: dict[str, float] = {}
        # When each back-end that nobody has reported was first seen, by server.
        self._unreported: defaultdict[str, dict[int, float]] = defaultdict(dict)

    async def look_at(self, server: Server, nodes: Collection[TrackedNode]) -> None:
        """Ask *server*; one that does not answer has what it had."""
        found = await role_backends(self._manager, server)
        if found is None:
            return
        reported = [
            node.latest.report.backends.get(server.name, frozenset())
            for node in nodes
            if node.latest is not None and node.is_reachable
        ]
        now, before = self._clock(), self._unreported[server.name]
        unreported = found - own_backends(self._manager, server) - frozenset().union(*reported)
        # What was there before the first look may be the last leader's, under whatever name.
        first_seen = now if server.name in self._looked_at else -inf
        self._looked_at[server.name] = now
        self._unreported[server.name] = {pid: before.get(pid, first_seen) for pid in unreported}

    def forget(self) -> None:
        """Forget what was there: without nodes nobody asks, and it would be wrong soon."""
        self._looked_at.clear()
        self._unreported.clear()

    def count(self, server: str, nodes: Collection[TrackedNode]) -> int:
        """How many count as used, besides what *nodes* can have: silent ones may have some."""
        since = self._clock() - _UNEXPLAINED_AFTER
        found = sum(first_seen <= since for first_seen in self._unreported[server].values())
        silent = [node for node in nodes if not node.is_reachable]
        return max(0, found - sum(node.commitment(server).liability for node in silent))

    def note_absence(self, nodes: Collection[TrackedNode]) -> None:
        """Note since when Postgres shows no back-end that may be a silent node's."""
        now = self._clock()
        for node in nodes:
            # Of a server that is not declared any more nothing is known, and nothing is divided.
            servers = node.commitments.keys() & self._manager.servers.keys()
            if all(self._is_clear(server, now) for server in servers):
                node.note_absence(now)
            else:
                node.note_presence()

    def _is_clear(self, server: str, now: float) -> bool:
        """Whether Postgres has just shown that there is none."""
        looked_at = self._looked_at.get(server)
        is_recent = looked_at is not None and looked_at >= now - _LATEST_LOOK
        return is_recent and not self._unreported[server]
