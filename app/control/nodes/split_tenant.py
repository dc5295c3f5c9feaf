"""One tenant whose size is split over places."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from app.domain.nodes.split import Place, is_settled, most_of_all

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

    def declare(self, server: str, size: int, claims: frozenset[str]) -> None:
        """It may have *size* connections of *server*, and can be used on the nodes of *claims*."""
        self.server, self.size, self.claims = server, size, claims
        self.size_in_force = max(size, self.size_in_force)
        for node in claims - self.places.keys():
            self.places[node] = PlaceShare(0)

    def withdraw(self) -> None:
        """It can be used on no node any more."""
        self.claims = frozenset()

    def forget(self, node: str) -> bool:
        """*node* was deleted, and has nothing; whether it was one of the places."""
        self.claims -= {node}
        return self.places.pop(node, None) is not None

    def allow_for(self, places: Sequence[Place]) -> None:
        """Let all places have together what they need, see `most_of_all`."""
        self.most = most_of_all(self.size, places)

    def settle(self, places: Sequence[Place]) -> bool:
        """See what is left to be done; whether all have now obeyed a smaller size."""
        self.is_settled = is_settled(self.most, places)
        is_obeyed = sum([each.liability for each in places]) <= self.most
        has_shrunk = is_obeyed and self.size_in_force > self.size
        if has_shrunk:
            self.size_in_force = self.size
        return has_shrunk

    def give(self, name: str, share: int) -> bool:
        """Give a place its share; whether it had another."""
        place = self.places[name]
        has_changed, place.share = place.share != share, share
        return has_changed
