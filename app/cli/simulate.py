"""`poolkeeper simulate`: run one sizing rule on a trace or a synthetic load.

Reads the trace, checks the options, and prints the simulator's result.
"""

import json
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from math import isfinite
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import typer

from app.cli.client.exit_status import ExitStatus, fail
from app.domain.advisor import DemandConfig
from app.domain.errors import InvalidInput
from app.domain.pool import MAX_POOL_SIZE
from app.simulator.knee import Knee
from app.simulator.load import Load, single, zipf
from app.simulator.outcome import PRICES, SimulationResult, regret
from app.simulator.rules import RuleName, check_size
from app.simulator.rules import simulate as run_rule
from app.simulator.scenarios import Scenario, ScenarioName, scenario
from app.simulator.simulation import SimulationConfig
from app.simulator.trace import parse_counts, scaled
from app.simulator.workload import Arrivals, HoldTimes

# More would take too long; the requests of a tick are held in memory.
_MAX_REQUESTS = 1e9
_MAX_REQUESTS_PER_TICK = 1e6
_MAX_TICKS = 1e8
# With fewer requests, starting a process takes longer than it saves.
_MIN_REQUESTS_FOR_PROCESSES = 1e6


def simulate(
    *,
    trace: Annotated[
        Path | None, typer.Argument(help="CSV with the header timestamp,value: one count per bin.")
    ] = None,
    load: Annotated[
        ScenarioName | None,
        typer.Option(
            metavar="LOAD", help=f"Synthetic load instead of a trace: {', '.join(ScenarioName)}."
        ),
    ] = None,
    rule: Annotated[
        RuleName, typer.Option(metavar="RULE", help=f"Sizing rule: {', '.join(RuleName)}.")
    ] = RuleName.DEMAND,
    p99_rate: Annotated[
        float | None,
        typer.Option(
            help="Scale the trace so that its 99th-percentile bin has this many requests/s."
        ),
    ] = None,
    clip_rate: Annotated[
        float | None, typer.Option(help="Cap every bin of the trace at this many requests/s.")
    ] = None,
    bin_seconds: Annotated[
        float, typer.Option(help="Duration of each row of the trace, in seconds.")
    ] = 60,
    arrivals: Annotated[
        Arrivals, typer.Option(help="How requests are distributed within a bin.")
    ] = Arrivals.POISSON,
    tenants: Annotated[
        int,
        typer.Option(min=1, max=10_000, help="Divide the trace among this many tenants (Zipf)."),
    ] = 1,
    hold_ms: Annotated[float, typer.Option(help="Mean hold time of a lease.")] = 150,
    hold_cv: Annotated[
        float,
        typer.Option(min=0, max=10, help="Coefficient of variation of the hold time (lognormal)."),
    ] = 1.5,
    knee: Annotated[
        float | None,
        typer.Option(
            help="Connections with the highest throughput; beyond them leases take longer."
        ),
    ] = None,
    late_ms: Annotated[
        float, typer.Option(help="A caller that waits longer is late; the rules know it.")
    ] = DemandConfig().patience_seconds * 1000,
    acquire_timeout: Annotated[
        float, typer.Option(help="Seconds until a waiting caller times out.")
    ] = 5,
    connect_ms: Annotated[
        float, typer.Option(min=0, max=60_000, help="Time to open a connection.")
    ] = 10,
    tick: Annotated[
        float, typer.Option(help="Seconds between two evaluations by the advisor.")
    ] = 5,
    budget: Annotated[
        int,
        typer.Option(min=1, max=MAX_POOL_SIZE, help="Maximum connections of all pools together."),
    ] = 100,
    start_size: Annotated[
        int, typer.Option(min=1, max=MAX_POOL_SIZE, help="Initial max_size.")
    ] = 5,
    idle_seconds: Annotated[
        float,
        typer.Option(help="Idle time after which a connection closes; a rule may shorten it."),
    ] = 300,
    size: Annotated[int | None, typer.Option(help="Size of a static pool.")] = None,
    seed: Annotated[
        int, typer.Option(help="Random seed; the same seed gives the same requests.")
    ] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Simulate pools with a sizing rule of the advisor, or one to compare it with."""
    try:
        _check_above_zero(
            bin_seconds=bin_seconds,
            p99_rate=p99_rate,
            clip_rate=clip_rate,
            hold_ms=hold_ms,
            late_ms=late_ms,
            acquire_timeout=acquire_timeout,
            tick=tick,
            idle_seconds=idle_seconds,
        )
        holds = HoldTimes(mean=hold_ms / 1000, cv=hold_cv)
        rates = scaled(
            _counts(trace, load), p99_rate=p99_rate, clip_rate=clip_rate, bin_seconds=bin_seconds
        )
        case = (
            Scenario(load=_split(rates, bin_seconds, tenants))
            if load is None
            else scenario(load, holds.mean)
        )
        _check_limits(case.load, tick)
        config = SimulationConfig(
            seed=seed,
            tick=tick,
            late=late_ms / 1000,
            holds=holds,
            arrivals=arrivals,
            knee=None if knee is None else Knee(connections=knee),
            budget=budget,
            connect=connect_ms / 1000,
        )
        config = case.adapted(config)
        pool = replace(
            config.pool,
            start_size=start_size,
            acquire_timeout=acquire_timeout,
            idle_timeout=idle_seconds,
        )
        result = _simulate(rule, case.load, replace(config, pool=pool), size)
    except InvalidInput as error:
        fail(error.detail, ExitStatus.USAGE)
    except UnicodeDecodeError:
        fail(f"The trace {trace} is not UTF-8 text.", ExitStatus.USAGE)
    except OSError as error:
        fail(f"The trace {trace} cannot be read: {error.strerror}.", ExitStatus.USAGE)
    _print_result(result, as_json=as_json)


def _check_above_zero(**options: float | None) -> None:
    for name, value in options.items():
        if value is not None and not (isfinite(value) and value > 0):
            raise InvalidInput(f"--{name.replace('_', '-')} must be a number above 0.")


def _check_limits(load: Load, tick: float) -> None:
    rates = load.total_rates
    if load.bin_seconds * sum(rates) > _MAX_REQUESTS or max(rates) * tick > _MAX_REQUESTS_PER_TICK:
        raise InvalidInput("The simulation has too many requests: lower the rate or the tick.")
    if load.seconds / tick * len(load.tenants) > _MAX_TICKS:
        raise InvalidInput("The simulation has too many ticks: increase --tick.")


def _counts(trace: Path | None, load: ScenarioName | None) -> list[float]:
    """The counts of the trace; empty for a synthetic load."""
    if (trace is None) == (load is None):
        raise InvalidInput("Give either a trace or a synthetic load (--load).")
    if trace is None:
        return []
    with trace.open(encoding="utf-8-sig", newline="") as lines:
        return parse_counts(lines)


def _split(rates: list[float], bin_seconds: float, tenants: int) -> Load:
    return single(rates, bin_seconds) if tenants == 1 else zipf(rates, bin_seconds, tenants)


def _simulate(
    rule: RuleName, load: Load, config: SimulationConfig, size: int | None
) -> SimulationResult:
    """The result of the rule, with its regret at each price."""
    check_size(rule, size, config)
    first, *clairvoyants = _run_jobs(
        partial(run_rule, rule, load, config, size=size),
        *(partial(run_rule, RuleName.CLAIRVOYANT, load, config, price=price) for price in PRICES),
        is_long=load.bin_seconds * sum(load.total_rates) > _MIN_REQUESTS_FOR_PROCESSES,
    )
    regrets = {
        price: regret(first, clairvoyant, price)
        for price, clairvoyant in zip(PRICES, clairvoyants, strict=True)
    }
    return replace(first, regret=regrets)


def _run_jobs(*jobs: Callable[[], SimulationResult], is_long: bool) -> list[SimulationResult]:
    """Run the jobs; long ones run in separate processes."""
    if not is_long:
        return [job() for job in jobs]
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as processes:
        return [running.result() for running in [processes.submit(job) for job in jobs]]


def _print_result(result: SimulationResult, *, as_json: bool) -> None:
    figures = result.as_json()
    if as_json:
        sys.stdout.write(json.dumps(figures) + "\n")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{result.rule}, {result.seconds / 3600:.1f} hours", show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    for name, figure in figures.items():
        if name == "regret":
            for price, regret_at in result.regret.items():
                table.add_row(f"regret, {price} per late wait", _cell(regret_at))
        elif name not in ("rule", "seconds"):
            table.add_row(name, _cell(figure))
    Console().print(table)


def _cell(figure: object) -> str:
    match figure:
        case None:
            return "-"
        case int():
            return f"{figure:,}"
        case float():
            return f"{figure:,.4g}"
        case _:
            return str(figure)
