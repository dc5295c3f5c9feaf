"""Out of many outcomes: means with their spread, regrets, and which targets are met."""

from collections.abc import Callable, Iterable, Sequence
from statistics import fmean, stdev

from app.simulator.outcome import PRICES, SimulationResult, regret
from app.simulator.scenarios import ScenarioName
from benchmarks.advisor_report.grid import IDLE_SECONDS, OVERLOADS, Results

REACTIVE = ("hysteresis", "hpa", "increment")
ON_DEMAND = f"on-demand, idle {IDLE_SECONDS:g} s"
_TICK = 5.0
_FLIPS, _TICKS_TO_SETTLE, _HARMED, _GOODPUT, _BACK_SECONDS = 1, 3, 0.06, 0.97, 120
# Of the overload, seconds and connections.
_OVERLOADED = (600, 1800)
_PAST_KNEE = 55

Verdict = tuple[str, str, bool]
"""What is to be reached, what was, and whether that is enough."""


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation."""
    return fmean(values), stdev(values) if len(values) > 1 else 0.0


def mean(
    results: Results, load: str, label: str, figure: Callable[[SimulationResult], float | None]
) -> float:
    """The mean of a figure over all seeds; what has none counts as infinite."""
    values = [figure(outcome) for outcome in results[load][label].values()]
    return fmean(float("inf") if value is None else value for value in values)


def regrets(results: Results, load: str, label: str, price: int) -> list[float]:
    """The regret of every seed."""
    least = results[load][f"price {price}"]
    found = [regret(outcome, least[seed], price) for seed, outcome in results[load][label].items()]
    return [each for each in found if each is not None]


def mean_regret(results: Results, loads: Iterable[str], label: str, price: int) -> float:
    """The mean regret over *loads*, each counting alike."""
    return fmean(fmean(regrets(results, load, label, price)) for load in loads)


def best_static(results: Results, loads: Sequence[str], price: int) -> str:
    """The one static size with the least mean regret over all *loads*."""
    sizes = {label for load in loads for label in results[load] if label.startswith("static ")}
    shared = [size for size in sizes if all(size in results[load] for load in loads)]
    return min(sorted(shared), key=lambda size: mean_regret(results, loads, size, price))


def late(outcome: SimulationResult) -> float:
    """Share of late requests."""
    return outcome.late_share


def connections(outcome: SimulationResult) -> float:
    """Average number of connections."""
    return outcome.avg_connections


def verdicts(results: Results, traces: Sequence[str]) -> list[Verdict]:
    """Every target that these loads can tell about."""
    found = [verdict for trace in traces for verdict in _on_trace(results, trace)]
    if traces:
        found += _regrets(results, traces)
    if ScenarioName.STEADY.value in results:
        found += _on_made_up(results)
    return found


def _on_trace(results: Results, load: str) -> list[Verdict]:
    lates = {label: mean(results, load, label, late) for label in ("demand", *REACTIVE)}
    sizes = {label: mean(results, load, label, connections) for label in ("demand", *REACTIVE)}
    demand, size = lates["demand"], sizes["demand"]
    against = [("hysteresis", 0.1, 3.0), ("hpa", 1.0, 1.25)]
    return [
        (
            f"{load}: late share at most {share:g} x {rule}'s, connections at most {most:g} x",
            (
                f"{demand:.3%} against {lates[rule]:.3%} ({demand / lates[rule]:.3f} x), "
                f"{size:.1f} against {sizes[rule]:.1f} connections ({size / sizes[rule]:.2f} x)"
            ),
            demand <= share * lates[rule] and size <= most * sizes[rule],
        )
        for rule, share, most in against
    ]


def _regrets(results: Results, traces: Sequence[str]) -> list[Verdict]:
    found = []
    for price in PRICES:
        others = (*REACTIVE, best_static(results, traces, price))
        mine = mean_regret(results, traces, "demand", price)
        theirs = {label: mean_regret(results, traces, label, price) for label in others}
        told = ", ".join(f"{label} {value:.2f}" for label, value in theirs.items())
        found.append(
            (
                f"mean regret over the traces at {price} per late wait below every other rule's",
                f"demand {mine:.2f}; {told}",
                mine < min(theirs.values()),
            )
        )
    return found


def _on_made_up(results: Results) -> list[Verdict]:
    flips = mean(results, ScenarioName.STEADY.value, "demand", lambda o: o.flips_per_hour)
    settling = mean(results, ScenarioName.STEP.value, "demand", lambda o: o.settling_s) / _TICK
    harmed = mean(
        results, ScenarioName.NOISY_NEIGHBOUR.value, "demand", lambda o: o.tenants_over_target
    )
    return [
        *(verdict for name in OVERLOADS for verdict in _overload(results, name.value)),
        *_new_cases(results),
        ("steady load: at most 1 change of direction an hour", f"{flips:.2f}", flips <= _FLIPS),
        (
            "step: within 10 % of the settled size in at most 3 ticks",
            f"{settling:.1f}",
            settling <= _TICKS_TO_SETTLE,
        ),
        (
            "noisy neighbour: at most 6 % of the others over 1 % late",
            f"{harmed:.1%}",
            harmed <= _HARMED,
        ),
    ]


def _new_cases(results: Results) -> list[Verdict]:
    """A tight budget, slow connects, short holds and a high rate."""
    labels = ("demand", "hpa", "increment", "clairvoyant", ON_DEMAND)

    def both(name: ScenarioName) -> tuple[dict[str, float], dict[str, float]]:
        lates = {label: mean(results, name.value, label, late) for label in labels}
        return lates, {label: mean(results, name.value, label, connections) for label in labels}

    found = []
    lates, _ = both(ScenarioName.TIGHT_BUDGET)
    told = ", ".join(f"{label} {lates[label]:.2%}" for label in labels)
    found.append(
        (
            "tight budget: late at most 1.25 x clairvoyant's, fewer than hpa's and increment's",
            told,
            lates["demand"] <= min(1.25 * lates["clairvoyant"], lates["hpa"], lates["increment"]),
        )
    )
    for name in (ScenarioName.SLOW_CONNECTS, ScenarioName.SHORT_HOLDS):
        lates, sizes = both(name)
        found.append(
            (
                f"{name.value}: connections at most 1.25 x hpa's, with fewer late",
                (
                    f"{sizes['demand']:.1f} against {sizes['hpa']:.1f} connections, "
                    f"{lates['demand']:.3%} against {lates['hpa']:.3%}"
                ),
                sizes["demand"] <= 1.25 * sizes["hpa"] and lates["demand"] <= lates["hpa"],
            )
        )
    lates, sizes = both(ScenarioName.HIGH_RATE)
    found.append(
        (
            f"high rate: late no more than {ON_DEMAND}, at no more connections",
            (
                f"{lates['demand']:.3%} against {lates[ON_DEMAND]:.3%}, "
                f"{sizes['demand']:.1f} against {sizes[ON_DEMAND]:.1f} connections"
            ),
            lates["demand"] <= lates[ON_DEMAND] and sizes["demand"] <= sizes[ON_DEMAND],
        )
    )
    return found


def _overload(results: Results, name: str) -> list[Verdict]:
    load = results[name]
    statics = {label: load[label] for label in load if label.startswith("static ")}
    goodput = {
        label: fmean(outcome.goodput for outcome in outcomes.values())
        for label, outcomes in statics.items()
    }
    best = max(goodput, key=goodput.__getitem__)
    share = fmean(outcome.goodput for outcome in load["demand"].values()) / goodput[best]
    drawn = load["demand"].get(1)
    pressed = served_under_load(drawn) / served_under_load(load[best][1]) if drawn else share
    found = [
        (
            f"{name}: goodput at least 0.97 x the best static size's ({best})",
            f"{share:.3f} over all; {pressed:.3f} in the overloaded 20 minutes (first seed)",
            min(share, pressed) >= _GOODPUT,
        )
    ]
    if name == ScenarioName.OVERLOAD.value:
        above = longest_above(drawn, _PAST_KNEE) if drawn else 0.0
        found.append(
            (
                "overload: a growth past the knee of 50 is back within 2 minutes",
                f"longest time above {_PAST_KNEE}: {above:.0f} s (first seed)",
                above <= _BACK_SECONDS,
            )
        )
    return found


def served_under_load(outcome: SimulationResult) -> int:
    """Leases that ended in the overloaded 20 minutes."""
    start, end = _OVERLOADED
    within = [moment.served for moment in outcome.history if start <= moment.at <= end]
    return within[-1] - within[0]


def longest_above(outcome: SimulationResult, size: int) -> float:
    """The longest time in seconds that max_size was above *size*."""
    longest = since = 0.0
    for moment in outcome.history:
        if moment.max_size <= size:
            since = moment.at
        longest = max(longest, moment.at - since)
    return longest
