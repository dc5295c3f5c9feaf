"""Nodes over HTTP: declared, shown, paused, drained, deleted; and the requests of agents."""

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog
from httpx import ASGITransport, AsyncClient, Response

from app.api.auth.key_scope import KeyScope
from app.control.pools.role_limits import RoleLimits
from app.domain.nodes import node as node_states
from app.domain.nodes.configuration import NodeConfiguration
from app.domain.nodes.documents import NodeSession, ReportAnswer, as_document, from_document
from app.domain.nodes.entry_totals import EntryTotals
from app.domain.nodes.report import EntryReport, NodeReport, ServerReport
from app.domain.nodes.report_changes import ReportChanges
from app.pools.servers.server import Server
from app.pools.tenant_state import TenantState
from tests.fixtures.app import Api, ApiWith, ok, pointers, problem
from tests.fixtures.keys import Keyring
from tests.fixtures.postgres import Database
from tests.fixtures.reporting import entry, node_report
from tests.fixtures.waiting import eventually

NODE = "/v1/nodes/edge"
ACME = "/v1/tenants/acme"


def report(session: int, sequence: int = 1, **changes: Any) -> dict[str, Any]:
    """The report of an agent with one busy tenant."""
    totals = EntryTotals(transactions=10 * sequence, transaction_seconds=1.0 * sequence)
    busy = entry("acme", waiting=1, longest_wait=0.25, totals=totals)
    servers = {"local": ServerReport(generation=0, committed=5, connected=3)}
    said = node_report(session, sequence, [busy], servers=servers, problem="its disk is full")
    document: dict[str, Any] = as_document(said)
    return document | changes


async def began(client: AsyncClient) -> int:
    return int(ok(await client.post(f"{NODE}/session"), 201)["session"])


async def test_a_node_is_declared_shown_changed_and_deleted(api: Api) -> None:
    problem(await api.client.get(NODE), 404, "node-not-found")
    body = {
        "address": "pools.example:6432",
        "labels": {"zone": "a"},
        "selector": {"plan": "gold"},
        "limits": {"local": 4},
    }
    created = await api.client.put(NODE, json=body)
    shown = ok(created, 201)
    assert {name: shown[name] for name in body} == body
    assert (shown["state"], shown["tenants"], shown["servers"]) == ("joining", 0, [])
    assert (shown["engine"], shown["silent_seconds"], shown["up_to_date"]) == (None, None, False)
    again = await api.client.put(NODE, json=body)
    assert ok(again)["generation"] == 1
    assert again.headers["etag"] == created.headers["etag"]
    tag = {"If-Match": created.headers["etag"]}
    changed = await api.client.put(NODE, json={"address": "[::1]:6432"}, headers=tag)
    assert (ok(changed)["selector"], changed.json()["generation"]) == ({}, 2)
    problem(await api.client.put(NODE, json={}, headers=tag), 412, "stale-version")
    assert ok(await api.client.get("/v1/nodes")) == {
        "items": [ok(await api.client.get(NODE))],
        "next_cursor": None,
    }
    for operation, paused, draining in [
        ("pause", True, False),
        ("drain", True, True),
        ("resume", False, False),
    ]:
        done = ok(await api.client.post(f"{NODE}/{operation}"))
        assert (done["paused"], done["draining"]) == (paused, draining)
    # What an operator decided about its work outlives another declaration.
    ok(await api.client.post(f"{NODE}/pause"))
    assert ok(await api.client.put(NODE, json={}))["paused"]
    assert ok(await api.client.delete(NODE))["name"] == "edge"
    problem(await api.client.get(NODE), 404, "node-not-found")
    events = ok(await api.client.get("/v1/events"))["items"]
    assert [event["action"] for event in reversed(events)] == [
        "node.created",
        "node.updated",
        "node.paused",
        "node.draining",
        "node.resumed",
        "node.paused",
        "node.updated",
        "node.deleted",
    ]


async def test_a_malformed_declaration_is_refused(api: Api) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"address": "pools.example"}, "/body/address"),
        ({"address": "pools.example:0"}, "/body/address"),
        ({"address": "a b:6432"}, "/body/address"),
        ({"address": "::1:6432"}, "/body/address"),
        ({"limits": {"local": -1}}, "/body/limits/local"),
        ({"labels": {"a": "\n"}}, "/body/labels/a"),
        ({"selector": {"a:b": "c"}}, "/body/selector/a:b/[key]"),
    ]
    for body, pointer in wrong:
        assert pointers(await api.client.put(NODE, json=body)) == [pointer]
    assert pointers(await api.client.put("/v1/nodes/self", json={})) == ["/path/node"]
    unknown = await api.client.put(NODE, json={"limits": {"nowhere": 1}})
    problem(unknown, 404, "server-not-found")


