"""Measure Poolkeeper and its peers side by side: prints a table, then one line of JSON."""

import argparse
import asyncio
import gc
import json
import logging
import sys
from collections.abc import Sequence
from time import perf_counter

import structlog
import uvloop

from benchmarks.figure import Figures, as_json
from benchmarks.suite import MEASURES
from benchmarks.testbed import testbed


async def measured(names: Sequence[str], most_rounds: int) -> Figures:
    """The figures of the measures of these names, all on one server."""
    figures: Figures = {}
    async with testbed() as here:
        for name in names:
            measure = MEASURES[name]
            gc.collect()  # what the measure before left
            began = perf_counter()
            found = await measure.run(here, min(measure.rounds, most_rounds))
            show(found)
            print(f"# {name} took {perf_counter() - began:.0f} s", flush=True)
            figures |= found
    return figures


def show(figures: Figures) -> None:
    """The figures for people."""
    for key, figure in figures.items():
        cells = figure if isinstance(figure, dict) else {"": figure}
        for column, cell in cells.items():
            print(f"{key:42}{column:>5}  {cell}")


def chosen(name: str) -> list[str]:
    """The measure of this name, or those that begin with it."""
    if name in MEASURES:
        return [name]
    return [each for each in MEASURES if each.startswith(f"{name}_")]


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names",
        metavar="NAME",
        nargs="*",
        help="a measure, or the first word of several (default: all but those on request)",
    )
    parser.add_argument("--list", action="store_true", help="list the measures and their rounds")
    parser.add_argument("--rounds", type=int, default=sys.maxsize, help="at most so many rounds")
    parser.add_argument("--uvloop", action="store_true", help="on uvloop, as the service")
    given = parser.parse_args()
    if given.list:
        for name, measure in MEASURES.items():
            about = (measure.run.__doc__ or "").splitlines()[0]
            only = " (on request)" if measure.on_request else ""
            print(f"{name:20}{measure.rounds:>2} rounds  {about}{only}")
        return
    if unknown := [name for name in given.names if not chosen(name)]:
        parser.error(f"no such measure: {', '.join(unknown)}; there are: {', '.join(MEASURES)}")
    if given.rounds < 1:
        parser.error("--rounds must be 1 or more")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    usual = [name for name, measure in MEASURES.items() if not measure.on_request]
    began = perf_counter()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if given.uvloop else None) as runner:
        names = [each for name in given.names for each in chosen(name)]
        figures = runner.run(measured(names or usual, given.rounds))
    print(f"took {perf_counter() - began:.0f} s")
    print(json.dumps(as_json(figures)))


if __name__ == "__main__":
    main()
