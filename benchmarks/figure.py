"""A figure: many rounds of one measure, told as median, least and most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Figure:
    """What one measure gave, round after round."""

    rounds: tuple[float, ...]

    @classmethod
    def of(cls, rounds: Sequence[float]) -> Figure:
        """The figure of these rounds."""
        return cls(tuple(rounds))

    def as_json(self) -> dict[str, float]:
        """Median, least and most, to four digits."""
        return {
            "median": _short(median(self.rounds)),
            "min": _short(min(self.rounds)),
            "max": _short(max(self.rounds)),
        }

    def __str__(self) -> str:
        told = self.as_json()
        return f"{told['median']:>10g}  ({told['min']:g} to {told['max']:g})"


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def quantile(values: Sequence[float], fraction: float) -> float:
    """The value below which *fraction* of the sorted values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))]
