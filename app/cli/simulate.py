"""`poolkeeper simulate`: a trace or a made-up load, one rule, and what came of it.

The door to the simulator for people: it reads the file, checks what was asked, prints.
"""

from __future__ import annotations

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
from rich.console import Console
from rich.table import Table

from app.domain.errors import InvalidInput
from app.domain.pool import MAX_POOL_SIZE
from app.runtime.printable import print_error
from app.simulator.knee import Knee
from app.simulator.load import Load, single, zipf
from app.simulator.outcome import PRICES, SimulationResult, regret
from app.simulator.rules import RuleName, check_size
from app.simulator.rules import simulate as run_rule
from app.simulator.scenarios import Scenario, ScenarioName, scenario
from app.simulator.simulation import SimulationConfig
from app.simulator.trace import parse_counts, scaled
from app.simulator.workload import Arrivals, HoldTimes

_BAD_INPUT = 2
# Nobody waits for the end of more than this; and what comes within a tick is held in memory.
_MOST_REQUESTS = 1e9
_MOST_REQUESTS_A_TICK = 1e6
_MOST_LOOKS = 1e8
# Below this many requests a process takes longer to start than it saves.
_WORTH_PROCESSES = 1e6


def simulate(
    *,
    trace: Annotated[
        Path | None, typer.Argument(help="CSV with the header `timestamp,value`: counts by bin.")
    ] = None,
    load: Annotated[
        ScenarioName | None, typer.Option(help="A made-up load instead of a trace.")
    ] = None,
    rule: Annotated[RuleName, typer.Option(help="Who decides about sizes.")] = RuleName.DEMAND,
    p99_rate: Annotated[
        float | None,
        typer.Option(help="Scale the trace: requests/s of its 99th-percentile bin."),
    ] = None,
    clip_rate: Annotated[
        float | None, typer.Option(help="No bin of the trace has more requests/s than this.")
    ] = None,
    bin_seconds: Annotated[float, typer.Option(help="How long each row of the trace lasts.")] = 60,
    arrivals: Annotated[
        Arrivals, typer.Option(help="How requests are spread over a bin.")
    ] = Arrivals.POISSON,
    tenants: Annotated[
        int, typer.Option(min=1, max=10_000, help="Divide the trace among so many, by Zipf.")
    ] = 1,
    hold_ms: Annotated[float, typer.Option(help="Mean duration of a lease.")] = 150,
    hold_cv: Annotated[
        float, typer.Option(min=0, max=10, help="Its coefficient of variation (lognormal).")
    ] = 1.5,
    knee: Annotated[
        float | None,
        typer.Option(help="Leases take longer together: connections with the best throughput."),
    ] = None,
    late_ms: Annotated[float, typer.Option(help="Who waits longer is late.")] = 100,
    acquire_timeout: Annotated[float, typer.Option(help="Seconds before a caller gives up.")] = 5,
    connect_ms: Annotated[
        float, typer.Option(min=0, max=60_000, help="What opening a connection takes.")
    ] = 10,
    tick: Annotated[float, typer.Option(help="Seconds between two looks of the advisor.")] = 5,
    budget: Annotated[
        int,
        typer.Option(min=1, max=MAX_POOL_SIZE, help="Most connections of all pools together."),
    ] = 100,
    start_size: Annotated[
        int, typer.Option(min=1, max=MAX_POOL_SIZE, help="max_size at the beginning.")
    ] = 5,
    idle_seconds: Annotated[
        float,
        typer.Option(help="Without use for so long a connection closes; advice may shorten it."),
    ] = 300,
    size: Annotated[int | None, typer.Option(help="The size of a static pool.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed, the same requests.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Simulate pools under a rule of the advisor, or under what it competes with."""
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
            Scenario(load=_divided(rates, bin_seconds, tenants))
            if load is None
            else scenario(load, holds.mean)
        )
        _check_bearable(case.load, tick)
        world = SimulationConfig(
            seed=seed,
            tick=tick,
            late=late_ms / 1000,
            holds=holds,
            arrivals=arrivals,
            knee=case.knee if knee is None else Knee(connections=knee),
            budget=budget,
            connect=connect_ms / 1000,
        )
        pool = replace(
            world.pool,
            start_size=start_size,
            acquire_timeout=acquire_timeout,
            idle_timeout=idle_seconds,
        )
        outcome = _outcome(rule, case.load, replace(world, pool=pool), size)
    except (InvalidInput, OSError, UnicodeDecodeError) as error:
        print_error(_sentence(error, trace))
        raise typer.Exit(_BAD_INPUT) from error
    _tell(outcome, as_json=as_json)


def _check_above_zero(**options: float | None) -> None:
    for name, value in options.items():
        if value is not None and not (isfinite(value) and value > 0):
            raise InvalidInput(f"--{name.replace('_', '-')} must be a number above 0.")


def _check_bearable(load: Load, tick: float) -> None:
    rates = load.total_rates
    if load.bin_seconds * sum(rates) > _MOST_REQUESTS or max(rates) * tick > _MOST_REQUESTS_A_TICK:
        raise InvalidInput("These are too many requests to simulate: lower the rate or the tick.")
    if load.seconds / tick * len(load.tenants) > _MOST_LOOKS:
        raise InvalidInput("These are too many ticks to simulate: make them longer.")


def _counts(trace: Path | None, load: ScenarioName | None) -> list[float]:
    """The counts of the trace; none if a made-up load was named in its place."""
    if (trace is None) == (load is None):
        raise InvalidInput("Name either a trace or a made-up load (--load).")
    if trace is None:
        return []
    with trace.open(encoding="utf-8-sig", newline="") as lines:
        return parse_counts(lines)


def _divided(rates: list[float], bin_seconds: float, tenants: int) -> Load:
    return single(rates, bin_seconds) if tenants == 1 else zipf(rates, bin_seconds, tenants)


def _outcome(
    rule: RuleName, load: Load, world: SimulationConfig, size: int | None
) -> SimulationResult:
    """The rule's outcome, with its regret at each price."""
    check_size(rule, size, world)
    first, *clairvoyants = _side_by_side(
        partial(run_rule, rule, load, world, size=size),
        *(partial(run_rule, RuleName.CLAIRVOYANT, load, world, price=price) for price in PRICES),
        is_long=load.bin_seconds * sum(load.total_rates) > _WORTH_PROCESSES,
    )
    regrets = {
        price: regret(first, clairvoyant, price)
        for price, clairvoyant in zip(PRICES, clairvoyants, strict=True)
    }
    return replace(first, regret=regrets)


def _side_by_side(*jobs: Callable[[], SimulationResult], is_long: bool) -> list[SimulationResult]:
    """What each job gives; long ones run in processes of their own."""
    if not is_long:
        return [job() for job in jobs]
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as processes:
        return [running.result() for running in [processes.submit(job) for job in jobs]]


def _sentence(error: Exception, trace: Path | None) -> str:
    match error:
        case InvalidInput():
            return error.detail
        case UnicodeDecodeError():
            return f"The trace {trace} is no text."
        case OSError():
            return f"The trace {trace} cannot be read: {error.strerror}."
        case _:
            raise error


def _tell(outcome: SimulationResult, *, as_json: bool) -> None:
    figures = outcome.as_json()
    if as_json:
        sys.stdout.write(json.dumps(figures) + "\n")
        return
    table = Table(title=f"{outcome.rule}, {outcome.seconds / 3600:.1f} hours", show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    for name, figure in figures.items():
        if name == "regret":
            for price, regret_at in outcome.regret.items():
                table.add_row(f"regret, {price} a late wait", _cell(regret_at))
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
