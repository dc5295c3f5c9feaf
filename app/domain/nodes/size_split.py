"""How a tenant's size is split over the places where its callers are.

A place is this process or a node. Together they may have `max_size` connections of the tenant:

1. Every place with callers has at least one connection, whatever the size, and whatever silent
   places may have. Every other place has one too, if at least as many are left. The rest goes where
   the load is.
2. While no place lacks a connection, nothing moves. A connection with work moves only if another
   place should have clearly more than it has: on a node a move takes a RELOAD, which stalls its
   clients.
3. A place gets more only once others are known to have that many less, as in `budget_division`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.domain.nodes.allotment import Allotment, Commitment
from app.domain.nodes.budget_division import Holder, fair_shares, move

# A place should have clearly more if it lacks two connections and more than this part of its own.
_CLEARLY = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A place where a tenant's callers can be: this process or a node.

    Attributes:
        share: connections that it was given last.
        liability: the most that it can have open now, at least its share.
        load: connections that its callers could use: the maximum of some seconds.
        idle_weight: its weight without load, above 0; each connection of load adds 1.
        claims: whether the tenant can be used there.
        limit: the most that it may have; None: no limit.
        reachable: whether a new share would reach it.
    """

    name: str
    share: int
    liability: int
    load: int = 0
    idle_weight: float = 1.0
    claims: bool = True
    limit: int | None = None
    reachable: bool = True


def most_of_all(size: int, places: Sequence[Place]) -> int:
    """The most that all places may have together: *size*, or what rule 1 takes if that is more."""
    callers = sum(place.load > 0 for place in places if place.claims and place.reachable)
    return max(size, callers + _lost(places))


def split(size: int, places: Sequence[Place]) -> Mapping[str, int]:
    """Return the shares to give now, by name: only those that change.

    What this process gives up is free at once; call again after that.

    Args:
        size: as returned by `most_of_all`.
    """
    targets = _targets(size, places)
    holders = [_holder(place) for place in places]
    return move(size, holders, targets, takes=_does_any_lack(places, targets))


def is_settled(size: int, places: Sequence[Place]) -> bool:
    """Whether nothing would change until a load, the size or a place changes."""
    here = [place for place in places if place.reachable]
    return (
        all(place.liability <= place.share for place in here)
        and all(place.share > 0 or place.load == 0 for place in here if place.claims)
        and sum(place.share for place in places) <= size <= sum(place.liability for place in places)
    )


def _targets(size: int, places: Sequence[Place]) -> Mapping[str, int]:
    """What each place would have if everything could be given at once."""
    targets = {place.name: 0 if place.reachable else place.share for place in places}
    claims = [place for place in places if place.claims and place.reachable]
    size -= _lost(places)
    busy = [place for place in claims if place.load > 0]
    if busy and size < 2 * len(claims):
        claims = busy
    # Idle places keep what they have.
    claims = sorted(claims, key=lambda place: place.share == 0)[:size]
    wants = [
        Holder(
            name=place.name,
            demand=size,
            commitment=Commitment(),
            weight=place.load + place.idle_weight,
            limit=place.limit,
        )
        for place in claims
    ]
    return {**targets, **fair_shares(size, wants)}


def _lost(places: Sequence[Place]) -> int:
    """Count what silent places may have: it is theirs until they are heard again, or gone."""
    return sum(place.liability for place in places if not place.reachable)


def _does_any_lack(places: Sequence[Place], targets: Mapping[str, int]) -> bool:
    """Whether a place needs more so badly that others must give up some."""
    here = [place for place in places if place.reachable]
    if any(place.share > 0 for place in here if not place.claims):
        return True
    is_spare = any(place.share > max(place.load, targets[place.name]) for place in here)
    return any(
        place.share == 0
        or (place.load > place.share and (is_spare or missing > max(1.0, place.share * _CLEARLY)))
        for place in here
        for missing in (targets[place.name] - place.share,)
        if missing > 0
    )


def _holder(place: Place) -> Holder:
    share = Allotment(generation=1, connections=place.share)
    return Holder(
        name=place.name,
        demand=0,
        commitment=Commitment(sent=(share,), observed=place.liability),
        reachable=place.reachable,
    )
