"""One tenant whose size is split over places."""

from __future__ import annotations

from collections.abc import Iterator

# As a place this process has a name that no node can have.
PROCESS = ""
# Seconds that the load of a place looks back: what moves after a burst must not move back at once.
_MEMORY = 10.0


class RecentLoad:
    """The most of some seconds, of a number that is noted when it changes."""

    __slots__ = ("_latest", "_peak", "_until")

    def __init__(self) -> None:
        self._latest = self._peak = 0
        self._until = 0.0

    def note(self, load: int, now: float) -> None:
        # What was noted before was so until now.
        if now >= self._until or self._latest == self._peak:
            self._peak, self._until = self._latest, now + _MEMORY
        self._peak, self._latest = max(self._peak, load), load

    def at(self, now: float) -> int:
        return self._peak if now < self._until else self._latest


class PlaceShare:
    """What a place has of a tenant.

    Attributes:
        share: connections.
    """

    __slots__ = ("load", "share")

    def __init__(self, share: int) -> None:
        self.share = share
        self.load = RecentLoad()


class SplitTenant:
    """A tenant.

    Attributes:
        size: its max_size.
        size_in_force: that, or a larger one before it that some place may still have.
        most: what all places may have together, see `most_of_all`.
        claims: names of nodes at which it can be used.
        places: shares, of this process and of nodes that can be used, or may have connections yet.
        is_settled: whether nothing is to be done about it until something changes.
    """

    __slots__ = (
        "claims",
        "is_settled",
        "most",
        "name",
        "places",
        "server",
        "size",
        "size_in_force",
    )

    def __init__(self, name: str, server: str, size: int) -> None:
        self.name = name
        self.server = server
        self.size = self.size_in_force = self.most = size
        self.claims: frozenset[str] = frozenset()
        self.places = {PROCESS: PlaceShare(size)}
        self.is_settled = False

    @property
    def nodes(self) -> Iterator[str]:
        return (name for name in self.places if name != PROCESS)

    def add(self, node: str) -> None:
        """Know of a place, which has nothing yet."""
        if node not in self.places:
            self.places[node] = PlaceShare(0)

    def give(self, name: str, share: int) -> bool:
        """Give a place its share; whether it had another."""
        place = self.places[name]
        has_changed, place.share = place.share != share, share
        return has_changed