async def test_a_report_is_answered_with_allotments_and_shown(api: Api) -> None:
    await api.tenant("acme")
    ok(await api.client.put(NODE, json={}), 201)
    session = await began(api.client)
    # One tenant can open at once.
    assert ok(await api.client.get(NODE))["servers"][0]["allotment"] == 5
    problem(await api.client.delete(NODE), 409, "node-in-use")
    for sequence in (1, 2):
        answer = await api.client.post(f"{NODE}/reports", json=report(session, sequence))
        assert answer.headers["cache-control"] == "no-store"
    allotment = from_document(ReportAnswer, ok(answer)).allotments["local"]
    assert allotment.connections == 5
    shown = ok(await api.client.get(NODE))
    assert (shown["state"], shown["engine"], shown["problem"]) == (
        "ready",
        "PgBouncer 1.18",
        "its disk is full",
    )
    assert shown["agent"] is None  # an earlier version does not say it
    newer = report(session, 3) | {"agent": "0.2.0", "unknown": 1}
    ok(await api.client.post(f"{NODE}/reports", json=newer))
    other = ok(await api.client.get(NODE))
    assert other["agent"] == "0.2.0"
    *weaknesses, upgrade = other["warnings"]
    assert weaknesses == shown["warnings"]
    assert upgrade.startswith("Its agent is version 0.2.0, and the service is version 0.1.0: ")
    found = ok(await api.client.get("/v1/findings"))["items"]
    details = {each["check"]: each["detail"] for each in found}
    assert details.keys() == {"node_problem", "pooler_version", "agent_version"}
    assert details["node_problem"] == "its disk is full"
    assert details["agent_version"] == upgrade
    assert (shown["clients"], shown["waiting"], shown["tenants"]) == (7, 1, 1)
    assert any("CVE" in warning for warning in shown["warnings"])
    assert shown["vulnerable"]
    assert shown["servers"] == [
        {"server": "local", "allotment": 5, "committed": 5, "connections": 3, "held": 5}
    ]
    [on_node] = ok(await api.client.get(f"{ACME}/pool"))["nodes"]
    assert (on_node["node"], on_node["state"], on_node["active"]) == ("edge", "open", 2)
    assert (on_node["longest_wait_ms"], on_node["estimated"]) == (250.0, True)
    assert on_node["hold_ms"] == pytest.approx(100.0)
    assert (on_node["wait_ms"], on_node["wait_p99_ms"], on_node["late_share"]) == (0.0, 0.0, 0.0)
    budget = ok(await api.client.get("/v1/servers/local"))["budget"]
    assert budget["nodes_open"] == 3
    assert (budget["nodes"], api.service.manager.servers["local"].budget.limit) == (
        5,
        budget["limit"] - 5,
    )
    scraped = (await api.client.get("/metrics")).text
    assert 'poolkeeper_node_state{node="edge",state="ready"} 1.0' in scraped
    assert 'poolkeeper_node_connections{kind="open",node="edge",server="local"} 3.0' in scraped
    assert 'poolkeeper_node_clients{kind="waiting",node="edge"} 1.0' in scraped
    assert 'poolkeeper_node_clients{kind="queued",node="edge"} 0.0' in scraped
    assert 'poolkeeper_node_problem{node="edge"} 1.0' in scraped
    assert 'poolkeeper_node_tenants{node="edge",state="open"} 1.0' in scraped
    assert 'poolkeeper_node_longest_wait_seconds{node="edge"} 0.25' in scraped
    assert 'poolkeeper_node_outdated{node="edge"} 0.0' in scraped
    assert 'poolkeeper_node_vulnerabilities{node="edge"} 3.0' in scraped
    await api.service.snapshots.publish()
    stats = ok(await api.client.get("/v1/stats"))
    assert stats["nodes"] == {
        "by_state": {"ready": 1},
        "troubled": 1,
        "vulnerable": 1,
        "clients": 7,
        "waiting": 1,
    }
    assert [server["nodes"] for server in stats["servers"]] == [5]


