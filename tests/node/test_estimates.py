"""Estimated waits, compared with those of clients of a real pooler."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from time import monotonic, time

from app.domain.nodes.entry_totals import EntryTotals
from app.domain.nodes.estimated_load import EstimatedLoad
from app.domain.nodes.wait_estimate import WaitEstimate
from app.node.agent import Agent
from tests.fixtures.waiting import eventually
from tests.node.site import Site, working

SIZE, CLIENTS, HOLD = 2, 8, 0.02
PATIENCE = 0.06
FACTOR = 1.5
# Fewer waits say nothing.
LEAST = 500
# The server has this machine's clock, and begins a transaction once it has a connection.
STATEMENT = "SELECT extract(epoch FROM now())::float8, pg_sleep(%s)"


async def test_late_share_and_p99_are_estimated_within_a_factor_of_one_and_a_half(
    site: Site,
) -> None:
    await site.make_roles("acme")
    node = site.configuration(site.entry("acme", size=SIZE))
    async with site.run(node) as agent, clients(site) as waits:
        await eventually(lambda: waits)
        waits.clear()
        since, before = monotonic(), await totals(agent)

        async def agrees() -> bool:
            load = EstimatedLoad.during(monotonic() - since, (await totals(agent)).since(before))
            return load is not None and is_close(WaitEstimate(load, SIZE), sorted(waits))

        # Chance, and the machine's other work, disturb it less and less.
        await eventually(agrees, every=1.0)


def is_close(estimate: WaitEstimate, waits: list[float]) -> bool:
    if len(waits) < LEAST:
        return False
    late = sum(wait > PATIENCE for wait in waits) / len(waits)
    pairs = (
        (estimate.late_share(PATIENCE), late),
        (estimate.quantile(0.99), waits[int(0.99 * len(waits))]),
    )
    return all(seen / FACTOR < estimated < seen * FACTOR for estimated, seen in pairs)


async def totals(agent: Agent) -> EntryTotals:
    [entry] = (await agent.report(1, 1)).entries
    return entry.totals


@asynccontextmanager
async def clients(site: Site) -> AsyncIterator[list[float]]:
    """More clients than connections, for a block; the seconds that each transaction waited."""
    waits: list[float] = []
    random = Random(7)  # noqa: S311 - a load, no secret

    async def work() -> None:
        async with site.client("acme") as connection:
            while True:
                began = time()
                hold = random.expovariate(1.0 / HOLD)
                [(served, _)] = await (await connection.execute(STATEMENT, (hold,))).fetchall()
                waits.append(max(0.0, served - began))
                await asyncio.sleep(random.expovariate(1.0 / HOLD))

    async with working(work() for _ in range(CLIENTS)):
        yield waits
