"""The configurations of nodes: only their own tenants, and a new version with each change."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from app.control.nodes.feed import NodeFeed
from app.control.nodes.fleet import Fleet
from app.control.nodes.tracked_node import TrackedNode
from app.domain.desired_pool import DesiredPool, Pause
from app.domain.nodes.allotment import NO_ALLOTMENT
from app.domain.nodes.configuration import NodeConfiguration, NodeServer
from app.domain.nodes.declaration import DeclaredNode, NodeSpec
from app.domain.nodes.gate import EntryState
from app.domain.nodes.report import NodeReport
from app.domain.pool import PoolSize
from app.domain.tenant import PoolStrategy, TenantSpec
from tests.fixtures.control import PERSON, Control
from tests.fixtures.pools import ROLE_PASSWORDS, tenant
from tests.fixtures.reporting import entry, node_report
from tests.fixtures.waiting import eventually

ADDRESSES = {
    name: NodeServer(
        host=f"{name}.example", port=5432, tls_mode="verify-full", allotment=NO_ALLOTMENT
    )
    for name in ("local", "unused")
}
GOLD = {"plan": "gold"}
NOW = datetime(2026, 7, 14, tzinfo=UTC)


@dataclass
class Fed:
    """A feed for the tenants that a test declares."""

    control: Control
    fleet: Fleet
    feed: NodeFeed

    def node(self, name: str = "edge", **spec: Any) -> TrackedNode:
        return self.fleet.put(
            DeclaredNode(
                spec=NodeSpec(name=name, **spec),
                paused=False,
                draining=False,
                generation=1,
                created_at=NOW,
                updated_at=NOW,
            )
        )

    async def latest(self, node: TrackedNode) -> NodeConfiguration:
        await self.feed.refresh()
        found = self.feed.latest(node)
        assert found is not None
        return found


@pytest.fixture
async def fed(control: Control) -> Fed:
    fleet = Fleet(
        control.catalog, control.manager, control.credentials, control.node_loads, epoch=3
    )
    feed = NodeFeed(fleet, control.manager, control.credentials, ADDRESSES, epoch=3)
    for new in (
        tenant("acme", PoolStrategy.PER_TENANT, weight=7, labels=GOLD),
        tenant("beta", PoolStrategy.PER_DATABASE),
        tenant("common", PoolStrategy.SHARED, labels=GOLD),
        replace(tenant("fresh", PoolStrategy.PER_TENANT, labels=GOLD), provisioned_at=None),
    ):
        control.manager.put_tenant(new)
    return Fed(control, fleet, feed)


async def test_a_node_gets_its_tenants_their_logins_and_the_servers_behind_them(fed: Fed) -> None:
    await fed.control.credentials.create(fed.control.state("acme"), "web", PERSON)
    node = fed.node("gold", selector=GOLD)
    node.begin_session(1)
    gold = await fed.latest(node)
    [entry] = gold.entries
    # One of its five connections is for the pool here.
    assert (entry.name, entry.role, entry.size, entry.weight) == ("acme", "tenant_acme", 4, 7)
    assert entry.password == ROLE_PASSWORDS.password("local", "tenant_acme")
    [login] = entry.logins
    assert login.user == "acme.web"
    assert login.verifier.startswith("SCRAM-SHA-256$4096:")
    assert set(gold.servers) == {"local"}
    assert gold.servers["local"].tls_mode == "verify-full"
    every = await fed.latest(fed.node("every"))
    assert [each.name for each in every.entries] == ["acme", "beta"]
    assert every.entries[1].database == "tenant_beta"
    none = await fed.latest(fed.node("none", selector={"plan": "none"}))
    assert (none.entries, none.servers) == ((), {})
    for secret in (entry.password, login.verifier):
        assert secret not in repr(gold)


async def test_a_node_learns_what_its_servers_say_about_themselves(
    fed: Fed, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, server = fed.node(), fed.control.manager.servers["local"]
    before = await fed.latest(node)
    assert server.limits is not None
    is_reported = int(server.limits.version.partition(".")[0]) >= 18
    assert before.servers["local"].reports_search_path is is_reported
    other = replace(server.limits, reports_search_path=not is_reported)
    monkeypatch.setattr(server, "limits", other)
    after = await fed.latest(node)
    assert after.version > before.version
    assert after.servers["local"].reports_search_path is not is_reported
    monkeypatch.setattr(server, "limits", None)
    assert (await fed.latest(node)).servers["local"].reports_search_path is None


async def test_what_was_interrupted_is_offered_the_next_time(
    fed: Fed, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = [fed.node(name) for name in ("first", "second", "third")]
    before = [await fed.latest(node) for node in nodes]
    await fed.control.credentials.create(fed.control.state("acme"), "web", PERSON)
    offer, offered = TrackedNode.offer, []

    def offer_or_break(node: TrackedNode, configuration: NodeConfiguration) -> None:
        offered.append(node.name)
        if len(offered) > 1:
            raise asyncio.CancelledError
        offer(node, configuration)

    with monkeypatch.context() as patch:
        patch.setattr(TrackedNode, "offer", offer_or_break)
        with pytest.raises(asyncio.CancelledError):
            await fed.feed.refresh()
    after = [await fed.latest(node) for node in nodes]
    assert all(each.entries[0].logins for each in after)
    assert all(new.version > old.version for new, old in zip(after, before, strict=True))
    # And nothing is made again while nothing changes.
    with monkeypatch.context() as patch:
        patch.setattr(NodeFeed, "_offer", offer_or_break)
        await fed.feed.refresh()
    late = fed.node("late")
    assert (await fed.latest(late)).entries[0].logins
    assert [await fed.latest(node) for node in nodes] == after


async def test_each_change_has_a_later_version_and_nothing_else_has(fed: Fed) -> None:
    manager, credentials = fed.control.manager, fed.control.credentials
    node = fed.node()
    versions = [(await fed.latest(node)).version]
    assert versions[0] > 3 << 24

    async def changed() -> NodeConfiguration:
        found = await fed.latest(node)
        assert found.version > versions[-1]
        versions.append(found.version)
        assert (await fed.latest(node)).version == found.version
        return found

    await credentials.create(fed.control.state("acme"), "web", PERSON)
    await changed()
    used = credentials.find("acme.web")
    assert used is not None
    credentials.used(used)
    assert (await fed.latest(node)).version == versions[-1]
    await credentials.revoke(credentials.of(used.tenant)[0], PERSON)
    assert (await changed()).entries[0].logins == ()
    ROLE_PASSWORDS.set_password_version("local", "tenant_acme", 2)
    assert (await changed()).entries[0].password == ROLE_PASSWORDS.password(
        "local", "tenant_acme", 2
    )
    size = PoolSize(max_size=9)
    pause = Pause(since=NOW, by="ops")
    desired = DesiredPool(pool_id="acme", size=size, pause=pause, generation=1, updated_at=NOW)
    manager.desired.put(desired)
    entry = (await changed()).entries[0]
    assert (entry.size, entry.paused) == (9, True)
    node.declared = replace(node.declared, paused=True)
    assert all(entry.paused for entry in (await changed()).entries)
    await credentials.create(fed.control.state("beta"), "web", PERSON)
    assert (await changed()).entries[1].logins
    node.declared = replace(node.declared, draining=True)
    drained = (await changed()).entries
    # Connected clients stay: nothing is revoked.
    assert all(entry.draining for entry in drained)
    assert drained[1].logins
    manager.tenants.forget("acme")
    assert [entry.name for entry in (await changed()).entries] == ["beta"]


async def test_all_places_together_have_no_more_connections_than_the_tenant_may_have_leases(
    fed: Fed,
) -> None:
    await fed.control.credentials.create(fed.control.state("acme"), "web", PERSON)
    node = fed.node("gold", selector=GOLD)
    node.begin_session(1)

    async def most(max_leases: int | None) -> int:
        acme = tenant("acme", PoolStrategy.PER_TENANT, labels=GOLD, max_leases=max_leases)
        fed.control.manager.put_tenant(acme)
        [entry] = (await fed.latest(node)).entries
        return entry.size + (fed.fleet.sizes.here("acme") or 0)

    assert [await most(limit) for limit in (2, 4, 9, None)] == [2, 4, 5, 5]


async def test_no_node_logs_in_while_a_password_changes(fed: Fed) -> None:
    """A node that reports says that the entry is closed; a silent one is not waited for."""
    spec = fed.control.state("acme").tenant.spec
    node, silent = fed.node(), fed.node("silent")
    await fed.latest(silent)
    await fed.latest(node)
    node.begin_session(1)
    hear = partial(node.hear, most_sessions=2)
    hear(report_of("acme", EntryState.OPEN, sequence=1))
    changing = asyncio.create_task(_hold(fed.feed, spec))

    async def is_paused() -> bool:
        return node.entries["acme"].paused and not node.entries["beta"].paused

    await eventually(is_paused)
    hear(report_of("acme", EntryState.OPEN, sequence=2))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not changing.done()
    hear(report_of("acme", EntryState.CLOSING, sequence=3))
    assert await changing
    assert not (await fed.latest(node)).entries[0].paused


async def test_a_pause_waits_until_no_node_begins_a_transaction(fed: Fed) -> None:
    spec = fed.control.state("acme").tenant.spec
    node = fed.node()
    await fed.latest(node)
    await fed.feed.wait_paused(spec)  # nothing is known of the node: it has nothing open
    node.begin_session(1)
    hear = partial(node.hear, most_sessions=2)
    hear(report_of("acme", EntryState.OPEN, sequence=1))
    pausing = asyncio.create_task(fed.feed.wait_paused(spec))
    hear(report_of("acme", EntryState.OPEN, sequence=2))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not pausing.done()
    hear(report_of("acme", EntryState.CLOSING, sequence=3))
    await pausing


async def test_it_is_known_which_nodes_have_recycled_a_tenant(fed: Fed) -> None:
    spec = fed.control.state("acme").tenant.spec
    node = fed.node()
    fed.node("silent")
    before = await fed.latest(node)
    node.begin_session(1)
    hear = partial(node.hear, most_sessions=2)
    hear(node_report(1, 1, [], version=before.version))
    size = PoolSize(max_size=5)
    desired = DesiredPool(
        pool_id="acme", size=size, pause=None, recycles=1, generation=1, updated_at=NOW
    )
    fed.control.manager.desired.put(desired)
    recycling = asyncio.create_task(_recycle(fed.feed, spec))
    await eventually(lambda: node.entries["acme"].recycles == 1)
    hear(node_report(1, 2, [], version=before.version))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not recycling.done()
    hear(node_report(1, 3, [], version=node.version, can_recycle=True))
    assert await recycling == {"edge": True, "silent": False}
    # An earlier agent applies the configuration without the part that it does not know.
    hear(node_report(1, 4, [], version=node.version))
    assert await _recycle(fed.feed, spec) == {"edge": False, "silent": False}


async def _recycle(feed: NodeFeed, spec: TenantSpec) -> Mapping[str, bool]:
    return await feed.wait_recycled(spec)


async def _hold(feed: NodeFeed, spec: TenantSpec) -> bool:
    async with feed.without_logins(spec):
        return True


def report_of(name: str, state: EntryState, sequence: int) -> NodeReport:
    said = entry(name, state=state, connections=1, in_use=0, clients=0)
    return node_report(1, sequence, [said])


async def test_who_waits_is_answered_at_a_change_and_at_the_end(fed: Fed) -> None:
    node = fed.node()
    version = (await fed.latest(node)).version
    await fed.feed.wait(node, version - 1, 3600)
    await fed.feed.wait(node, version, 0.001)
    waiting = asyncio.create_task(fed.feed.wait(node, version, 3600))
    await asyncio.sleep(0)
    fed.control.manager.tenants.forget("acme")
    assert (await fed.latest(node)).version > version
    await waiting
    waiting = asyncio.create_task(fed.feed.wait(node, (await fed.latest(node)).version, 3600))
    await asyncio.sleep(0)
    fed.feed.close()
    await waiting
    await fed.feed.wait(node, (await fed.latest(node)).version, 3600)
