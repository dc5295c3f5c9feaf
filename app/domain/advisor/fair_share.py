"""Weighted max-min fairness: one budget divided among claims, in whole connections.

Water filling: nobody gets more while somebody with less per weight wants more (Bertsekas and
Gallager, "Data Networks", 6.5). Floors are given first, ceilings never exceeded, and the
remainders of division go to whoever lost most by rounding down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareRequest:
    """What one claimant wants of the budget.

    Attributes:
        wanted: connections it wants, at least 0.
        floor: connections it gets in any case, at least 0.
        ceiling: the most it may get; None when there is no limit.
        weight: its share relative to others, above 0.
    """

    wanted: int
    floor: int = 0
    ceiling: int | None = None
    weight: float = 1.0

    @property
    def most(self) -> int:
        """What it gets when there is enough."""
        limited = self.wanted if self.ceiling is None else min(self.wanted, self.ceiling)
        return max(limited, self.floor)


def divide(budget: int, claims: Sequence[ShareRequest]) -> list[int]:
    """Grants in the order of *claims*; their sum exceeds *budget* only by what floors demand."""
    grants = [claim.floor for claim in claims]
    left = budget - sum(grants)
    if left >= sum([claim.most for claim in claims]) - sum(grants):
        return [claim.most for claim in claims]
    if left <= 0:
        return grants
    level = _level(budget, claims)
    exact = [min(max(claim.weight * level, claim.floor), claim.most) for claim in claims]
    grants = [floor(share + _ROUNDING) for share in exact]
    lost = sorted(
        range(len(claims)), key=lambda index: (grants[index] - exact[index], -claims[index].weight)
    )
    left = budget - sum(grants)
    for index in lost:
        if left <= 0:
            break
        if grants[index] < claims[index].most:
            grants[index] += 1
            left -= 1
    return grants


# An exact share of 2.9999999999 is 3.
_ROUNDING = 1e-9


def _level(budget: int, claims: Sequence[ShareRequest]) -> float:
    """The water level: connections per weight at which the grants sum up to *budget*.

    As the level rises, each claim's grant grows by its weight from the level of its floor to
    that of its wish, and is constant before and after.
    """
    edges: list[tuple[float, float]] = []
    for claim in claims:
        edges.append((claim.floor / claim.weight, claim.weight))
        edges.append((claim.most / claim.weight, -claim.weight))
    edges.sort()
    given, slope, level = float(sum([claim.floor for claim in claims])), 0.0, 0.0
    for edge, change in edges:
        reached = given + slope * (edge - level)
        if slope > 0.0 and reached >= budget:
            return level + (budget - given) / slope
        given, level, slope = reached, edge, slope + change
    return level
