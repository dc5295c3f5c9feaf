"""Weighted max-min fairness: what each gets of something that is short.

Water filling: nobody gets more while somebody with less per weight wants more (Bertsekas and
Gallager, "Data Networks", 6.5).
"""

from __future__ import annotations

from collections.abc import Sequence


def fair_level(amount: float, requests: Sequence[tuple[float, float]]) -> float | None:
    """How much of *amount* there is for each unit of weight; None when there is enough for all.

    Each of *requests*, pairs of what is wanted (at least 0) and its weight (above 0), gets what it
    wants, but at most its weight times the level.
    """
    if sum([wanted for wanted, _ in requests]) <= amount:
        return None
    weight = sum([weight for _, weight in requests])
    for wanted, its_weight in sorted(requests, key=lambda request: request[0] / request[1]):
        if wanted * weight > amount * its_weight:
            break
        amount -= wanted
        weight -= its_weight
    return amount / weight
