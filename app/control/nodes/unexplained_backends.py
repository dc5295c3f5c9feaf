"""Back-ends of tenants' roles that belong neither to this process nor to any reporting node.

A killed pooler leaves some, and so does a node that is no longer heard. So can a client: its
back-end does not notice that it hung up inside a statement, if the client has set the interval of
that check to 0. Such back-ends would take the budget from all other tenants for ever.
"""

from collections import defaultdict
from collections.abc import Callable, Collection
from datetime import datetime
from math import inf

import structlog

from app.control.nodes.tracked_node import TrackedNode
from app.pools.manager import TenantPoolManager
from app.pools.role_backends import end_busy, own_backends, role_backends
from app.pools.servers.server import Server

# A node reports each back-end within two seconds. One that it has not reported for this long is not
# its own.
_UNEXPLAINED_AFTER = 3.0
# Postgres is asked every second; an answer this old says nothing about now.
_LATEST_LOOK = 5.0
# One that was busy at each look for this long, while others wait for the budget, is ended. A
# connection with a client is idle now and then; one without never is, for it would notice.
_ENDED_AFTER = 5.0

_log = structlog.get_logger(__name__)


class UnexplainedBackends:
    """The back-ends that Postgres shows, without the known ones."""

    def __init__(self, manager: TenantPoolManager, clock: Callable[[], float]) -> None:
        self._manager = manager
        self._clock = clock
        # When Postgres last listed its back-ends, by server.
        self._looked_at: dict[str, float] = {}
        # When each unreported back-end was first seen, by server.
        self._unreported: defaultdict[str, dict[int, float]] = defaultdict(dict)
        # Those of them that run a statement: when they began by Postgres' clock, and since when
        # each look has found them busy.
        self._busy: defaultdict[str, dict[tuple[int, datetime], float]] = defaultdict(dict)

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
        unreported = (
            found.keys() - own_backends(self._manager, server) - frozenset().union(*reported)
        )
        # Back-ends from before the first look may belong to the last leader, under any name.
        first_seen = now if server.name in self._looked_at else -inf
        self._looked_at[server.name] = now
        self._unreported[server.name] = {pid: before.get(pid, first_seen) for pid in unreported}
        was_busy = self._busy[server.name]
        self._busy[server.name] = {
            (pid, began): was_busy.get((pid, began), now)
            for pid in unreported
            if (began := found[pid]) is not None
        }
        if server.is_contended:
            await self._end_abandoned(server, nodes)

    async def _end_abandoned(self, server: Server, nodes: Collection[TrackedNode]) -> None:
        """End those that have long been busy without a client, as far as can be known.

        Each node that can have connections has reported without them, long after they were seen;
        with a problem it may not know which it has.
        """
        latest = [node.latest for node in nodes if node.commitment(server.name).liability]
        heard = min(
            [-inf if each is None or each.report.problem else each.at for each in latest],
            default=inf,
        )
        reported = [each.report.backends.get(server.name, frozenset()) for each in latest if each]
        since, now = self._unreported[server.name], self._clock()
        abandoned = {
            pid: began
            for (pid, began), busy_since in self._busy[server.name].items()
            if busy_since <= now - _ENDED_AFTER
            and max(since[pid], busy_since) <= heard - _UNEXPLAINED_AFTER
            and not any(pid in each for each in reported)
        }
        if abandoned and (ended := await end_busy(server, abandoned)):
            _log.warning("back-ends without a client ended", server=server.name, pids=sorted(ended))

    def forget(self) -> None:
        """Forget all back-ends: without nodes nobody asks, and the numbers would soon be wrong."""
        self._looked_at.clear()
        self._unreported.clear()
        self._busy.clear()

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
