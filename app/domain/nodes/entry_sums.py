"""Sums over the entries of a node: computed once per report, read by many."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Self

from app.domain.nodes.gate import WITHOUT_TURN, EntryState
from app.domain.nodes.report import EntryReport


@dataclass(frozen=True, slots=True, kw_only=True)
class EntrySums:
    """Sums over all entries of one node.

    Attributes:
        clients, waiting: connections of applications, and those of them that wait for Postgres.
        queued: waiting clients of tenants that must not have a connection before their turn.
        longest_wait: seconds that the first of these has waited; paused entries do not count.
        states: number of entries in each state.
    """

    clients: int
    waiting: int
    queued: int
    longest_wait: float
    states: Mapping[EntryState, int]

    @classmethod
    def of(cls, entries: Collection[EntryReport]) -> Self:
        waits = [
            entry.longest_wait
            for entry in entries
            if entry.longest_wait and entry.state is not EntryState.PAUSED
        ]
        return cls(
            clients=sum([entry.clients for entry in entries]),
            waiting=sum([entry.waiting for entry in entries]),
            queued=sum([entry.waiting for entry in entries if entry.state in WITHOUT_TURN]),
            longest_wait=max(waits, default=0.0),
            states=Counter([entry.state for entry in entries]),
        )
