"""`python -m benchmarks.advisor_report`: simulate, and write docs/advisor.

Options choose seeds, traces (a folder of CSV files with `timestamp,value`), how requests are
spread over a bin, and where the report goes.
"""

import argparse
import os
import sys
from pathlib import Path
from time import perf_counter

from app.simulator.scenarios import ScenarioName
from app.simulator.workload import Arrivals
from benchmarks.advisor_report.drawings import draw
from benchmarks.advisor_report.grid import Case, Results, jobs, run
from benchmarks.advisor_report.text import report


def main() -> None:
    """Write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--traces", default="", help="folder of CSV files; none are skipped aloud")
    parser.add_argument("--only-traces", action="store_true", help="leave out synthetic loads")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--trace-seeds", type=int, help="seeds for the traces, as many by default")
    parser.add_argument("--arrivals", type=Arrivals, default=Arrivals.POISSON)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--output", type=Path, default=Path("docs/advisor"))
    options = parser.parse_args()
    trace_seeds = options.trace_seeds or options.seeds
    files = sorted(Path(options.traces).glob("*.csv")) if options.traces else []
    made_up = [] if options.only_traces else [Case(name=name.value) for name in ScenarioName]
    recorded = [Case(name=file.stem, trace=file) for file in files]
    everything = [
        *jobs(recorded, range(1, trace_seeds + 1), options.arrivals),
        *jobs(made_up, range(1, options.seeds + 1), options.arrivals),
    ]
    notes = _notes(options, files, trace_seeds)
    sys.stdout.write("\n".join(notes) + "\n")
    results: Results = {case.name: {} for case in (*recorded, *made_up)}
    for job in everything:
        results[job.case.name].setdefault(job.label, {})
    began = perf_counter()
    for count, (job, outcome) in enumerate(run(everything, options.processes), start=1):
        results[job.case.name][job.label][job.seed] = outcome
        if count % 50 == 0 or count == len(everything):
            took = perf_counter() - began
            sys.stderr.write(f"{count} of {len(everything)} simulations, {took:.0f} s\n")
    options.output.mkdir(parents=True, exist_ok=True)
    text = report(results, [case.name for case in recorded], notes)
    (options.output / "report.md").write_text(text, encoding="utf-8")
    draw(results, options.output)
    sys.stdout.write(f"Written to {options.output}.\n")


def _notes(options: argparse.Namespace, files: list[Path], trace_seeds: int) -> list[str]:
    """What was done and what was left out."""
    spread = f"requests within a bin: {options.arrivals.value}"
    notes = [
        f"{'No synthetic loads' if options.only_traces else f'{options.seeds} seeds'}; {spread}."
    ]
    if files:
        names = ", ".join(file.stem for file in files)
        notes.append(
            f"Traces, {trace_seeds} seeds: {names}. Each row counts as one minute, "
            "regardless of its timestamp; the 99th-percentile row has 60 requests/s, the maximum "
            "is 160."
        )
    else:
        notes.append(
            "Skipped: all traces, because none were given (TRACES=dir names a directory of CSV "
            "files with `timestamp,value`). Targets on traces are omitted."
        )
    return notes


if __name__ == "__main__":
    main()
