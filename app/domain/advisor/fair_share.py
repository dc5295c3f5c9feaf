"""Weighted max-min fairness: how to divide a scarce amount.

Water filling: nobody gets more while another with less per weight wants more (Bertsekas and
Gallager, "Data Networks", 6.5).
"""

from collections.abc import Sequence


def fair_level(amount: float, requests: Sequence[tuple[float, float]]) -> float | None:
    """Return the share of *amount* per unit of weight; None if there is enough for all.

    *requests* are pairs of the wanted amount (at least 0) and the weight (above 0). Each gets what
    it wants, but at most its weight times the returned level.
    """
    if sum([wanted for wanted, _ in requests]) <= amount:
        return None
    weight = sum([weight for _, weight in requests])
    for wanted, its_weight in sorted(requests, key=lambda request: request[0] / request[1]):
        if wanted * weight > amount * its_weight:
            return amount / weight
        amount -= wanted
        weight -= its_weight
    return None  # the sum was larger only by rounding
