"""The measures of `make bench` by name, with their rounds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from benchmarks import contention, disruptions, measures, polling, query
from benchmarks.figure import Figures
from benchmarks.testbed import Testbed

# What is measured, and how many rounds count.
Measure = tuple[Callable[[Testbed, int], Awaitable[Figures]], int]

MEASURES: dict[str, Measure] = {
    "acquire": (measures.acquire, 5),
    "tenant_transaction": (measures.tenant_transaction, 5),
    "queue": (measures.queue, 3),
    "many_tenants": (measures.many_tenants, 5),
    "memory": (measures.memory, 5),
    "flood": (measures.flood, 3),
    "flood_across_pools": (measures.flood_across_pools, 3),
    "resize": (disruptions.resize, 5),
    "poll": (polling.poll, 5),
    "advisor_tick": (polling.advisor_tick, 5),
    "contended_own": (contention.own, 3),
    "contended_thinking": (contention.thinking, 3),
    "contended_weights": (contention.weights, 3),
    "contended_shared": (contention.shared, 3),
    "contended_storm": (contention.storm, 3),
    "query": (query.query, 3),
    "restart": (disruptions.restart, 3),
}
