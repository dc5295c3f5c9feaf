"""The measures by name, with their rounds."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from benchmarks import contention, dashboards, disruptions, measures, polling
from benchmarks.figure import Figures
from benchmarks.history import history
from benchmarks.nodes.budget import budget
from benchmarks.nodes.changes import changes
from benchmarks.nodes.cold import cold
from benchmarks.nodes.estimates import estimates
from benchmarks.nodes.thousand import thousand
from benchmarks.nodes.throughput import throughput
from benchmarks.query import query
from benchmarks.serverless import serverless
from benchmarks.testbed import Testbed
from benchmarks.thousand_tenants import thousand_tenants


@dataclass(frozen=True, slots=True)
class Measure:
    """What is measured, how many rounds count, and whether only on request: it takes minutes."""

    run: Callable[[Testbed, int], Awaitable[Figures]]
    rounds: int
    on_request: bool = False


MEASURES: dict[str, Measure] = {
    "acquire": Measure(measures.acquire, 5),
    "tenant_transaction": Measure(measures.tenant_transaction, 5),
    "queue": Measure(measures.queue, 3),
    "many_tenants": Measure(measures.many_tenants, 5),
    "memory": Measure(measures.memory, 5),
    "flood": Measure(measures.flood, 3),
    "flood_across_pools": Measure(measures.flood_across_pools, 3),
    "resize": Measure(disruptions.resize, 5),
    "poll": Measure(polling.poll, 5),
    "advisor_tick": Measure(polling.advisor_tick, 5),
    "contended_own": Measure(contention.own, 3),
    "contended_thinking": Measure(contention.thinking, 3),
    "contended_weights": Measure(contention.weights, 3),
    "contended_shared": Measure(contention.shared, 3),
    "contended_storm": Measure(contention.storm, 3),
    "query": Measure(query, 3),
    "restart": Measure(disruptions.restart, 3),
    "dashboards": Measure(dashboards.dashboards, 7, on_request=True),
    "scrapes": Measure(dashboards.scrapes, 40, on_request=True),
    "slow_readers": Measure(dashboards.slow_readers, 20, on_request=True),
    "history": Measure(history, 60, on_request=True),
    "serverless": Measure(serverless, 9, on_request=True),
    "thousand_tenants": Measure(thousand_tenants, 1, on_request=True),
    "nodes_budget": Measure(budget, 1, on_request=True),
    "nodes_cold": Measure(cold, 1, on_request=True),
    "nodes_changes": Measure(changes, 5, on_request=True),
    "nodes_estimates": Measure(estimates, 2, on_request=True),
    "nodes_thousand": Measure(thousand, 5, on_request=True),
    "nodes_throughput": Measure(throughput, 7, on_request=True),
}
