"""What a node is to do: the servers behind it, its allotments, and an entry for each tenant.

The agent pulls it from the service. It holds passwords of roles: nothing may log or cache it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from app.domain.nodes.allotment import Allotment


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLogin:
    """A user name by which applications enter, and the SCRAM verifier of its password."""

    user: str
    verifier: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeEntry:
    """One tenant on a node: a database name that applications connect to.

    Attributes:
        name: of the entry, the tenant's id.
        server: name of the server behind it.
        role: the tenant's own, with which the node connects for all logins.
        password: of that role.
        size: the most connections of this node for it. 0: none now, because others have them; its
            clients can log in, and wait.
        weight: its share of time against others when not all can have connections.
        paused: whether a person paused it: clients can log in, and wait.
        draining: whether nobody else can log in; who is logged in goes on.
        logins: who may enter it; nobody else may.
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
    logins: tuple[NodeLogin, ...] = ()

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ValueError(f"entry {self.name}: size {self.size} is less than 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeServer:
    """A server behind a node.

    Attributes:
        tls_mode: libpq's `sslmode` towards it.
        allotment: connections that the node may have to it.
    """

    host: str
    port: int
    tls_mode: str
    allotment: Allotment


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfiguration:
    """All that a node is to do.

    Attributes:
        version: grows with each change of anything but the allotments, which have their own.
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
        """The most connections for an entry, inside its server's allotment; at least 1.

        An entry that is larger than the allotment could never open. One that may have none now is
        kept from opening; its pooler does not learn of it.
        """
        return max(1, min(entry.size, self.servers[entry.server].allotment.connections))

    def with_allotments(self, allotments: Mapping[str, Allotment]) -> NodeConfiguration:
        """With the later one of each server's allotments; of unknown servers nothing is taken."""
        servers = {
            name: replace(server, allotment=allotments[name])
            if name in allotments and allotments[name].generation > server.allotment.generation
            else server
            for name, server in self.servers.items()
        }
        return self if servers == self.servers else replace(self, servers=servers)


def newest(first: NodeConfiguration, second: NodeConfiguration) -> NodeConfiguration:
    """Of two configurations the later one, and of each server's allotments the later one."""
    later, earlier = (second, first) if second.version >= first.version else (first, second)
    known = {name: server.allotment for name, server in earlier.servers.items()}
    return later.with_allotments(known)
