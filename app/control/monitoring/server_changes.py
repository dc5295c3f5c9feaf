"""Outages and budgets of servers, as events of the audit trail."""

from collections.abc import Iterator, Mapping

from app.control import audit_events
from app.domain.audit import AuditEvent
from app.pools.servers.server import Server


class ServerChanges:
    """Compares the servers with how they were when it was last asked, at the previous poll."""

    def __init__(self, servers: Mapping[str, Server]) -> None:
        self._servers = servers
        self._generations = dict.fromkeys(servers, 0)
        self._away: set[str] = set()
        # As last read from each server; known from the first contact on.
        self._budgets: dict[str, int] = {}

    def take_events(self) -> Iterator[AuditEvent]:
        """What happened since the last poll; several outages of one server count as one."""
        for name, server in self._servers.items():
            # It grows whenever the server is lost.
            if self._generations[name] != server.generation:
                self._generations[name] = server.generation
                if name not in self._away:
                    self._away.add(name)
                    yield audit_events.server_lost(name, server.last_error)
            if server.is_available and name in self._away:
                self._away.remove(name)
                yield audit_events.server_back(name)
            if server.limits is not None:
                before = self._budgets.setdefault(name, server.limit)
                if before != server.limit:
                    self._budgets[name] = server.limit
                    yield audit_events.server_budget_changed(
                        name, before, server.limit, server.limits.max_connections
                    )
