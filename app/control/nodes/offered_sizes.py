"""The sizes of one node's entries: those that it was offered last, and those that it may obey.

A node puts versions of its configuration in force late, and not each of them. So an entry counts
for the largest size that it was offered since the version that the node last reported.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from app.domain.nodes.allotment import Allotment, Commitment
from app.domain.nodes.configuration import NodeConfiguration


class OfferedSizes:
    """Those of the entries that somebody can enter."""

    def __init__(self) -> None:
        """Of a node that is new, and obeys none."""
        # As of the latest version.
        self._version = 0
        self._sizes: Mapping[str, int] = {}
        # Entries of which another size may be in force, too.
        self._resized: dict[str, Commitment] = {}
        # The first version from which on all is known; None: it is not made yet.
        self._known_from: int | None = 0
        # The version at the last report that had every entry.
        self._in_force = 0

    def forget(self) -> None:
        """The node may obey any, until it obeys a version that is still to come."""
        self._known_from = None
        self._resized.clear()

    @property
    def are_known(self) -> bool:
        """Whether what the node obeys is a version that is known."""
        return self._known_from is not None and self._in_force >= self._known_from

    @property
    def need_version(self) -> bool:
        """Whether another version is needed, which the node's next report then confirms."""
        return self._known_from is None

    def latest(self, entry: str) -> int:
        """The size that the node was offered last; 0 of an entry that nobody can enter."""
        return self._sizes.get(entry, 0)

    def most(self, entry: str) -> int:
        """The largest size that the node may obey, if they are known."""
        resized = self._resized.get(entry)
        return resized.liability if resized else self.latest(entry)

    def offer(self, configuration: NodeConfiguration) -> None:
        """Another version is there; it is not in force yet, and perhaps never will be."""
        before, version = self._version, configuration.version
        if self._known_from is None:
            self._known_from = version
        sizes = {entry.name: entry.size for entry in configuration.entries if entry.logins}

        # Of thousands of entries that change together most do so from one size to another.
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
        """*version* is in force, and what each entry has under it is known."""
        self._in_force = max(version, self._in_force)

        @cache
        def settled(known: Commitment) -> Commitment:
            # Most versions do not change an entry: it has the size of the last one that did.
            applied = [one.generation for one in known.sent if one.generation <= version]
            return known.acknowledge(max(applied, default=0), 0)

        for name, resized in list(self._resized.items()):
            if resized.generation <= version:
                del self._resized[name]
            else:
                self._resized[name] = settled(resized)
