"""Items in the order of their ranks; the first is at hand, and every change takes O(log n)."""

from heapq import heapify, heappop, heappush
from itertools import count
from typing import Generic, TypeVar

Item = TypeVar("Item")
Rank = TypeVar("Rank", float, tuple[float, ...])

# With at most this many outdated entries, a clean-up is not worth it.
_FEW = 16


class Ranking(Generic[Item, Rank]):
    """Items by rank, the lowest first; of equals, the one that was put first.

    It is a heap, from which outdated entries are removed when they reach its top.
    """

    def __init__(self) -> None:
        self._entries: dict[Item, tuple[Rank, int, Item]] = {}
        self._heap: list[tuple[Rank, int, Item]] = []
        # Keeps items from being compared.
        self._number = count()

    @property
    def first(self) -> tuple[Item, Rank] | None:
        """The first item and its rank."""
        return (self._heap[0][2], self._heap[0][0]) if self._heap else None

    def put(self, item: Item, rank: Rank) -> None:
        """Give *item* this rank."""
        entry = self._entries[item] = rank, next(self._number), item
        heappush(self._heap, entry)
        self._clean()

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
        if self._entries.pop(item, None) is not None:
            self._clean()

    def _clean(self) -> None:
        heap, entries = self._heap, self._entries
        if len(heap) > 2 * len(entries) + _FEW:
            heap[:] = entries.values()
            heapify(heap)
        while heap and entries.get(heap[0][2]) is not heap[0]:
            heappop(heap)
