"""A sizing rule: a pure function of one observation and of what it remembers."""

from __future__ import annotations

from typing import Protocol, TypeVar

from app.domain.advisor.observation import PoolObservation
from app.domain.advisor.sizing_recommendation import PoolSizingRecommendation

Memory = TypeVar("Memory")


class SizingRule(Protocol[Memory]):
    """Recommends a pool's size. The caller keeps its memory of each pool, a value."""

    @property
    def name(self) -> str:
        """Its name in the API and the catalog."""
        ...

    def initial_memory(self) -> Memory:
        """The memory of a pool never seen before."""
        ...

    def advise(
        self, memory: Memory, seen: PoolObservation
    ) -> tuple[PoolSizingRecommendation, Memory]:
        """Recommend a size, and return what to remember; deterministic."""
        ...
