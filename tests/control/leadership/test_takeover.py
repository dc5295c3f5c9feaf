"""What a new active instance ends on the servers: its predecessor's connections, and no others."""

import asyncio
from dataclasses import replace
from math import inf

import pytest

from app.control.audit_events import leadership_acquired
from app.control.leadership.takeover import start_servers
from app.control.leadership.trust import Trust
from app.domain.leadership import Instance, Takeover
from app.domain.tenant import PoolStrategy
from app.pools import driver
from app.pools.isolation import PerTenantIsolation
from app.pools.manager import TenantPoolManager
from tests.fixtures.clock import Clock
from tests.fixtures.pools import provisioned, tenant
from tests.fixtures.turns import counted_turns
from tests.fixtures.waiting import eventually


async def test_a_tenant_that_was_only_declared_may_have_the_role_of_another_installation(
    manager: TenantPoolManager,
) -> None:
    server, trust = manager.servers["local"], Trust(inf)
    trust.begin(after=0.0)
    connections = []
    for name in ("mine", "theirs"):
        state = await provisioned(manager, name)
        login = manager.isolations[state.tenant.spec.strategy].login(server, state.tenant.spec)
        connections.append(await driver.connect(login, timeout=60))
    mine, theirs = connections
    manager.put_tenant(replace(state.tenant, provisioned_at=None))
    await start_servers(manager, trust, "gone")
    await eventually(mine.is_closed)
    assert await theirs.fetchval("SELECT 1") == 1
    await theirs.close()


def test_its_event_names_a_predecessor_that_did_not_end_in_order() -> None:
    after_it = Takeover(epoch=2, predecessor="b", trust_left=0.0)
    for takeover, reason in {
        replace(after_it, predecessor=None): None,
        after_it: "Instance b stopped, and may have left connections on a server.",
        replace(after_it, is_failover=True): "Instance b failed.",
    }.items():
        assert leadership_acquired(Instance(id="a", version="1"), takeover).reason == reason


async def test_connections_of_nodes_go_on(manager: TenantPoolManager) -> None:
    server, trust = manager.servers["local"], Trust(inf)
    trust.begin(after=0.0)
    state = await provisioned(manager, "acme")
    login = manager.isolations[state.tenant.spec.strategy].login(server, state.tenant.spec)
    pool = await driver.connect(login, timeout=60)
    named = replace(login, settings={"application_name": "psql"})
    node = await driver.connect(named, timeout=60)
    await start_servers(manager, trust, "gone", has_nodes=True)
    await eventually(pool.is_closed)
    assert await node.fetchval("SELECT 1") == 1
    await node.close()


async def test_others_have_their_turn_while_it_looks_at_all_tenants(
    manager: TenantPoolManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    trust = Trust(inf)
    trust.begin(after=0.0)
    for number in range(350):
        manager.put_tenant(tenant(f"t{number}", PoolStrategy.PER_TENANT))
    async with counted_turns() as turns:
        role = turns.counted(PerTenantIsolation.role)
        monkeypatch.setattr(PerTenantIsolation, "role", role)
        await start_servers(manager, trust, "gone")
    assert turns.calls >= 350
    assert turns.most <= 100


async def test_no_server_is_used_before_the_predecessor_trusts_itself_no_longer(
    manager: TenantPoolManager,
) -> None:
    server, clock = manager.servers["local"], Clock()
    trust = Trust(inf, clock=clock)
    trust.begin(after=0.2)
    takeover = asyncio.create_task(start_servers(manager, trust, None))
    await eventually(lambda: server.last_error is not None)
    assert "active before" in str(server.last_error)
    await takeover
    assert server.last_error is None
    assert server.is_available
