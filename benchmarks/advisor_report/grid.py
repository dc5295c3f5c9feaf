"""Every rule on every load with every seed, in as many processes as there are cores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from app.simulator.load import Load, single
from app.simulator.outcome import PRICES, SimulationResult
from app.simulator.rules import RuleName, simulate
from app.simulator.scenarios import ScenarioName, scenario
from app.simulator.simulation import SimulationConfig
from app.simulator.trace import parse_counts, scaled
from app.simulator.workload import Arrivals, HoldTimes

HOLDS = HoldTimes(mean=0.15, cv=1.5)
P99_RATE, CLIP_RATE, BIN_SECONDS, BUDGET = 60.0, 160.0, 60.0, 100
STATIC_SIZES = (10, 15, 20, 30, 50)
SIZES_FOR_MANY = (5, 100)
RULES = (
    RuleName.DEMAND,
    RuleName.HYSTERESIS,
    RuleName.HPA,
    RuleName.INCREMENT,
    RuleName.ON_DEMAND,
    RuleName.CLAIRVOYANT,
)
DRAWN = (ScenarioName.STEP.value, ScenarioName.OVERLOAD.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A load by its name; a trace also says where its file is."""

    name: str
    trace: Path | None = None

    def made(self, seed: int, arrivals: Arrivals) -> tuple[Load, SimulationConfig]:
        """The load and everything else."""
        if self.trace is None:
            made_up = scenario(ScenarioName(self.name), HOLDS.mean)
            load, knee = made_up.load, made_up.knee
        else:
            counts = parse_counts(self.trace.read_text(encoding="utf-8-sig").splitlines())
            rates = scaled(counts, p99_rate=P99_RATE, clip_rate=CLIP_RATE, bin_seconds=BIN_SECONDS)
            load, knee = single(rates, BIN_SECONDS), None
        return load, SimulationConfig(
            holds=HOLDS, seed=seed, knee=knee, budget=BUDGET, arrivals=arrivals
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One simulation."""

    case: Case
    rule: RuleName
    seed: int
    arrivals: Arrivals
    size: int | None = None
    price: int | None = None

    @property
    def label(self) -> str:
        """How tables call the rule."""
        if self.price is not None:
            return f"price {self.price}"
        return self.rule.value if self.size is None else f"static {self.size}"

    def run(self) -> SimulationResult:
        """Simulate it."""
        load, world = self.case.made(self.seed, self.arrivals)
        return simulate(
            self.rule,
            load,
            world,
            size=self.size,
            price=self.price,
            keep_history=self.seed == 1 and self.case.name in DRAWN,
        )


Results = dict[str, dict[str, dict[int, SimulationResult]]]
"""By load, label and seed."""


def jobs(cases: Iterable[Case], seeds: Sequence[int], arrivals: Arrivals) -> Iterator[Job]:
    """What there is to simulate: rules, static sizes, and the clairvoyant for each price."""
    for case in cases:
        many = case.name == ScenarioName.NOISY_NEIGHBOUR.value
        for seed in seeds:
            for rule in RULES:
                yield Job(case=case, rule=rule, seed=seed, arrivals=arrivals)
            for size in SIZES_FOR_MANY if many else STATIC_SIZES:
                yield Job(case=case, rule=RuleName.STATIC, seed=seed, arrivals=arrivals, size=size)
            for price in PRICES:
                yield Job(
                    case=case, rule=RuleName.CLAIRVOYANT, seed=seed, arrivals=arrivals, price=price
                )


def run(everything: Sequence[Job], processes: int) -> Iterator[tuple[Job, SimulationResult]]:
    """Each job with its outcome, as they come."""
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        running = {pool.submit(job.run): job for job in everything}
        for done in as_completed(running):
            yield running[done], done.result()
