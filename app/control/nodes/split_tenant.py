"""One tenant whose size is split over places."""

from __future__ import annotations

from collections.abc import Iterator

# As a place this process has a name that no node can have.
PROCESS = ""
# Seconds that the load of a place looks back: what moves after a burst must not move back at once.
_MEMORY = 10.0
# A node has what it was given at the latest after so many seconds, or it cannot use it now.
_ARRIVES = 3.0


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
        if load >= self._peak:
            self._peak, self._until = load, now + _MEMORY
        self._latest = load

    def at(self, now: float) -> int:
        return self._peak if now < self._until else self._latest


class PlaceShare:
    """What a place has of a tenant.

    Attributes:
        share: connections.
        since: when it got some, or lost the last.
        is_awaited: whether it got some and has not been seen to use them.
    """

    __slots__ = ("is_awaited", "load", "share", "since")

    def __init__(self, share: int, now: float) -> None:
        self.share = share
        self.since = now
        self.is_awaited = False
        self.load = RecentLoad()

    def begin(self, now: float) -> None:
        """It is seen to use what it has: its turn begins."""
        if self.is_awaited:
            self.is_awaited, self.since = False, now

    def seconds(self, now: float) -> float:
        """For how long it has had some, or had none; what is on the way does not count."""
        return max(0.0, now - self.since - (_ARRIVES if self.is_awaited else 0.0))


class SplitTenant:
    """A tenant.

    Attributes:
        size: its max_size.
        callers: places with callers, when that was last decided about.
        claims: names of nodes at which it can be used.
        places: shares, of this process and of nodes that can be used, or may have connections yet.
        is_settled: whether nothing is to be done about it until something changes.
    """

    __slots__ = ("callers", "claims", "is_settled", "name", "places", "server", "size")

    def __init__(self, name: str, server: str, size: int, now: float) -> None:
        self.name = name
        self.server = server
        self.size = size
        self.callers = 0
        self.claims: frozenset[str] = frozenset()
        self.places = {PROCESS: PlaceShare(size, now)}
        self.is_settled = False

    @property
    def nodes(self) -> Iterator[str]:
        return (name for name in self.places if name != PROCESS)

    @property
    def most(self) -> int:
        """What all places may have together: its size, and one for each with callers at least."""
        return max(self.size, self.callers)

    def add(self, node: str, now: float) -> None:
        """Know of a place, which has nothing yet."""
        if node not in self.places:
            self.places[node] = PlaceShare(0, now)

    def give(self, name: str, share: int, now: float) -> bool:
        """Give a place its share; whether it had another."""
        place = self.places[name]
        if bool(place.share) is not bool(share):
            place.since, place.is_awaited = now, share > 0 and name != PROCESS
        has_changed, place.share = place.share != share, share
        return has_changed
