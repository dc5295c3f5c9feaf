"""What every sizing rule is: a pure function of one observation and what it remembers."""

from __future__ import annotations

from typing import Protocol, TypeVar

from app.domain.advisor.observation import PoolObservation
from app.domain.advisor.sizing_recommendation import PoolSizingRecommendation

Memory = TypeVar("Memory")


class SizingRule(Protocol[Memory]):
    """A way to judge a pool's size; its memory of one pool is a value that callers keep."""

    @property
    def name(self) -> str:
        """What people and the catalog call it."""
        ...

    def initial_memory(self) -> Memory:
        """The memory of a pool never seen before."""
        ...

    def advise(
        self, memory: Memory, seen: PoolObservation
    ) -> tuple[PoolSizingRecommendation, Memory]:
        """Judge *seen*, and say what to remember for the next time; the same always the same."""
        ...
