"""The report's drawings."""

from math import ceil
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from benchmarks.advisor_report.figures import connections, late, spread
from benchmarks.advisor_report.grid import DRAWN, Results

_COLUMNS = 2
_SHOWN = ("demand", "hysteresis", "hpa", "on-demand", "clairvoyant")


def pareto(results: Results, path: Path) -> None:
    """For each load: late share against connections, one point a rule, one line of statics."""
    rows = ceil(len(results) / _COLUMNS)
    figure, axes = plt.subplots(rows, _COLUMNS, figsize=(12, 4 * rows), squeeze=False)
    for axis in axes.flat[len(results) :]:
        axis.set_visible(False)
    for axis, (load, by_rule) in zip(axes.flat, results.items(), strict=False):
        statics: list[tuple[float, float]] = []
        for label, outcomes in by_rule.items():
            if label.startswith("price "):
                continue
            x, x_spread = spread([connections(outcome) for outcome in outcomes.values()])
            y, y_spread = spread([100 * late(outcome) for outcome in outcomes.values()])
            if label.startswith("static "):
                statics.append((x, y))
                continue
            # Around the others: where it is as good as growing on demand both are seen.
            own = {"ms": 11, "mfc": "none", "mew": 2} if label == "demand" else {"ms": 5}
            axis.errorbar(x, y, xerr=x_spread, yerr=y_spread, fmt="o", label=label, **own)
        axis.plot(*zip(*sorted(statics), strict=True), "k.:", label="static sizes", zorder=0)
        axis.set_yscale("symlog", linthresh=0.01)
        axis.set_ylim(bottom=-0.002, top=200)
        axis.set_xlim(left=0, right=1.05 * axis.get_xlim()[1])
        axis.set(title=load, xlabel="connections open on average", ylabel="late, %")
        axis.grid(alpha=0.3)
    axes.flat[0].legend(fontsize="small")
    _save(figure, path, dots=75)


def over_time(results: Results, load: str, path: Path) -> None:
    """Sizes and late requests of one load, tick by tick."""
    figure, (sizes, lates) = plt.subplots(2, 1, figsize=(12, 7), sharex=True)
    for label in _SHOWN:
        outcome = results[load][label].get(1)
        if outcome is None:
            continue
        minutes = [moment.at / 60 for moment in outcome.history]
        sizes.step(minutes, [moment.max_size for moment in outcome.history], label=label)
        lates.plot(minutes, [moment.late for moment in outcome.history], label=label)
    drawn = results[load]["on-demand"].get(1)
    if drawn is not None:
        minutes = [moment.at / 60 for moment in drawn.history]
        active = [moment.active for moment in drawn.history]
        sizes.fill_between(minutes, active, alpha=0.15, color="k", label="leased, on-demand")
    sizes.set(title=load, ylabel="max_size")
    lates.set(xlabel="minutes", ylabel="late requests so far", yscale="symlog")
    lates.set_ylim(bottom=0)
    sizes.legend(fontsize="small")
    for axis in (sizes, lates):
        axis.grid(alpha=0.3)
    _save(figure, path)


def draw(results: Results, folder: Path) -> None:
    """Every drawing, into *folder*."""
    pareto(results, folder / "pareto.png")
    for load in DRAWN:
        if load in results:
            over_time(results, load, folder / f"{load}.png")


def _save(figure: Figure, path: Path, *, dots: int = 100) -> None:
    figure.tight_layout()
    # Without the version of the library a drawing changes only when its content does.
    figure.savefig(path, dpi=dots, metadata={"Software": None})
    plt.close(figure)
