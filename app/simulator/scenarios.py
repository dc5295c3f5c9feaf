"""Synthetic loads, each with one purpose. Rules may be tuned on these, never on traces."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from math import cos, exp, pi

from app.simulator.knee import Knee
from app.simulator.load import Load, single, zipf
from app.simulator.simulation import SimulationConfig

_MINUTE = 60.0
_HOUR = 60 * _MINUTE
_BIN = 5.0


class ScenarioName(StrEnum):
    """The synthetic loads."""

    STEADY = "steady"
    """60 requests/s for two hours."""

    STEP = "step"
    """10 requests/s, 100 for 20 minutes, 10 again."""

    RAMP = "ramp"
    """From 10 to 100 requests/s in 20 minutes, and back."""

    BURST = "burst"
    """10 requests/s, and 80 for 30 seconds every 5 minutes."""

    DIURNAL = "diurnal"
    """Between 5 and 60 requests/s as a wave of 4 hours."""

    FLASH_CROWD = "flash-crowd"
    """40 requests/s, rising to 150 within 30 seconds and falling over minutes."""

    JOBS = "jobs"
    """None, but 60 requests/s for a minute every 15 minutes."""

    OVERLOAD = "overload"
    """A quarter of the server's maximum throughput, then 1.25 times the maximum for 20 minutes."""

    OVERLOAD_8 = "overload-8"
    """The same on a server whose throughput peaks at 8 connections."""

    OVERLOAD_20 = "overload-20"
    """The same at 20."""

    TIGHT_BUDGET = "tight-budget"
    """20 tenants (Zipf), 14 erlang in sum, and 30 for a minute every 5 minutes. A budget of 28."""

    SLOW_CONNECTS = "slow-connects"
    """Between 5 and 60 requests/s as a wave of 20 minutes; opening takes 100 ms."""

    SHORT_HOLDS = "short-holds"
    """Between 20 and 200 requests/s as a wave of 20 minutes; leases take 20 ms."""

    HIGH_RATE = "high-rate"
    """40 requests/s, within 2 minutes 300, and 400 for 30 seconds every 5 minutes: up to 60 erlang.
    A budget of 300."""

    NOISY_NEIGHBOUR = "noisy-neighbour"
    """200 tenants, 30 erlang in sum; for 10 minutes one of them adds 60. A budget of 100."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A load and the other parameters of the case.

    Attributes:
        load: the load of all tenants.
        knee: where the server's throughput peaks; None: nowhere.
        hold: mean seconds of a lease; None: the simulation's default. The same for the next two.
        connect: seconds that opening a connection takes.
        budget: most connections of all pools together.
    """

    load: Load
    knee: Knee | None = None
    hold: float | None = None
    connect: float | None = None
    budget: int | None = None

    def adapted(self, config: SimulationConfig) -> SimulationConfig:
        """Return *config* with the parameters of the case."""
        return replace(
            config,
            knee=config.knee or self.knee,
            holds=config.holds if self.hold is None else replace(config.holds, mean=self.hold),
            connect=config.connect if self.connect is None else self.connect,
            budget=config.budget if self.budget is None else self.budget,
        )


def scenario(name: ScenarioName, hold: float) -> Scenario:
    """The scenario called *name*, with leases of *hold* seconds on average."""
    return _SCENARIOS[name](hold)


def _step(_hold: float) -> Scenario:
    quiet = _level(10, 10 * _MINUTE)
    return _alone([*quiet, *_level(100, 20 * _MINUTE), *quiet])


def _ramp(_hold: float) -> Scenario:
    bins = int(20 * _MINUTE / _BIN)
    up = [10 + 90 * place / bins for place in range(bins)]
    level = _level(10, 5 * _MINUTE)
    return _alone([*level, *up, *_level(100, 5 * _MINUTE), *reversed(up), *level])


def _burst(_hold: float) -> Scenario:
    once = [*_level(10, 4.5 * _MINUTE), *_level(80, 0.5 * _MINUTE)]
    return _alone(once * 12)


