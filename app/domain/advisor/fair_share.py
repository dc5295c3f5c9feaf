"""Weighted max-min fairness: one budget divided among requests, in whole connections.

Water filling: nobody gets more while somebody with less per weight wants more (Bertsekas and
Gallager, "Data Networks", 6.5). Floors are given first, and the remainders of division go to
those that lost most by rounding down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareRequest:
    """What one requester wants of the budget.

    Attributes:
        wanted: connections it wants, at least 0.
        floor: connections it gets in any case, at least 0.
        weight: its share relative to others, above 0.
    """

    wanted: int
    floor: int = 0
    weight: float = 1.0

    @property
    def most(self) -> int:
        """What it gets when there is enough."""
        return max(self.wanted, self.floor)


def divide(budget: int, requests: Sequence[ShareRequest]) -> list[int]:
    """Grants in the order of *requests*; their sum exceeds *budget* only by what floors demand."""
    grants = [request.floor for request in requests]
    left = budget - sum(grants)
    if left >= sum([request.most for request in requests]) - sum(grants):
        return [request.most for request in requests]
    if left <= 0:
        return grants
    level = _level(budget, requests)
    exact = [min(max(request.weight * level, request.floor), request.most) for request in requests]
    grants = [floor(share + _ROUNDING) for share in exact]
    lost = sorted(
        range(len(requests)),
        key=lambda index: (grants[index] - exact[index], -requests[index].weight),
    )
    left = budget - sum(grants)
    for index in lost:
        if left <= 0:
            break
        if grants[index] < requests[index].most:
            grants[index] += 1
            left -= 1
    return grants


# An exact share of 2.9999999999 is 3.
_ROUNDING = 1e-9


def _level(budget: int, requests: Sequence[ShareRequest]) -> float:
    """The water level: connections per weight at which the grants sum up to *budget*.

    As the level rises, each request's grant grows by its weight from the level of its floor to
    that of its wish, and is constant before and after.
    """
    edges: list[tuple[float, float]] = []
    for request in requests:
        edges.append((request.floor / request.weight, request.weight))
        edges.append((request.most / request.weight, -request.weight))
    edges.sort()
    given, slope, level = float(sum([request.floor for request in requests])), 0.0, 0.0
    for edge, change in edges:
        reached = given + slope * (edge - level)
        if slope > 0.0 and reached >= budget:
            return level + (budget - given) / slope
        given, level, slope = reached, edge, slope + change
    return level
