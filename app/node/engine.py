"""The interface of a connection pooler, whichever it is."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from app.domain.nodes.configuration import NodeConfiguration
from app.domain.nodes.entry_totals import EntryTotals
from app.node.pooler_log import PoolerLog


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryInForce:
    """An entry in the pooler's present configuration.

    Attributes:
        size: the most connections it may have while it is open.
        is_open: whether it may have connections.
    """

    size: int
    is_open: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryMeasure:
    """Measurements of an entry at one moment.

    Attributes:
        connections: connections to Postgres, including those being opened.
        connecting, in_use: those of them that are logging in, and those in a transaction.
        clients: connections of applications.
        waiting: those of them that wait for a connection to Postgres.
        longest_wait: seconds that the first of them has waited for its transaction; 0 while it
            waits for its login.
    """

    connections: int = 0
    connecting: int = 0
    in_use: int = 0
    clients: int = 0
    waiting: int = 0
    longest_wait: float = 0.0

    def plus(self, other: EntryMeasure) -> EntryMeasure:
        """The sum of two measurements of the same entry."""
        return EntryMeasure(
            connections=self.connections + other.connections,
            connecting=self.connecting + other.connecting,
            in_use=self.in_use + other.in_use,
            clients=self.clients + other.clients,
            waiting=self.waiting + other.waiting,
            longest_wait=max(self.longest_wait, other.longest_wait),
        )


@dataclass(frozen=True, slots=True)
class Backend:
    """A connection to Postgres.

    Attributes:
        pid: process id of Postgres' back-end.
        client: the client in whose transaction it is; empty if it is in none.
    """

    pid: int
    client: str


NOTHING = EntryMeasure()
"""The measurement of an entry that has had no client."""


class Engine(Protocol):
    """A connection pooler that runs beside the agent.

    Every method raises a `NodeError` if the pooler is away or refuses.
    `tests/node/test_engine_conformance.py` tests what each must do.
    """

    log: PoolerLog

    @property
    def name(self) -> str:
        """Its name and version."""

    async def is_running(self) -> bool:
        """Whether it is already running; one that does not answer is running, too."""

    async def start(self, configuration: NodeConfiguration) -> bool:
        """Take over a running pooler, or start one with every entry closed.

        Returns:
            Whether it was already running; `read_back` then returns its present configuration.
        """

    async def differs(self, configuration: NodeConfiguration) -> bool:
        """Whether the pooler would have to read other files for *configuration*."""

    def is_outdated(self) -> bool:
        """Whether it must read files again that others have changed, such as a certificate."""

    async def apply(self, configuration: NodeConfiguration) -> None:
        """Apply *configuration*; new entries start closed.

        All clients may stall for a moment. Clients of removed entries are cut off.
        """

    async def read_back(self) -> Mapping[str, EntryInForce]:
        """Read what is in force, by entry; expensive with many entries."""

    async def open(self, *entries: str) -> None:
        """Let entries have connections."""

    async def close(self, *entries: str) -> None:
        """Stop entries from opening connections, and close their idle ones.

        It does not wait for transactions. Clients stay connected, and wait.
        """

    async def cut(self, entry: str, users: Collection[str]) -> bool:
        """Cut off the clients of these users of an entry, and their connections, at once.

        Returns:
            Whether the entry had to be closed, which cut off the clients of all users.
        """

    async def measure(self) -> Mapping[str, EntryMeasure]:
        """Measure every entry that has had a client; cheap enough for ten times a second."""

    async def totals(self) -> Mapping[str, EntryTotals]:
        """The totals of each entry so far."""

    async def backends(self) -> Mapping[str, Collection[Backend]]:
        """The connections to Postgres, by entry."""

    async def clients(self) -> Mapping[str, Collection[str]]:
        """The logged-in users, by entry; expensive with many clients."""

    async def has_another_agent(self) -> bool:
        """Whether another agent has taken it over, too."""

    def leave(self) -> None:
        """Let the pooler continue without the agent. Safe to call twice."""

    async def stop(self, *, patience: float) -> None:
        """Stop the pooler; transactions have *patience* seconds to end."""
