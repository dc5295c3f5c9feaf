"""A tenant whose size is split over places."""

from collections.abc import Iterator, Sequence

from app.domain.nodes.size_split import Place, is_settled, most_of_all

# The name of this process as a place; no node can have it.
PROCESS = ""
# Seconds that the load of a place looks back, so that nothing moves back right after a burst.
_MEMORY = 10.0


class RecentLoad:
    """The recent maximum of a number that is noted when it changes."""

    __slots__ = ("_latest", "_peak", "_until")

    def __init__(self) -> None:
        self._latest = self._peak = 0
        self._until = 0.0

    def note(self, load: int, now: float) -> None:
        # The previous value was valid until now.
        if now >= self._until or self._latest == self._peak:
            self._peak, self._until = self._latest, now + _MEMORY
        self._peak, self._latest = max(self._peak, load), load

    def at(self, now: float) -> int:
        return self._peak if now < self._until else self._latest


class PlaceShare:
    """A place's share of a tenant.

    Attributes:
        share: number of connections.
    """

    __slots__ = ("load", "share")

    def __init__(self, share: int) -> None:
        self.share = share
        self.load = RecentLoad()


class SplitTenant:
    """A tenant with the shares of its places.

    Attributes:
        size: its max_size.
        size_in_force: its size, or an earlier, larger one that may still be in force somewhere.
        most: the most that all places may have together, see `most_of_all`.
        claims: names of nodes where it can be used.
        places: the shares of this process, and of nodes where it can be used or may still have
            connections.
        is_settled: whether there is nothing to do until something changes.
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
        """It may have *size* connections to *server*, and can be used on the nodes of *claims*."""
        self.server, self.size, self.claims = server, size, claims
        self.size_in_force = max(size, self.size_in_force)
        for node in claims - self.places.keys():
            self.places[node] = PlaceShare(0)

    def withdraw(self) -> None:
        """It can no longer be used on any node."""
        self.claims = frozenset()

    def forget(self, node: str) -> bool:
        """Note that *node* was deleted; return whether it was one of the places."""
        self.claims -= {node}
        return self.places.pop(node, None) is not None

    def allow_for(self, places: Sequence[Place]) -> None:
        """Let all places together have what they need; see `most_of_all`."""
        self.most = most_of_all(self.size, places)

    def settle(self, places: Sequence[Place]) -> bool:
        """Find out what is left to do.

        Return whether all places have now applied a smaller size.
        """
        self.is_settled = is_settled(self.most, places)
        is_obeyed = sum([each.liability for each in places]) <= self.most
        has_shrunk = is_obeyed and self.size_in_force > self.size
        if has_shrunk:
            self.size_in_force = self.size
        return has_shrunk

    def give(self, name: str, share: int) -> bool:
        """Give a place its share; return whether that changed it."""
        place = self.places[name]
        has_changed, place.share = place.share != share, share
        return has_changed
