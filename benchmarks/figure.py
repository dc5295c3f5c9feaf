"""A figure: what the rounds of one measure gave, as median, least and most."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Self, TypeAlias


@dataclass(frozen=True, slots=True)
class Figure:
    """What one measure gave, round after round."""

    rounds: tuple[float, ...]

    @classmethod
    def of(cls, rounds: Sequence[float]) -> Self:
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
        shown = self.as_json()
        return (
            f"{shown['median']:>10g}  ({shown['min']:g} to {shown['max']:g};"
            f" rounds: {len(self.rounds)})"
        )


# By key: one figure, or one for each number of tasks, tenants or the like.
Figures: TypeAlias = dict[str, "Figure | dict[str, Figure]"]


def as_json(figures: Figures) -> dict[str, Any]:
    """The figures for programs."""
    return {
        key: figure.as_json()
        if isinstance(figure, Figure)
        else {column: cell.as_json() for column, cell in figure.items()}
        for key, figure in figures.items()
    }


class Rounds:
    """Collects what each round gives, for measures that give several figures."""

    def __init__(self) -> None:
        self._values: defaultdict[str, defaultdict[str, list[float]]] = defaultdict(
            lambda: defaultdict(list)
        )

    def add(self, key: str, value: float, column: object = "") -> None:
        """Add the value of one more round; without a *column* the key has a single figure."""
        self._values[key][str(column)].append(value)

    def add_quantiles(self, key: str, values: Sequence[float]) -> None:
        """Add the median, the 95th percentile and the most of one round's *values*."""
        for column, fraction in (("p50", 0.5), ("p95", 0.95), ("most", 1.0)):
            self.add(key, quantile(values, fraction), column)

    def add_ratios(self, key: str, of: str, *, base: object) -> None:
        """Add to *key* what *of* gave in each other column ÷ in *base*, round by round."""
        columns = self._values[of]
        for column, values in columns.items():
            if column != str(base):
                for value, one in zip(values, columns[str(base)], strict=True):
                    self.add(key, value / one, column)

    def figures(self, *, warm_up: int = 0) -> Figures:
        """All of them, in the order in which they were first added.

        The first *warm_up* rounds do not count.
        """
        return {
            key: Figure.of(columns[""][warm_up:])
            if "" in columns
            else {column: Figure.of(values[warm_up:]) for column, values in columns.items()}
            for key, columns in self._values.items()
        }


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def quantile(values: Sequence[float], fraction: float) -> float:
    """The value below which *fraction* of the sorted values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))]


def jain(shares: Sequence[float]) -> float:
    """Jain's index of fairness: 1 if all shares are equal, 1/n if one has everything.

    (Σ x)² ÷ (n · Σ x²); R. Jain, D. Chiu, W. Hawe, DEC-TR-301 (1984).
    """
    squares = sum(share**2 for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 1.0
