"""A sizing rule: a pure function of an observation and the rule's memory."""

from typing import Protocol, TypeVar

from app.domain.advisor.observation import PoolObservation
from app.domain.advisor.sizing_recommendation import PoolSizingRecommendation

Memory = TypeVar("Memory")


class SizingRule(Protocol[Memory]):
    """Recommends a pool's size. Its memory of each pool is a value that the caller keeps."""

    @property
    def name(self) -> str:
        """Its name in the API and the catalog."""

    def initial_memory(self) -> Memory:
        """The memory of a pool never seen before."""

    def advise(
        self, memory: Memory, seen: PoolObservation
    ) -> tuple[PoolSizingRecommendation, Memory]:
        """Recommend a size, and return the new memory; deterministic."""
