"""Samples of tenants on nodes can be stored, whatever agents report."""

from datetime import UTC, datetime

from app.catalog.catalog import Catalog
from app.control.monitoring.node_samples import NodeSamples
from app.control.monitoring.sampler import Sampler
from app.control.nodes.node_loads import NodeLoads
from app.domain.nodes.entry_totals import WAIT_CLASSES, EntryTotals
from app.domain.nodes.report import MOST_CLIENTS, MOST_CONNECTIONS
from tests.fixtures.clock import Clock
from tests.fixtures.reporting import entry


async def test_the_largest_numbers_that_a_node_may_report_can_be_stored(catalog: Catalog) -> None:
    clock = Clock()
    loads = NodeLoads(clock)
    most = EntryTotals(
        transactions=2**63 - 1,
        transaction_seconds=1e15,
        wait_seconds=1e15,
        oldest_waits=(1e15,) * WAIT_CLASSES,
    )
    least = EntryTotals(transactions=1, wait_seconds=5e-324, oldest_waits=(5e-324,))
    sampler, samples = Sampler(), NodeSamples(loads)
    for totals in (EntryTotals(), most, least, most):
        reported = [
            entry(
                f"t{number}",
                size=MOST_CONNECTIONS,
                connections=MOST_CONNECTIONS,
                in_use=MOST_CONNECTIONS,
                clients=MOST_CLIENTS,
                waiting=MOST_CLIENTS,
                longest_wait=1e15,
                totals=totals,
            )
            for number in range(3)
        ]
        # As if thousands of nodes did.
        for node in range(1000):
            loads.hear(str(node), reported, ())
        clock.now += 1.0
        at = datetime.now(UTC)
        for subject, stats, held in samples.measure():
            size = stats.metrics.total_connections
            await catalog.samples.add(list(sampler.sample(subject, at, size, stats, held)))
