"""A node's configuration: its servers, its allotments, and an entry for each tenant.

The agent pulls it from the service. It contains passwords of roles: never log or cache it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from app.domain.nodes.allotment import Allotment


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLogin:
    """A user name for applications, and the SCRAM verifier of its password."""

    user: str
    verifier: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeEntry:
    """A tenant on a node; applications connect to it by database name.

    Attributes:
        name: the entry's name, which is the tenant's id.
        server: name of the server behind it.
        role: the tenant's role; the node connects with it for all logins.
        password: the role's password.
        size: the most connections of this node for it. 0: other places have them all now; its
            clients can log in, and wait.
        weight: its relative share of time when not all can have connections.
        paused: whether a person paused it; clients can log in, and wait.
        draining: whether no more clients can log in; logged-in clients keep working.
        recycles: when it changes, the pooler closes its connections: idle ones at once, those in a
            transaction when that ends.
        logins: the only logins that may use it.
    """

    name: str
    server: str
    database: str
    role: str
    password: str = field(repr=False)
    size: int
    weight: int = 1
    paused: bool = False
    draining: bool = False
    recycles: int = 0
    logins: tuple[NodeLogin, ...] = ()

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ValueError(f"entry {self.name}: size {self.size} is less than 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeServer:
    """A server behind a node.

    Attributes:
        tls_mode: the `sslmode` for connections to it, in libpq's words.
        allotment: connections to it that the node may have.
        reports_search_path: whether a pooler can let a search_path follow its client there; None:
            the service has not reached it yet.
    """

    host: str
    port: int
    tls_mode: str
    allotment: Allotment
    reports_search_path: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfiguration:
    """Everything that a node should do.

    Attributes:
        version: grows with each change except of allotments, which have generations of their own.
        servers: by name.
    """

    version: int
    servers: Mapping[str, NodeServer]
    entries: tuple[NodeEntry, ...]

    def __post_init__(self) -> None:
        names = [entry.name for entry in self.entries]
        if len(set(names)) < len(names):
            raise ValueError("two entries have the same name")
        if unknown := {entry.server for entry in self.entries} - set(self.servers):
            raise ValueError(f"no such servers: {', '.join(sorted(unknown))}")

    def size_of(self, entry: NodeEntry) -> int:
        """The most connections for an entry, limited by its server's allotment; at least 1.

        An entry larger than the allotment could never open. The gate keeps an entry of size 0
        closed; its pooler does not know that size.
        """
        return max(1, min(entry.size, self.servers[entry.server].allotment.connections))

    def with_allotments(self, allotments: Mapping[str, Allotment]) -> Self:
        """Take the later allotment for each server; ignore unknown servers."""
        servers = {
            name: replace(server, allotment=allotments[name])
            if name in allotments and allotments[name].generation > server.allotment.generation
            else server
            for name, server in self.servers.items()
        }
        return self if servers == self.servers else replace(self, servers=servers)

    def informed_by(self, earlier: Self) -> Self:
        """Keep what *earlier* said of servers that the service has not reached since it started."""
        servers = {
            name: replace(server, reports_search_path=earlier.servers[name].reports_search_path)
            if name in earlier.servers and server.reports_search_path is None
            else server
            for name, server in self.servers.items()
        }
        return self if servers == self.servers else replace(self, servers=servers)


def newest(first: NodeConfiguration, second: NodeConfiguration) -> NodeConfiguration:
    """Return the later of two configurations, with the later allotment of each server."""
    later, earlier = (second, first) if second.version >= first.version else (first, second)
    known = {name: server.allotment for name, server in earlier.servers.items()}
    return later.with_allotments(known)