async def test_who_waits_on_a_node_is_in_the_lists_of_pools_and_statistics(api: Api) -> None:
    """Its pool is not open in the service."""
    for name in ("acme", "beta"):
        await api.tenant(name)
    ok(await api.client.put("/v1/tenants/beta/pool", json={}), 201)
    ok(await api.client.put(NODE, json={}), 201)
    session = await began(api.client)
    ok(await api.client.post(f"{NODE}/reports", json=report(session)))
    await api.service.snapshots.publish()

    async def first(url: str) -> dict[str, Any]:
        listed: list[dict[str, Any]] = ok(await api.client.get(url))["items"]
        assert len(listed) == 2
        return listed[0]

    pool, stats = (
        await first("/v1/pools?sort=-waiting"),
        await first("/v1/stats?sort=-waiting_requests"),
    )
    assert (pool["pool_id"], pool["waiting"], pool["waiting_on_nodes"]) == ("acme", 0, 1)
    assert (stats["tenant"], stats["waiting_requests"], stats["waiting_on_nodes"]) == ("acme", 0, 1)
    tenants = ok(await api.client.get("/v1/tenants"))["items"]
    assert [tenant["waiting_on_nodes"] for tenant in tenants] == [1, 0]
    for one in (ACME, f"{ACME}/stats", f"{ACME}/pool"):
        assert ok(await api.client.get(one))["waiting_on_nodes"] == 1
    single = [ok(await api.client.get(f"{ACME}/{one}")) for one in ("stats", "pool")]
    [server] = ok(await api.client.get("/v1/stats"))["servers"]
    assert (server["nodes"], server["nodes_open"]) == (5, 3)
    for each in (pool, stats, *single):
        assert each["waits_for"]["cause"] == "share"
        assert each["waits_for"]["detail"].startswith("its share on node edge")
    assert ok(await api.client.get("/v1/servers/local"))["waiting_on_nodes"] == 1


