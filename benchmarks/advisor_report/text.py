"""The report's words and tables, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from app.simulator.outcome import PRICES, SimulationResult
from benchmarks.advisor_report import figures
from benchmarks.advisor_report.grid import Results

_HEAD = """# What the advisor's rules are worth

Made by `make advisor-report`: simulated, with the rules that ship and what they compete with.
Leases take 150 ms on average (lognormal, coefficient of variation 1.5), who waits over 100 ms or
in vain is *late*, the advisor looks every 5 seconds, a server has 100 connections, and every pool
begins with 5. Connections are opened when somebody waits (10 ms each, four at a time) and closed
after 5 minutes without use; a *static* pool alone on its server holds all of its connections.
How long an unused connection is kept is part of what `demand` advises: 10 seconds here, since
opening another one makes nobody late. The other rules say nothing about it. Whoever would give
all of them the same 10 seconds (`poolkeeper simulate --idle-seconds 10`) finds them nearer.
The parameters of `demand` were chosen on made-up loads; how blind it was to traces is
[told beside its losses](../advisor.md#what-it-costs-and-where-it-loses).
Each cell is the mean over the seeds ± its standard deviation; a single seed has no spread.

*Connections* are those open, averaged over time, and not the limits. *Regret* is
(J - J\\*) / J\\*, where J is connection-seconds plus the price of each late request (10, 100 or
1,000 connection-seconds), and J\\* is the same for the clairvoyant, which knows the true rate
until the next tick and takes the size with the least expected J. It does not know single
requests, so a regret may be below 0. *Over* is the share of tenants with more than 1 % late,
without the noisy one.

`on-demand` is no rule at all: every pool may open the whole budget. Alone on a server without a
knee it has nobody to harm, and is hard to beat there; see the overload and the noisy neighbour
for what it costs.
"""
_LIMITS = """## What this does not tell

The traces count HTTP requests and posts, not database sessions; how requests lie within a bin and
how long they hold a connection is assumed. Callers neither retry nor wait for each other. Where
the server has a knee, a lease keeps the pace of the moment it began. Connections do not age, and
closing takes no time.
"""

# From here on decimals say nothing.
_LARGE = 1000


def report(results: Results, traces: Sequence[str], notes: Sequence[str]) -> str:
    """The whole report."""
    parts = [_HEAD, "\n".join(f"* {note}" for note in notes), *_targets(results, traces)]
    for load in results:
        parts += ["", f"## {load}", "", *_table(results, load), "", *_losses(results, load)]
    parts += ["", *_summary(results, traces), "", _drawings(results), _LIMITS]
    return "\n".join(parts)


def _targets(results: Results, traces: Sequence[str]) -> Iterator[str]:
    yield "\n## What was to be reached\n"
    if not traces:
        yield "Without traces only what the made-up loads can tell.\n"
    yield "| target | reached | |"
    yield "|---|---|---|"
    for target, reached, is_met in figures.verdicts(results, traces):
        yield f"| {target} | {reached} | {'yes' if is_met else '**no**'} |"


def _table(results: Results, load: str) -> Iterator[str]:
    prices = " | ".join(f"regret at {price}" for price in PRICES)
    yield (
        "| rule | late | connections | timeouts | p99 wait, ms | goodput/s | connects/s "
        f"| flips/h | over | {prices} |"
    )
    yield "|---" * (9 + len(PRICES)) + "|"
    for label in _rules(results, load):
        outcomes = list(results[load][label].values())
        cells = [
            _spread((100 * o.late_share for o in outcomes), " %"),
            _spread(o.avg_connections for o in outcomes),
            _spread(o.timeouts for o in outcomes),
            _spread(o.p99_wait_ms for o in outcomes),
            _spread(o.goodput for o in outcomes),
            _spread(o.connects / o.seconds for o in outcomes),
            _spread(o.flips_per_hour for o in outcomes),
            _spread((100 * o.tenants_over_target for o in outcomes), " %"),
            *(_spread(figures.regrets(results, load, label, price)) for price in PRICES),
        ]
        yield f"| {label} | {' | '.join(cells)} |"


def _losses(results: Results, load: str) -> Iterator[str]:
    """Against whom `demand` loses here, and in what."""
    mine = results[load]["demand"]
    better = [
        label
        for label in _rules(results, load)
        if label not in ("demand", "clairvoyant") and _dominates(results[load][label], mine)
    ]
    names = ", ".join(better) or "none"
    yield f"Fewer late requests than `demand` with fewer connections: {names}."
    for price in PRICES:
        regrets = {
            label: figures.mean_regret(results, [load], label, price)
            for label in _rules(results, load)
            if label != "clairvoyant"
        }
        ahead = sorted(
            (label for label in regrets if regrets[label] < regrets["demand"]),
            key=regrets.__getitem__,
        )
        yield f"At {price} a late request, cheaper than `demand`: {', '.join(ahead) or 'none'}."


def _dominates(one: dict[int, SimulationResult], other: dict[int, SimulationResult]) -> bool:
    return all(
        sum(map(figure, one.values())) < sum(map(figure, other.values()))
        for figure in (figures.late, figures.connections)
    )


def _summary(results: Results, traces: Sequence[str]) -> Iterator[str]:
    yield "## Mean regret over all loads"
    groups = {"made-up loads": [load for load in results if load not in traces], "traces": traces}
    for name, loads in groups.items():
        if not loads:
            continue
        labels = [
            label
            for label in _rules(results, loads[0])
            if all(label in results[load] for load in loads)
        ]
        yield ""
        yield f"| {name} | " + " | ".join(f"at {price}" for price in PRICES) + " |"
        yield "|---" * (1 + len(PRICES)) + "|"
        for label in labels:
            cells = (f"{figures.mean_regret(results, loads, label, p):.2f}" for p in PRICES)
            yield f"| {label} | {' | '.join(cells)} |"


def _drawings(results: Results) -> str:
    names = ["pareto", *(f"{name}" for name in ("step", "overload") if name in results)]
    return "## Drawings\n\n" + "\n\n".join(f"![{name}]({name}.png)" for name in names) + "\n"


def _rules(results: Results, load: str) -> list[str]:
    return [label for label in results[load] if not label.startswith("price ")]


def _spread(values: Iterable[float], unit: str = "") -> str:
    known = list(values)
    mean, deviation = figures.spread(known)
    if len(known) == 1:
        return f"{mean:.0f}{unit}" if mean >= _LARGE else f"{mean:.3g}{unit}"
    if mean >= _LARGE:
        return f"{mean:.0f} ± {deviation:.0f}{unit}"
    return f"{mean:.3g} ± {deviation:.2g}{unit}"
