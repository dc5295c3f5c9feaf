"""What the agent needs of a connection pooler, whichever it is."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from app.domain.nodes.configuration import NodeConfiguration
from app.domain.nodes.estimates import EntryTotals


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryInForce:
    """An entry as the pooler has it.

    Attributes:
        size: the most connections it may have while it is open.
        is_open: whether it may have connections.
    """

    size: int
    is_open: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryMeasure:
    """An entry at one moment.

    Attributes:
        connections: to Postgres, those that are being opened included.
        connecting, in_use: of them, those that log in, and those in a transaction.
        clients: applications' connections.
        waiting: of them, those that wait for a connection.
        longest_wait: seconds for which the first of them has waited for its transaction; 0 while it
            waits to be let in.
    """

    connections: int = 0
    connecting: int = 0
    in_use: int = 0
    clients: int = 0
    waiting: int = 0
    longest_wait: float = 0.0

    def plus(self, other: EntryMeasure) -> EntryMeasure:
        """Both together, of the same entry."""
        return EntryMeasure(
            connections=self.connections + other.connections,
            connecting=self.connecting + other.connecting,
            in_use=self.in_use + other.in_use,
            clients=self.clients + other.clients,
            waiting=self.waiting + other.waiting,
            longest_wait=max(self.longest_wait, other.longest_wait),
        )


NOTHING = EntryMeasure()
"""Of an entry that has had no client."""


class Engine(Protocol):
    """A connection pooler that runs beside the agent.

    Every method raises a `NodeError` when the pooler is away or refuses. What each must do is tried
    by `tests/node/test_engine_conformance.py`.
    """

    @property
    def name(self) -> str:
        """Its name and version."""

    async def is_running(self) -> bool:
        """Whether it runs already; one that does not answer does, too."""

    async def start(self, configuration: NodeConfiguration) -> bool:
        """Take over the pooler if it runs, else start it with every entry closed.

        Returns:
            Whether it ran already; what it obeys then is what `read_back` says.
        """

    async def differs(self, configuration: NodeConfiguration) -> bool:
        """Whether the pooler would have to read other files for *configuration*."""

    def is_outdated(self) -> bool:
        """Whether it must read files again that others have changed, such as a certificate."""

    async def apply(self, configuration: NodeConfiguration) -> None:
        """Put *configuration* in force; entries that are new begin closed.

        All clients may stall for a moment. Entries that disappear cut off theirs.
        """

    async def read_back(self) -> Mapping[str, EntryInForce]:
        """What is in force, by entry: expensive where there are many."""

    async def open(self, *entries: str) -> None:
        """Let entries have connections."""

    async def close(self, *entries: str) -> None:
        """Let entries have no new connection, and close those that are idle.

        Returns without waiting for transactions. Clients are kept, and wait.
        """

    async def cut(self, entry: str, users: Collection[str]) -> bool:
        """Cut off the clients of these users of an entry, and their connections, at once.

        Returns:
            Whether the entry had to be closed, and the clients of all users were cut off.
        """

    async def measure(self) -> Mapping[str, EntryMeasure]:
        """Every entry that has had a client; cheap enough to be asked ten times a second."""

    async def totals(self) -> Mapping[str, EntryTotals]:
        """What was counted of each entry so far."""

    async def backends(self) -> Mapping[str, Collection[int]]:
        """Process ids of Postgres' back-ends, by entry."""

    async def clients(self) -> Mapping[str, Collection[str]]:
        """The users who are logged in, by entry: expensive where there are many."""

    def leave(self) -> None:
        """Let the pooler go on without the agent. Safe twice."""

    async def stop(self, *, patience: float) -> None:
        """End the pooler; transactions may go on for *patience* seconds."""
