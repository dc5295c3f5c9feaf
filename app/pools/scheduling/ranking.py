"""Items in the order of their ranks; each operation takes O(log n), as a mean of many."""

from heapq import heapify, heappop, heappush
from itertools import count
from typing import Generic, TypeVar

Item = TypeVar("Item")
Rank = TypeVar("Rank", float, tuple[float, ...])

# With at most this many outdated entries, a clean-up is not worth it.
_FEW = 16


class Ranking(Generic[Item, Rank]):
    """Items by rank, the lowest first; of equals, the one that was put first.

    It is a heap, from which outdated entries are removed when they reach its top. These operations
    run at every lease, so they do little.
    """

    def __init__(self) -> None:
        self._entries: dict[Item, tuple[Rank, int, Item]] = {}
        self._heap: list[tuple[Rank, int, Item]] = []
        # Keeps items from being compared.
        self._number = count()

    @property
    def first(self) -> tuple[Item, Rank] | None:
        """The first item and its rank."""
        heap, entries = self._heap, self._entries
        while heap:
            rank, _, item = entry = heap[0]
            if entries.get(item) is entry:
                return item, rank
            heappop(heap)
        return None

    def put(self, item: Item, rank: Rank) -> None:
        """Give *item* this rank."""
        heap, entries = self._heap, self._entries
        entry = entries[item] = rank, next(self._number), item
        heappush(heap, entry)
        if len(heap) > 2 * len(entries) + _FEW:
            heap[:] = entries.values()
            heapify(heap)

    def add(self, item: Item, rank: Rank) -> None:
        """Give *item* this rank, unless it has one."""
        if item not in self._entries:
            self.put(item, rank)

    def bring_forward(self, item: Item, rank: Rank) -> None:
        """Give *item* this rank, unless it has a lower one."""
        entry = self._entries.get(item)
        if entry is None or rank < entry[0]:
            self.put(item, rank)

    def drop(self, item: Item) -> None:
        """Remove *item*, if it is there."""
        self._entries.pop(item, None)
