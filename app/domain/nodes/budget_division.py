"""How the connections of a server are divided among this process and its nodes.

They are divided by demand and weight: weighted max-min fairness (`fair_share`). A connection moves
only when some holder lacks one, because a move takes a report and two messages. An allotment grows
only while the sum of all liabilities stays inside the budget. So the budget holds even if messages
are lost, late or repeated.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heapreplace

from app.domain.advisor.fair_share import fair_level
from app.domain.nodes.allotment import Commitment


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Someone who wants connections of a server.

    Attributes:
        demand: connections that it could use.
        weight: its relative share when there are too few, above 0; for example the sum of the
            weights of its tenants with work.
        kept: connections that it never gives up, such as the min_size of its pools.
        limit: the operator's limit; 0 once it is drained; None: no limit.
        reachable: whether it has reported recently. An unreachable holder gets no more than it has.
    """

    name: str
    demand: int
    commitment: Commitment
    weight: float = 1.0
    kept: int = 0
    limit: int | None = None
    reachable: bool = True

    @property
    def wanted(self) -> int:
        """Connections that can be given to it."""
        most = self.demand if self.limit is None else min(self.demand, self.limit)
        return most if self.reachable else min(most, self.commitment.current)


def fair_shares(budget: int, holders: Sequence[Holder]) -> Mapping[str, int]:
    """Divide *budget* into whole numbers: each holder gets 1 to the number that it wants.

    It gets what it keeps at least. If there are fewer connections than holders that want some, the
    lightest get none.
    """
    budget = max(0, budget)
    shares = _by_weight(budget, holders)
    kept = {holder.name: min(holder.kept, holder.wanted, budget) for holder in holders}
    short = {name: least for name, least in kept.items() if shares[name] < least}
    if not short:
        return shares
    others = [holder for holder in holders if holder.name not in short]
    return {**fair_shares(budget - sum(short.values()), others), **short}


def _by_weight(budget: int, holders: Sequence[Holder]) -> dict[str, int]:
    """Divide *budget* by weight, whatever the holders keep."""
    claims = [holder for holder in holders if holder.wanted > 0]
    shares = dict.fromkeys((holder.name for holder in holders), 0)
    level = fair_level(budget, [(holder.wanted, holder.weight) for holder in claims])
    if level is None:
        return shares | {holder.name: holder.wanted for holder in claims}
    exact = {holder.name: min(holder.wanted, holder.weight * level) for holder in claims}
    shares |= {name: max(1, int(share)) for name, share in exact.items()}
    # Rounding: the holder furthest above its exact share gives to the one furthest below.
    while (spare := budget - sum(shares.values())) != 0:
        above = {name: shares[name] - exact[name] for name in exact}
        if spare < 0:
            shares[max(above, key=lambda name: (shares[name] > 1, above[name], name))] -= 1
        else:
            shares[min(above, key=lambda name: (above[name], name))] += 1
    return shares


def divide(budget: int, holders: Sequence[Holder]) -> Mapping[str, int]:
    """Return the allotments to send now, by name: only those that change.

    Args:
        budget: connections of the server for all of them, without back-ends that belong to none.
    """
    return move(budget, holders, fair_shares(budget, holders))


def move(
    budget: int, holders: Sequence[Holder], shares: Mapping[str, int], *, takes: bool = True
) -> Mapping[str, int]:
    """Return the allotments to send now on the way to *shares*, by name: only those that change.

    Args:
        takes: whether a holder may lose some. If not, only free connections are given, and only
            those beyond the budget are taken.
    """
    amounts = {holder.name: _allowed(holder) for holder in holders}
    _shrink(budget, holders, shares, amounts, takes=takes)
    _grow(budget, holders, shares, amounts)
    return {
        holder.name: amounts[holder.name]
        for holder in holders
        if amounts[holder.name] != holder.commitment.current
    }


def _allowed(holder: Holder) -> int:
    """What the holder has, but never more than its limit."""
    current = holder.commitment.current
    return current if holder.limit is None else min(current, holder.limit)


def _shrink(
    budget: int,
    holders: Sequence[Holder],
    shares: Mapping[str, int],
    amounts: dict[str, int],
    *,
    takes: bool,
) -> None:
    """Take what others lack, and what exceeds the budget, from holders above their share."""
    donors, heap = _ordered(holders, lambda name: shares[name] - amounts[name])
    lacking = sum(max(0, shares[name] - amounts[name]) for name in donors) if takes else 0
    # A silent holder keeps what was taken from it until it is heard again.
    held = sum(
        amounts[holder.name] if holder.reachable else holder.commitment.liability
        for holder in holders
    )
    needed = lacking - (budget - held)
    while needed > 0 and heap and heap[0][0] < 0:
        below, number = heap[0]
        amounts[donors[number]] -= 1
        needed -= 1
        heapreplace(heap, (below + 1, number))


def _grow(
    budget: int, holders: Sequence[Holder], shares: Mapping[str, int], amounts: dict[str, int]
) -> None:
    """Give free connections to holders below their share; the one that lacks most comes first."""
    liabilities = {holder.name: holder.commitment.liability for holder in holders}
    free = budget - sum(liabilities.values())
    growing, heap = _ordered(holders, lambda name: amounts[name] - shares[name])
    while heap and heap[0][0] < 0:
        below, number = heap[0]
        name = growing[number]
        # Connections within its liability are already reserved for it.
        costs = amounts[name] >= liabilities[name]
        if costs and free <= 0:
            heappop(heap)
            continue
        amounts[name] += 1
        free -= costs
        heapreplace(heap, (below + 1, number))


def _ordered(
    holders: Sequence[Holder], measure: Callable[[str], int]
) -> tuple[Sequence[str], list[tuple[int, int]]]:
    """Return the names of reachable holders, and a heap of (measure, index of the name).

    A heap, because thousands of connections may move at a time.
    """
    names = sorted((holder.name for holder in holders if holder.reachable), reverse=True)
    heap = [(measure(name), number) for number, name in enumerate(names)]
    heapify(heap)
    return names, heap
