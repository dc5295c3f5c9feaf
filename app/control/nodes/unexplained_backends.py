"""Back-ends of tenants' roles that belong neither to this process nor to any reporting node.

A killed pooler leaves some, and so does a node that is no longer heard.
"""

from collections import defaultdict
from collections.abc import Callable, Collection
from math import inf

from app.control.nodes.tracked_node import TrackedNode
from app.pools.manager import TenantPoolManager
from app.pools.role_backends import own_backends, role_backends
from app.pools.server import Server

# A node reports each back-end within two seconds. One that it has not reported for this long is not
# its own.
_UNEXPLAINED_AFTER = 3.0
# Postgres is asked every second; an answer this old says nothing about now.
_LATEST_LOOK = 5.0


class UnexplainedBackends:
    """The back-ends that Postgres shows, without the known ones."""

    def __init__(self, manager: TenantPoolManager, clock: Callable[[], float]) -> None:
        self._manager = manager
        self._clock = clock
        # When Postgres last listed its back-ends, by server.
        self._looked_at: dict[str, float] = {}
        # When each unreported back-end was first seen, by server.
        self._unreported: defaultdict[str, dict[int, float]] = defaultdict(dict)

    async def look_at(self, server: Server, nodes: Collection[TrackedNode]) -> None:
        """Ask *server*; if it does not answer, the last answer remains."""
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
        # Back-ends from before the first look may belong to the last leader, under any name.
        first_seen = now if server.name in self._looked_at else -inf
        self._looked_at[server.name] = now
        self._unreported[server.name] = {pid: before.get(pid, first_seen) for pid in unreported}

    def forget(self) -> None:
        """Forget all back-ends: without nodes nobody asks, and the numbers would soon be wrong."""
        self._looked_at.clear()
        self._unreported.clear()

    def count(self, server: str, nodes: Collection[TrackedNode]) -> int:
        """How many count as used, beside those that *nodes* can have: silent ones may have some."""
        since = self._clock() - _UNEXPLAINED_AFTER
        found = sum(first_seen <= since for first_seen in self._unreported[server].values())
        silent = [node for node in nodes if not node.is_reachable]
        return max(0, found - sum(node.commitment(server).liability for node in silent))

    def note_absence(self, nodes: Collection[TrackedNode]) -> None:
        """Note since when Postgres has shown no back-end that may be a silent node's."""
        now = self._clock()
        for node in nodes:
            # About a server that is no longer declared nothing is known, and nothing is divided.
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
