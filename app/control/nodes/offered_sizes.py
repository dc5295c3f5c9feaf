"""The sizes of a node's entries: those offered last, and those that may be in force.

A node applies versions of its configuration late, and not each of them. So an entry counts as the
largest size that was offered since the version that the node last reported.
"""

from collections.abc import Mapping
from functools import cache

from app.domain.nodes.allotment import Allotment, Commitment
from app.domain.nodes.configuration import NodeConfiguration


class OfferedSizes:
    """The sizes of the entries that somebody can use."""

    def __init__(self) -> None:
        """The sizes of a new node, on which nothing is in force."""
        # As of the latest version.
        self._version = 0
        self._sizes: Mapping[str, int] = {}
        # Entries for which another size may also be in force.
        self._resized: dict[str, Commitment] = {}
        # The first version from which on everything is known; None: it is not built yet.
        self._known_from: int | None = 0
        # The version at the last report that had every entry.
        self._in_force = 0

    def forget(self) -> None:
        """Any size may be in force, until a version that is still to come is."""
        self._known_from = None
        self._resized.clear()

    @property
    def are_known(self) -> bool:
        """Whether the node's version is a known one."""
        return self._known_from is not None and self._in_force >= self._known_from

    @property
    def need_version(self) -> bool:
        """Whether another version is needed, so that the node's next report confirms it."""
        return self._known_from is None

    def latest(self, entry: str) -> int:
        """The size offered last; 0 for an entry that nobody can use."""
        return self._sizes.get(entry, 0)

    def most(self, entry: str) -> int:
        """The largest size that may be in force, if sizes are known."""
        resized = self._resized.get(entry)
        return resized.liability if resized else self.latest(entry)

    def offer(self, configuration: NodeConfiguration) -> None:
        """Note another version; it is not in force yet, and perhaps never will be."""
        before, version = self._version, configuration.version
        if self._known_from is None:
            self._known_from = version
        sizes = {entry.name: entry.size for entry in configuration.entries if entry.logins}

        # When thousands of entries change together, most change from one size to the same other
        # size.
        @cache
        def begun(size: int) -> Commitment:
            return Commitment(sent=(Allotment(generation=before, connections=size),))

        @cache
        def resized(known: Commitment, size: int) -> Commitment:
            return known.send(Allotment(generation=version, connections=size))

        for name in {name for name, _ in sizes.items() ^ self._sizes.items()}:
            known = self._resized.get(name) or begun(self.latest(name))
            self._resized[name] = resized(known, sizes.get(name, 0))
        self._version, self._sizes = version, sizes

    def settle(self, version: int) -> None:
        """Note that *version* is in force, and that its entries are known."""
        self._in_force = max(version, self._in_force)

        @cache
        def settled(known: Commitment) -> Commitment:
            # Most versions do not change an entry: it has the size of the last version that did.
            applied = [one.generation for one in known.sent if one.generation <= version]
            return known.acknowledge(max(applied, default=0), 0)

        for name, resized in list(self._resized.items()):
            if resized.generation <= version:
                del self._resized[name]
            else:
                self._resized[name] = settled(resized)