async def test_what_a_silent_node_said_counts_as_of_now_no_more(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    await api.tenant("acme")
    ok(await api.client.put(NODE, json={}), 201)
    ok(await api.client.post(f"{NODE}/reports", json=report(await began(api.client))))
    monkeypatch.setattr(node_states, "STALE_AFTER", 0.0)
    await api.service.snapshots.publish()
    totals = ok(await api.client.get("/v1/stats"))["nodes"]
    assert (totals["by_state"], totals["clients"], totals["waiting"]) == ({"stale": 1}, 0, 0)
    # Its details show its last report, and how long ago that was.
    shown = ok(await api.client.get(NODE))
    assert (shown["state"], shown["clients"]) == ("stale", 7)
    assert shown["silent_seconds"] is not None


async def test_a_node_of_thousands_of_tenants_reports_what_has_changed(api: Api) -> None:
    ok(await api.client.put(NODE, json={}), 201)
    session, url = await began(api.client), f"{NODE}/reports"
    whole = from_document(NodeReport, report(session))
    entries = tuple(
        replace(whole.entries[0], name=f"{number:048}", clients=1) for number in range(4500)
    )
    changes = ReportChanges()

    async def send(sequence: int, entries: tuple[EntryReport, ...]) -> NodeReport:
        # The agent's configuration is not yet that of the service.
        sent = changes.shorten(replace(whole, sequence=sequence, version=0, entries=entries))
        answer = ok(await api.client.post(url, json=as_document(sent)))
        changes.accepted(sent, wants_all=answer["wants_all"])
        return sent

    sequence, is_more = 0, True
    while is_more:
        sequence += 1
        is_more = (await send(sequence, entries)).more
    assert ok(await api.client.get(NODE))["clients"] == 4500
    changed = (replace(entries[0], clients=5), *entries[1:])
    assert len((await send(sequence + 1, changed)).entries) == 1
    assert ok(await api.client.get(NODE))["clients"] == 4504
    # A service that missed the previous report accepts this one, and requests everything.
    lost = as_document(replace(whole, sequence=99, version=0, base=98, entries=entries[:1]))
    assert ok(await api.client.post(url, json=lost))["wants_all"]
    assert ok(await api.client.get(NODE))["clients"] == 4500


async def test_reports_that_are_late_of_another_agent_or_malformed_are_refused(api: Api) -> None:
    ok(await api.client.put(NODE, json={}), 201)
    first = await began(api.client)
    second = await began(api.client)
    url = f"{NODE}/reports"
    problem(await api.client.post(url, json=report(first)), 409, "node-session-ended")
    ok(await api.client.post(url, json=report(second)))
    problem(await api.client.post(url, json=report(second)), 409, "node-report-late")
    assert pointers(await api.client.post(url, json={})) == ["/body"]
    wrong = report(second, entries=[{"name": 1}])
    refused = await api.client.post(url, json=wrong)
    assert "/entries/0" in problem(refused, 422, "validation-failed")["errors"][0]["detail"]


async def test_what_an_agent_reports_harms_nobody_who_reads_it(api: Api) -> None:
    await api.tenant("acme")
    ok(await api.client.put(NODE, json={}), 201)
    session = await began(api.client)
    url = f"{NODE}/reports"
    for wrong in (
        {"sequence": 2**63},
        {"servers": {"local": {"generation": 0, "committed": 2**40, "connected": 0}}},
        {"entries": [report(session)["entries"][0] | {"size": 2**31}]},
        {"entries": [report(session)["entries"][0] | {"name": "a" * 5000}]},
        {"entries": [report(session)["entries"][0] | {"name": "acme\0"}]},
        {"entries": [report(session)["entries"][0] | {"clients": 2**31}]},
        {"entries": [report(session)["entries"][0] | {"waiting": 2**31}]},
        {"entries": [report(session)["entries"][0] | {"totals": {"oldest_waits": [1.0] * 69}}]},
        {"entries": [report(session)["entries"][0] | {"longest_wait": 10**400}]},
    ):
        refused = await api.client.post(url, json=report(session) | wrong)
        problem(refused, 422, "validation-failed")
    strange = {
        "engine": f"PgBouncer {'9' * 5000}.1",
        "agent": "9" * 5000,
        "problem": "x" * 100_000,
    }
    ok(await api.client.post(url, json=report(session) | strange))
    shown = ok(await api.client.get(NODE))
    assert shown["warnings"] == []
    assert max(len(shown[each]) for each in strange) < 2000


async def test_agents_learn_at_once_of_a_tenant_that_is_paused_or_resumed(api: Api) -> None:
    await api.tenant("acme")
    ok(await api.client.put(NODE, json={}), 201)
    url = f"{NODE}/configuration"
    for action, is_paused in (("pause", True), ("resume", False)):
        ok(await api.client.post(f"{ACME}/pool/{action}"))
        got = from_document(NodeConfiguration, ok(await api.client.get(url)))
        assert [entry.paused for entry in got.entries] == [is_paused]


async def test_a_large_report_is_read_in_a_thread_whatever_makes_it_large(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    ok(await api.client.put(NODE, json={}), 201)
    session, threads = await began(api.client), []

    def read(kind: type[NodeReport], document: object) -> NodeReport:
        threads.append(threading.current_thread())
        return from_document(kind, document)

    monkeypatch.setattr("app.api.routes.node_agents.from_document", read)
    pids = list(range(10_000))
    larges: list[dict[str, Any]] = [
        {"backends": {"local": pids}},
        {"backends": {f"s{pid}": [pid] for pid in pids[:2000]}},
        {"users": [f"acme.{pid}" for pid in pids]},
        {"servers": {f"s{pid}": report(session)["servers"]["local"] for pid in pids[:1000]}},
    ]
    for number, large in enumerate(larges, start=1):
        ok(await api.client.post(f"{NODE}/reports", json=report(session, number) | large))
    assert threading.main_thread() not in threads


async def test_an_agent_reports_no_more_than_it_may(api: Api) -> None:
    ok(await api.client.put(NODE, json={}), 201)
    session = await began(api.client)
    entries = [report(session)["entries"][0] | {"name": f"t{number}"} for number in range(501)]
    [server] = report(session)["servers"].values()
    for most, too_much in (
        ("500", {"entries": entries}),
        ("100000 connections", {"servers": {"local": server | {"committed": 100_001}}}),
    ):
        refused = await api.client.post(f"{NODE}/reports", json=report(session) | too_much)
        [found] = problem(refused, 422, "validation-failed")["errors"]
        assert most in found["detail"]
    backends = report(session) | {"backends": {"local": list(range(100_001))}}
    refused = await api.client.post(f"{NODE}/reports", json=backends)
    problem(refused, 413, "content-too-large")
    ok(await api.client.post(f"{NODE}/reports", json=report(session) | {"entries": entries[:500]}))


async def test_a_configuration_is_waited_for_and_stored_nowhere(api: Api) -> None:
    await api.tenant("acme")
    await api.client.post(f"{ACME}/credentials", json={"name": "web"})
    ok(await api.client.put(NODE, json={}), 201)
    url = f"{NODE}/configuration"
    with structlog.testing.capture_logs() as logged:
        got = await api.client.get(url, headers={"Accept-Encoding": "gzip"})
        configuration = from_document(NodeConfiguration, ok(got))
        [entry] = configuration.entries
        assert got.headers["cache-control"] == "no-store"
        assert "content-encoding" not in got.headers
        assert got.headers["etag"] == f'"{configuration.version}"'
        known = {"If-None-Match": got.headers["etag"]}
        for wait in ("", "?wait_seconds=0.01"):
            assert (await api.client.get(url + wait, headers=known)).status_code == 304
        waiting = asyncio.create_task(api.client.get(f"{url}?wait_seconds=25", headers=known))
        ok(await api.client.delete(f"{ACME}/credentials/web"))
        later = from_document(NodeConfiguration, ok(await waiting))
        assert (later.version > configuration.version, later.entries[0].logins) == (True, ())
        assert pointers(await api.client.get(f"{url}?wait_seconds=26")) == ["/query/wait_seconds"]
        others = [
            await api.client.get(other)
            for other in (NODE, ACME, f"{ACME}/pool", "/v1/events", "/v1/refusals", "/metrics")
        ]
    for secret in (entry.password, entry.logins[0].verifier):
        assert secret not in str(logged)
        assert not any(secret in other.text for other in others)


async def test_what_has_many_entries_is_read_and_written_in_a_thread(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    await api.tenant("acme")
    await api.client.post(f"{ACME}/credentials", json={"name": "web"})
    ok(await api.client.put(NODE, json={}), 201)
    session = await began(api.client)
    few = await api.client.get(f"{NODE}/configuration")
    for most in ("_FEW", "_SMALL"):
        monkeypatch.setattr(f"app.api.routes.node_agents.{most}", 0)
    many = await api.client.get(f"{NODE}/configuration")
    assert many.json() == few.json()
    assert {**many.headers, "x-request-id": ""} == {**few.headers, "x-request-id": ""}
    ok(await api.client.post(f"{NODE}/reports", json=report(session)))
    wrong = report(session, 2, entries=[{"name": "acme"}], servers={"x" * 1000: {}})
    refused = await api.client.post(f"{NODE}/reports", json=wrong)
    [found] = problem(refused, 422, "validation-failed")["errors"]
    assert len(found["detail"]) < 210


async def test_a_new_credential_names_the_ready_nodes_that_serve_its_tenant(api: Api) -> None:
    await api.tenant("acme", labels={"plan": "gold"})
    for name, body in {
        "b": {"address": "b.example:6432"},
        "a": {"address": "a.example:6432", "selector": {"plan": "gold"}},
        "hidden": {},
        "silver": {"address": "c.example:6432", "selector": {"plan": "silver"}},
        "drained": {"address": "d.example:6432"},
        "0-joining": {"address": "e.example:6432"},
    }.items():
        url = f"/v1/nodes/{name}"
        ok(await api.client.put(url, json=body), 201)
        if name != "0-joining":
            session = ok(await api.client.post(f"{url}/session"), 201)["session"]
            ok(await api.client.post(f"{url}/reports", json=report(session)))
    ok(await api.client.post("/v1/nodes/drained/drain"))
    issued = ok(await api.client.post(f"{ACME}/credentials", json={"name": "web"}), 201)
    login = f"postgresql://acme.web:{issued['password']}"
    expected = f"{login}@a.example:6432,b.example:6432/acme"
    assert issued["node_connection_string"] == expected
    # Most drivers take one host only.
    assert issued["node_connection_strings"] == [
        f"{login}@a.example:6432/acme",
        f"{login}@b.example:6432/acme",
    ]


async def test_the_limit_of_a_role_is_twice_its_size_where_a_node_serves_it(
    api: Api, database: Database
) -> None:
    await api.tenant("acme")
    connection = await database.connect()
    sql = "select rolconnlimit from pg_roles where rolname = 'tenant_acme'"

    async def has(limit: int) -> None:
        async def is_set() -> bool:
            return bool(await connection.fetchval(sql) == limit)

        await eventually(is_set)

    try:
        await has(5 + 2)
        ok(await api.client.put(NODE, json={}), 201)
        await has(2 * 5 + 2)
        ok(await api.client.put("/v1/nodes/other", json={}), 201)
        await api.tenant("late")
        found = ok(await api.client.get("/v1/findings"))["items"]
        assert "connection_limit" not in {each["check"] for each in found}
        ok(await api.client.delete("/v1/nodes/other"))
        ok(await api.client.put(NODE, json={"selector": {"plan": "gold"}}))
        await has(5 + 2)
    finally:
        await connection.close()


async def test_limits_of_roles_are_not_waited_for_where_a_server_is_away(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    await api.tenant("acme")
    applied: list[TenantState] = []

    async def apply(_: RoleLimits, state: TenantState) -> None:
        applied.append(state)

    monkeypatch.setattr(RoleLimits, "apply", apply)
    with monkeypatch.context() as patch:
        patch.setattr(Server, "is_available", property(lambda _: False))
        ok(await api.client.put("/v1/nodes/away", json={}), 201)
        await api.service.node_declarations.close(60.0)
    assert applied == []
    ok(await api.client.put("/v1/nodes/back", json={}), 201)
    await api.service.node_declarations.close(60.0)
    assert len(applied) == 1


@pytest.fixture
async def keys(tmp_path: Path) -> Keyring:
    ring = Keyring(tmp_path / "keys.json")
    ring.make("ops")
    ring.make("bound", "admin", tenants=("acme",))
    for name in ("edge", "other"):
        ring.make(f"agent-{name}", KeyScope.NODE, node=name)
    return ring


@pytest.fixture
async def guarded(keys: Keyring, api_with: ApiWith) -> AsyncIterator[Api]:
    """An application with keys, and a node."""
    async with api_with(keys_file=keys.path) as api:
        ok(await api.client.put(NODE, json={}, headers=keys.headers("ops")), 201)
        yield api


async def test_a_key_of_a_node_is_for_its_agent_alone(guarded: Api, keys: Keyring) -> None:
    async def ask(key: str, method: str, url: str, **more: Any) -> Response:
        return await guarded.client.request(method, url, headers=keys.headers(key), **more)

    for node in ("edge", "self"):
        begun = await ask("agent-edge", "POST", f"/v1/nodes/{node}/session")
        assert from_document(NodeSession, ok(begun, 201)).node == "edge"
        ok(await ask("agent-edge", "GET", f"/v1/nodes/{node}/configuration"))
    for method, path in [
        ("POST", "session"),
        ("GET", "configuration"),
        ("POST", "reports"),
    ]:
        body: dict[str, Any] = {"json": {}} if path == "reports" else {}
        problem(await ask("agent-other", method, f"{NODE}/{path}", **body), 403, "bound-to-node")
        problem(await ask("ops", method, f"{NODE}/{path}", **body), 403, "missing-scope")
    problem(await ask("agent-other", "GET", "/v1/nodes/self/configuration"), 404, "node-not-found")
    for url in (NODE, "/v1/nodes", "/v1/tenants", "/v1/keys"):
        problem(await ask("agent-edge", "GET", url), 403, "missing-scope")
    problem(await ask("bound", "GET", NODE), 403, "bound-to-tenants")
    shown = {key["name"]: key["node"] for key in ok(await ask("ops", "GET", "/v1/keys"))["items"]}
    assert shown == {"agent-edge": "edge", "agent-other": "other", "bound": None, "ops": None}


async def test_passwords_leave_this_machine_over_tls_only(guarded: Api, keys: Keyring) -> None:
    for scheme, host, status in [
        ("http", "10.0.0.9", 403),
        ("https", "10.0.0.9", 200),
        ("http", "::1", 200),
    ]:
        transport = ASGITransport(guarded.app, client=(host, 4711))
        async with AsyncClient(transport=transport, base_url=f"{scheme}://localhost") as client:
            got = await client.get(f"{NODE}/configuration", headers=keys.headers("agent-edge"))
            assert got.status_code == status
            if status == 403:
                problem(got, 403, "tls-required")