def _diurnal(_hold: float) -> Scenario:
    bins = int(4 * _HOUR / _BIN)
    return _alone([32.5 - 27.5 * cos(2 * pi * place / bins) for place in range(bins)])


def _flash_crowd(_hold: float) -> Scenario:
    rise = [10 + 140 * place / 6 for place in range(6)]
    fall = [10 + 140 * exp(-place * _BIN / (3 * _MINUTE)) for place in range(240)]
    return _alone([*_level(10, 10 * _MINUTE), *rise, *fall])


def _jobs(_hold: float) -> Scenario:
    once = [*_level(0, 14 * _MINUTE), *_level(60, _MINUTE)]
    return _alone(once * 8)


def _overload(hold: float, connections: int = 50) -> Scenario:
    knee = Knee(connections=connections)
    capacity = knee.connections / hold / knee.stretch(connections)
    quiet = _level(capacity / 4, 10 * _MINUTE)
    return replace(_alone([*quiet, *_level(1.25 * capacity, 20 * _MINUTE), *quiet]), knee=knee)


def _tight_budget(hold: float) -> Scenario:
    once = [*_level(14 / hold, 4 * _MINUTE), *_level(30 / hold, _MINUTE)]
    return Scenario(load=zipf(once * 6, _BIN, 20), budget=28)


def _high_rate(_hold: float) -> Scenario:
    bins = int(2 * _MINUTE / _BIN)
    rise = [40 + 260 * place / bins for place in range(bins)]
    once = [*_level(300, 4.5 * _MINUTE), *_level(400, 0.5 * _MINUTE)]
    return replace(_alone([*_level(40, 3 * _MINUTE), *rise, *once * 3]), budget=300)


def _noisy_neighbour(hold: float) -> Scenario:
    bins = int(10 * _MINUTE / _BIN)
    load = zipf([30 / hold] * 3 * bins, _BIN, 200)
    tenants = list(load.tenants)
    noisy = tenants[49]
    rates = [
        rate + (60 / hold if bins <= place < 2 * bins else 0.0)
        for place, rate in enumerate(noisy.rates)
    ]
    tenants[49] = replace(noisy, rates=rates, is_noisy=True)
    return Scenario(load=replace(load, tenants=tenants))


def _alone(rates: Iterable[float]) -> Scenario:
    return Scenario(load=single(list(rates), _BIN))


def _wave(least: float, most: float) -> Sequence[float]:
    """An hour of 20-minute waves."""
    middle, swing, bins = (least + most) / 2, (most - least) / 2, int(20 * _MINUTE / _BIN)
    return [middle - swing * cos(2 * pi * place / bins) for place in range(3 * bins)]


def _level(rate: float, seconds: float) -> Sequence[float]:
    return [rate] * int(seconds / _BIN)


_SCENARIOS: Mapping[ScenarioName, Callable[[float], Scenario]] = {
    ScenarioName.STEADY: lambda _: _alone(_level(60, 2 * _HOUR)),
    ScenarioName.STEP: _step,
    ScenarioName.RAMP: _ramp,
    ScenarioName.BURST: _burst,
    ScenarioName.DIURNAL: _diurnal,
    ScenarioName.FLASH_CROWD: _flash_crowd,
    ScenarioName.JOBS: _jobs,
    ScenarioName.OVERLOAD: _overload,
    ScenarioName.OVERLOAD_8: partial(_overload, connections=8),
    ScenarioName.OVERLOAD_20: partial(_overload, connections=20),
    ScenarioName.TIGHT_BUDGET: _tight_budget,
    ScenarioName.SLOW_CONNECTS: lambda _: replace(_alone(_wave(5, 60)), connect=0.1),
    ScenarioName.SHORT_HOLDS: lambda _: replace(_alone(_wave(20, 200)), hold=0.02),
    ScenarioName.HIGH_RATE: _high_rate,
    ScenarioName.NOISY_NEIGHBOUR: _noisy_neighbour,
}
