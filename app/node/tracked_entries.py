"""All entries of a pooler. Most are at rest; a look costs time only for the others."""

from collections.abc import Collection, Iterator, Mapping

from app.domain.nodes.gate import EntryState
from app.node.engine import NOTHING, EntryInForce, EntryMeasure
from app.node.tracked_entry import TrackedEntry


class TrackedEntries(Mapping[str, TrackedEntry]):
    """The pooler's entries by name."""

    def __init__(self) -> None:
        self._all: dict[str, TrackedEntry] = {}
        self._awake: set[str] = set()

    def __getitem__(self, name: str) -> TrackedEntry:
        return self._all[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    @property
    def awake(self) -> Collection[str]:
        """The names of entries that are not at rest."""
        return self._awake

    @property
    def connections(self) -> int:
        """All recently open connections."""
        return sum([self._all[name].connections for name in self._awake])

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
        self._awake = {name for name, tracked in entries.items() if not tracked.is_at_rest}

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
        seen = self._all.keys() & self._awake.union(busy)
        for name in seen:
            self._all[name].saw(measures.get(name, NOTHING), now)
        self._awake = {name for name in seen if not self._all[name].is_at_rest}

    def enter(self, name: str, state: EntryState, now: float) -> None:
        """Note that an entry was opened, or is closing."""
        self._all[name].enter(state, now)
        self._awake.add(name)
