"""Every rule on every load with every seed, in as many processes as there are cores."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
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
OTHER_STATIC_SIZES = {
    ScenarioName.OVERLOAD_8.value: (5, 8, 10, 20, 50),
    ScenarioName.TIGHT_BUDGET.value: (5, 28),
    ScenarioName.SHORT_HOLDS.value: (2, 3, 5, 10, 20),
    ScenarioName.HIGH_RATE.value: (50, 60, 70, 80, 100),
    ScenarioName.NOISY_NEIGHBOUR.value: (5, 100),
}
# What `demand` may advise is no merit of its own: so a rule without any advice has it too.
IDLE_SECONDS = 10.0
RULES = (
    RuleName.DEMAND,
    RuleName.HYSTERESIS,
    RuleName.HPA,
    RuleName.INCREMENT,
    RuleName.ON_DEMAND,
    RuleName.CLAIRVOYANT,
)
OVERLOADS = (ScenarioName.OVERLOAD_8, ScenarioName.OVERLOAD_20, ScenarioName.OVERLOAD)
DRAWN = (ScenarioName.STEP.value, *(each.value for each in OVERLOADS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A load by its name; a trace also says where its file is."""

    name: str
    trace: Path | None = None

    def made(self, seed: int, arrivals: Arrivals) -> tuple[Load, SimulationConfig]:
        """The load and everything else."""
        config = SimulationConfig(holds=HOLDS, seed=seed, budget=BUDGET, arrivals=arrivals)
        if self.trace is None:
            made_up = scenario(ScenarioName(self.name), HOLDS.mean)
            return made_up.load, made_up.adapted(config)
        counts = parse_counts(self.trace.read_text(encoding="utf-8-sig").splitlines())
        rates = scaled(counts, p99_rate=P99_RATE, clip_rate=CLIP_RATE, bin_seconds=BIN_SECONDS)
        return single(rates, BIN_SECONDS), config


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One simulation."""

    case: Case
    rule: RuleName
    seed: int
    arrivals: Arrivals
    size: int | None = None
    price: int | None = None
    idle_seconds: float | None = None

    @property
    def label(self) -> str:
        """How tables call the rule."""
        if self.price is not None:
            return f"price {self.price}"
        if self.idle_seconds is not None:
            return f"{self.rule.value}, idle {self.idle_seconds:g} s"
        return self.rule.value if self.size is None else f"static {self.size}"

    def run(self) -> SimulationResult:
        """Simulate it."""
        load, world = self.case.made(self.seed, self.arrivals)
        if self.idle_seconds is not None:
            world = replace(world, pool=replace(world.pool, idle_timeout=self.idle_seconds))
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
        for seed in seeds:
            for rule in RULES:
                yield Job(case=case, rule=rule, seed=seed, arrivals=arrivals)
            yield Job(
                case=case,
                rule=RuleName.ON_DEMAND,
                seed=seed,
                arrivals=arrivals,
                idle_seconds=IDLE_SECONDS,
            )
            for size in OTHER_STATIC_SIZES.get(case.name, STATIC_SIZES):
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
