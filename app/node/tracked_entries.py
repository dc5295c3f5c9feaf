"""All entries of a pooler, beside those that its configuration should have.

Most are at rest; a look costs time only for the others.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping

from app.domain.nodes.configuration import NodeEntry
from app.domain.nodes.gate import EntryState
from app.node.engine import NOTHING, EntryInForce, EntryMeasure
from app.node.tracked_entry import TrackedEntry


class TrackedEntries(Mapping[str, TrackedEntry]):
    """The pooler's entries by name.

    Attributes:
        awake: the names of entries that are not at rest.
    """

    def __init__(self) -> None:
        self._all: dict[str, TrackedEntry] = {}
        self.awake: set[str] = set()
        self._wanted: Mapping[str, NodeEntry] = {}
        self._leaving: Collection[str] = ()
        # Of the wanted ones, and of those that the pooler still has.
        self._server_of: dict[str, str] = {}

    def __getitem__(self, name: str) -> TrackedEntry:
        return self._all[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    @property
    def connections(self) -> int:
        """All recently open connections."""
        return sum([self._all[name].connections for name in self.awake])

    @property
    def leaving(self) -> list[TrackedEntry]:
        """Those that are no longer wanted."""
        return [self._all[name] for name in self._leaving]

    def served(self, names: Iterable[str] | None = None) -> list[tuple[NodeEntry, TrackedEntry]]:
        """The wanted ones among *names*, or all of them, as the pooler should have and has them."""
        return [
            (self._wanted[name], self._all[name])
            for name in (self._wanted if names is None else names)
            if name in self._wanted and name in self._all
        ]

    def server_of(self, name: str) -> str | None:
        """The server of an entry; None if it is unknown."""
        return self._server_of.get(name)

    def want(self, entries: Collection[NodeEntry]) -> None:
        """Note which entries a new configuration has."""
        self._wanted = {entry.name: entry for entry in entries}
        self._server_of |= {entry.name: entry.server for entry in entries}
        self._note_leaving()

    def _note_leaving(self) -> None:
        self._leaving = sorted(self._all.keys() - self._wanted)
        for name in self._server_of.keys() - self._wanted.keys() - self._all.keys():
            del self._server_of[name]

    def read_back(self, in_force: Mapping[str, EntryInForce], now: float) -> None:
        """Take in what the pooler itself reports about all its entries."""
        entries = {}
        for name, entry in in_force.items():
            tracked = self._all.get(name)
            if tracked is None:
                tracked = TrackedEntry(name, entry.size, EntryState.CLOSING, now)
            tracked.read_back(entry, now)
            entries[name] = tracked
        self._all = entries
        self._note_leaving()
        self.awake = {name for name, tracked in entries.items() if not tracked.is_at_rest}

    def expect(self, sizes: Mapping[str, int]) -> None:
        """Note the sizes of a configuration that is being applied.

        Until they are read back, an entry may have its present size or that one.
        """
        for name, size in sizes.items():
            if (tracked := self._all.get(name)) is not None:
                tracked.expect(size)

    def saw(self, measures: Mapping[str, EntryMeasure], now: float) -> None:
        """Take in measurements of all entries that have had a client."""
        busy = [name for name, each in measures.items() if each.connections or each.waiting]
        seen = self._all.keys() & self.awake.union(busy)
        for name in seen:
            self._all[name].saw(measures.get(name, NOTHING), now)
        self.awake = {name for name in seen if not self._all[name].is_at_rest}

    def enter(self, name: str, state: EntryState, now: float) -> None:
        """Note that an entry was opened, or is closing."""
        self._all[name].enter(state, now)
        self.awake.add(name)
