"""What an agent reports every second: the configuration in force on its node, and measurements."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from app.domain.nodes.entry_totals import WAIT_CLASSES, EntryTotals
from app.domain.nodes.gate import EntryState
from app.domain.tenant import may_be_tenant_id

MOST_CONNECTIONS = 100_000
"""The limit for one server or entry: more than any Postgres takes."""

MOST_CLIENTS = 1_000_000
"""The limit for one entry: more than any pooler takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerReport:
    """One server as a node uses it.

    Attributes:
        generation: generation of the allotment that it applies.
        committed: the most connections that can be open before it applies another one: the sizes of
            its open entries, and what the closing ones still have.
        connected: open connections.
    """

    generation: int
    committed: int
    connected: int

    def __post_init__(self) -> None:
        _check_connections(self.committed, self.connected)


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryReport:
    """One entry, as a node uses it.

    Attributes:
        size: connections that it may have, as reported by the pooler.
        connections, in_use: open connections, and those in a transaction.
        clients, waiting: connections of applications, and those of them that wait for Postgres.
        longest_wait: seconds that the first of these has waited.
        held_seconds: for how long the transactions under way have had their connections, summed, at
            most.
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
    held_seconds: float = 0.0

    def __post_init__(self) -> None:
        # Samples are stored under this name.
        if not may_be_tenant_id(self.name):
            raise ValueError("no name of a tenant")
        _check_connections(self.size, self.connections, self.in_use)
        if max(self.clients, self.waiting) > MOST_CLIENTS:
            raise ValueError(f"more than {MOST_CLIENTS} clients")
        if len(self.totals.oldest_waits) > WAIT_CLASSES:
            raise ValueError(f"more than {WAIT_CLASSES} classes of waits")

    @property
    def most_connections(self) -> int:
        """The most connections that can be open before it opens, or gets another size."""
        if self.state in {EntryState.CLOSED, EntryState.PAUSED}:
            return self.connections
        return max(self.size, self.connections)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReport:
    """A node at one moment.

    Attributes:
        session: the session that the service gave to this agent when it started. A report with an
            earlier session comes from an agent that was replaced.
        sequence: grows with each report of a session.
        version: version of the configuration in force, as read back; 0 before the first.
        engine: name and version of the pooler.
        entries: those that changed since report *base* of this session; all if *base* is 0.
        base: sequence of an accepted report; entries that are missing are as they were then.
        more: whether the next report has more changed entries.
        backends: process ids of its connections, by server.
        users: user names with which applications are connected.
        problem: one sentence about what an operator should fix; empty if all is well.
        agent: version of the agent; empty from one that does not say.
        can_recycle: whether it knows recyclings; an earlier one ignores them in a configuration.
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
    agent: str = ""
    can_recycle: bool = False

    def __post_init__(self) -> None:
        _check_connections(sum(map(len, self.backends.values())))

    def is_newer_than(self, other: Self) -> bool:
        """Whether it was made later. A report that arrives late must change nothing."""
        return (self.session, self.sequence) > (other.session, other.sequence)


def _check_connections(*numbers: int) -> None:
    if max(numbers) > MOST_CONNECTIONS:
        raise ValueError(f"more than {MOST_CONNECTIONS} connections")
