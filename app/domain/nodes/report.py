"""What an agent reports every second: what is in force on its node, and what it measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from app.domain.nodes.estimates import WAIT_CLASSES, EntryTotals
from app.domain.nodes.gate import EntryState
from app.domain.tenant import may_be_tenant_id

MOST_CONNECTIONS = 100_000
"""Of one server or entry: more than any Postgres takes."""

MOST_CLIENTS = 1_000_000
"""Of one entry: more than any pooler takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerReport:
    """One server as a node uses it.

    Attributes:
        generation: of the allotment that it obeys.
        committed: the most connections that can be open before it obeys another: the sizes of its
            open entries, and what the closing ones still have.
        connected: connections that are open.
    """

    generation: int
    committed: int
    connected: int

    def __post_init__(self) -> None:
        _check_connections(self.committed, self.connected)


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryReport:
    """One entry.

    Attributes:
        size: connections that it may have, as the pooler says.
        connections, in_use: open ones, and those in a transaction.
        clients, waiting: applications' connections, and those that wait for a connection.
        longest_wait: seconds for which the first of these has waited.
    """

    name: str
    state: EntryState
    size: int
    connections: int
    in_use: int
    clients: int
    waiting: int
    longest_wait: float
    totals: EntryTotals

    def __post_init__(self) -> None:
        # Samples are stored under it.
        if not may_be_tenant_id(self.name):
            raise ValueError("no name of a tenant")
        _check_connections(self.size, self.connections, self.in_use)
        if max(self.clients, self.waiting) > MOST_CLIENTS:
            raise ValueError(f"more than {MOST_CLIENTS} clients")
        if len(self.totals.oldest_waits) > WAIT_CLASSES:
            raise ValueError(f"more than {WAIT_CLASSES} classes of waits")

    @property
    def most_connections(self) -> int:
        """The most that can be open before it opens, or is given another size."""
        if self.state in {EntryState.CLOSED, EntryState.PAUSED}:
            return self.connections
        return max(self.size, self.connections)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReport:
    """A node at one moment.

    Attributes:
        session: that the service gave to this agent when it started. A report of an earlier session
            is of an agent that was replaced.
        sequence: grows with each report of a session.
        version: of the configuration in force, as read back; 0 before the first.
        engine: name and version of the pooler.
        entries: those that have changed since report *base* of this session, or all if that is 0.
        base: sequence of an accepted report; others are as they were then.
        more: whether there are more of them, for the next report.
        backends: process ids of its connections, by server.
        users: by which applications are connected.
        problem: what an operator should do something about, in a sentence; empty: nothing.
    """

    session: int
    sequence: int
    version: int
    engine: str
    servers: Mapping[str, ServerReport]
    entries: tuple[EntryReport, ...]
    base: int = 0
    more: bool = False
    backends: Mapping[str, frozenset[int]] = field(default_factory=dict)
    users: frozenset[str] = frozenset()
    problem: str = ""

    def __post_init__(self) -> None:
        _check_connections(sum(map(len, self.backends.values())))

    def is_newer_than(self, other: NodeReport) -> bool:
        """Whether it was made later; one that arrives late must change nothing."""
        return (self.session, self.sequence) > (other.session, other.sequence)


def _check_connections(*numbers: int) -> None:
    if max(numbers) > MOST_CONNECTIONS:
        raise ValueError(f"more than {MOST_CONNECTIONS} connections")
