"""`python -m benchmarks`: ours and the peers side by side; a table, then one line of JSON."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from time import perf_counter
from typing import Any

import structlog

from app.domain.tenant import PoolStrategy
from benchmarks import disruptions, measures, polling
from benchmarks.figure import Figure
from benchmarks.testbed import testbed


async def main() -> dict[str, Any]:
    """Every measure, on one server."""
    figures: dict[str, Any] = {}
    async with testbed() as here:
        figures |= await measures.acquire(here)
        figures["tenant_tx_vs_asyncpg"] = await measures.tenant_transaction(here)
        figures |= await measures.queue(here)
        figures["lease_10k_vs_10"] = await measures.many_tenants(here)
        figures["bytes_per_known_tenant"] = await measures.memory(here)
        shared = await measures.flood(here, PoolStrategy.SHARED)
        figures["flood_p99_vs_calm"], figures["flood_growth_ms"] = shared
        _, across = await measures.flood(here, PoolStrategy.PER_TENANT)
        figures["flood_across_pools_growth_ms"] = across
        figures |= await disruptions.resize(here)
        figures |= await polling.longest_turn(here)
        figures |= await disruptions.restart(here)
    return figures


def table(figures: dict[str, Any]) -> None:
    """The figures for people."""
    for key, figure in figures.items():
        cells = figure if isinstance(figure, dict) else {"": figure}
        for concurrency, cell in cells.items():
            sys.stdout.write(f"{key:32}{concurrency:>5}  {cell}\n")


def as_json(figures: dict[str, Any]) -> dict[str, Any]:
    """The figures for programs."""
    return {
        key: figure.as_json() if isinstance(figure, Figure) else as_json(figure)
        for key, figure in figures.items()
    }


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    began = perf_counter()
    result = asyncio.run(main())
    sys.stdout.write(f"{'measure':32}{'tasks':>5}  median (least to most of {measures.ROUNDS})\n")
    table(result)
    sys.stdout.write(f"took {perf_counter() - began:.0f} s\n")
    sys.stdout.write(json.dumps(as_json(result)) + "\n")
