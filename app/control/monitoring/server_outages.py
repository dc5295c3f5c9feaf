"""The outages of servers, as events of the audit trail."""

from collections.abc import Iterator, Mapping

from app.control import audit_events
from app.domain.audit import AuditEvent
from app.pools.server import Server


class ServerOutages:
    """Compares the servers with how they were when it was last asked, at the previous poll."""

    def __init__(self, servers: Mapping[str, Server]) -> None:
        self._servers = servers
        self._generations = dict.fromkeys(servers, 0)
        self._away: set[str] = set()

    def take_events(self) -> Iterator[AuditEvent]:
        """An outage that began or ended since the last poll; several of one server count as one."""
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
