"""Declarations of nodes, and what they mean for the tenants that a node serves."""

from unittest.mock import AsyncMock

import pytest

from app.control.nodes.declaration import NodeDeclarations
from app.control.nodes.feed import NodeFeed
from app.control.nodes.fleet import Fleet
from app.control.pools.role_limits import RoleLimits
from app.domain.nodes.allotment import NO_ALLOTMENT
from app.domain.nodes.configuration import NodeServer
from app.domain.nodes.declaration import NodeSpec
from app.domain.tenant import PoolStrategy
from tests.fixtures.control import PERSON, Control
from tests.fixtures.pools import tenant
from tests.fixtures.turns import counted_turns

GOLD = {"plan": "gold"}


async def test_others_have_their_turn_while_it_looks_at_all_tenants(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = Fleet(
        control.catalog, control.manager, control.credentials, control.node_loads, epoch=1
    )
    addresses = {
        "local": NodeServer(host="127.0.0.1", port=5432, tls_mode="disable", allotment=NO_ALLOTMENT)
    }
    feed = NodeFeed(fleet, control.manager, control.credentials, addresses, epoch=1)
    limits = AsyncMock(spec=RoleLimits)
    declarations = NodeDeclarations(
        control.catalog, control.manager, fleet, feed, limits=limits, locks=control.locks
    )
    for number in range(350):
        labels = GOLD if number % 2 else {}
        control.manager.put_tenant(tenant(f"t{number}", PoolStrategy.PER_TENANT, labels=labels))
    async with counted_turns() as turns:
        monkeypatch.setattr(NodeSpec, "serves", turns.counted(NodeSpec.serves))
        await declarations.put(NodeSpec(name="edge", selector=GOLD), PERSON)
        await declarations.close(180.0)
    # The feed looks at them at the same time.
    assert turns.most <= 200
    looked_at = {call.args[0].tenant.spec.id for call in limits.apply.await_args_list}
    assert looked_at == {f"t{number}" for number in range(1, 350, 2)}
