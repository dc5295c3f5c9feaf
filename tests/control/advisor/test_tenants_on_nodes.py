"""The advisor sizes tenants by their load on nodes and in this process together."""

from dataclasses import dataclass, replace
from functools import partial

import pytest

from app.domain.advisor import ReasonCode
from app.domain.advisor_settings import AdvisorRule
from app.domain.nodes.entry_totals import EntryTotals
from app.domain.recommendation import Recommendation
from app.domain.tenant import AdvisorMode
from tests.fixtures.clock import Clock
from tests.fixtures.control import PERSON, Control
from tests.fixtures.reporting import entry

# Transactions per second, and how long each has a connection: ten connections' work.
RATE, HOLD = 250, 0.04
# Seconds between two ticks of the advisor.
INTERVAL = 5


@dataclass
class Node:
    """An agent that reports every second, with its own clock."""

    control: Control
    clock: Clock
    transactions: int = 0
    held: float = 0.0
    waited: float = 0.0

    def report(self, *, rate: int = RATE, in_use: int = 5, waiting: int = 20) -> None:
        self.clock.now += 1.0
        self.transactions += rate
        self.held += rate * HOLD
        self.waited += waiting
        totals = EntryTotals(
            transactions=self.transactions,
            transaction_seconds=self.held + self.waited,
            wait_seconds=self.waited,
        )
        load = {"in_use": in_use, "waiting": waiting, "clients": in_use + waiting}
        busy = entry("acme", connections=5, totals=totals, **load)
        self.control.node_loads.hear("edge", [busy], frozenset())

    async def ticks(self, count: int, **load: int) -> int:
        """That many ticks of the advisor under this load; returns how often they recommended."""
        made = 0
        for _ in range(count):
            for _ in range(INTERVAL):
                self.report(**load)
            self.control.advisor_loop._due = 0.0
            made += await self.control.advisor_loop.tick()
        return made


@pytest.fixture
async def node(control: Control) -> Node:
    clock = Clock()
    control.node_loads._clock = clock
    await control.tenant("acme")
    await in_mode(control, AdvisorMode.RECOMMEND)
    return Node(control, clock)


async def in_mode(control: Control, mode: AdvisorMode) -> None:
    change = partial(replace, rule=AdvisorRule.DEMAND, mode=mode)
    await control.advisor_loop.put_settings(change, PERSON)


async def test_a_tenant_on_nodes_alone_is_recommended_a_size_that_says_so(
    control: Control, node: Node
) -> None:
    assert await node.ticks(3) == 1
    assert control.manager.find("acme") is None
    [stored] = await control.catalog.recommendations.page()
    check_estimated(stored, share=1.0)
    advice = stored.advice
    assert (advice.current_size, advice.reason_code) == (5, ReasonCode.DEMAND_ABOVE_SIZE)
    assert advice.new_size > 10
    # Ten connections' work: what callers offer, not how many wait.
    assert advice.evidence["offered_load"] == pytest.approx(10.0, rel=0.2)
    assert (stored.metrics.active_connections, stored.metrics.waiting_requests) == (5, 20)
    assert "acme" in control.advisor_loop.latest_advice


def check_estimated(found: Recommendation, *, share: float) -> None:
    assert found.advice.is_estimated
    assert found.advice.evidence["nodes_arrivals_share"] == pytest.approx(share, abs=0.05)
    assert found.advice.evidence["nodes_mean_active"] == pytest.approx(5.0, rel=0.3)
    assert "of the latest callers were on nodes, where waits are estimated" in found.advice.reason


async def test_in_apply_mode_the_size_is_set(control: Control, node: Node) -> None:
    await in_mode(control, AdvisorMode.APPLY)
    await node.ticks(3)
    assert control.manager.desired["acme"].size.max_size > 10
    assert control.advisor_loop.open_recommendations == {}
    assert (await control.actions(pool="acme"))[-1] == "recommendation.applied"


async def test_a_tenant_here_and_on_nodes_has_one_size_for_both(
    control: Control, node: Node
) -> None:
    async with control.manager.lease("acme"):
        for _ in range(2):
            await node.ticks(1)
            for _ in range(500):
                async with control.manager.lease("acme"):
                    pass
        await node.ticks(1)
        advised = control.advisor_loop.latest_advice["acme"].advice
    assert advised.is_estimated
    share = advised.evidence["nodes_arrivals_share"]
    assert share is not None
    assert 0.5 < share < 1.0
    assert control.manager.find("acme") is not None
    everywhere, on_nodes = (advised.evidence[name] for name in ("mean_active", "nodes_mean_active"))
    assert everywhere is not None
    assert on_nodes is not None
    # This includes the leases of this process: one, and another one most of the time.
    assert 0.9 < everywhere - on_nodes < 2.1


async def test_switched_off_for_it_nothing_is_advised(control: Control, node: Node) -> None:
    await in_mode(control, AdvisorMode.OFF)
    assert await node.ticks(3) == 0
    assert control.advisor_loop.latest_advice == {}


async def test_a_tenant_that_left_its_nodes_is_advised_on_no_more(
    control: Control, node: Node
) -> None:
    await node.ticks(2)
    control.node_loads.hear("edge", (), frozenset({"acme"}))
    control.advisor_loop._due = 0.0
    await control.advisor_loop.tick()
    assert control.advisor_loop.latest_advice == {}
