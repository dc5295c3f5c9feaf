"""Findings over HTTP: each cause once, with its tenants."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from app.api.http.response_cache import ResponseCache
from app.api.views import readiness
from app.control.nodes.tracked_node import TrackedNode
from app.domain.errors import CatalogUnavailable
from app.domain.isolation_checks import AuditCheck, Finding, Severity
from app.domain.nodes.node import NodeState
from app.domain.nodes.report import NodeReport
from app.domain.tenant import TenantId
from app.pools.servers.server import Server
from tests.fixtures.app import Api, ApiWith, ok, pointers, problem
from tests.fixtures.keys import Keyring
from tests.fixtures.postgres import Database
from tests.fixtures.waiting import eventually

URL = "/v1/findings"
ROLE = Finding(check=AuditCheck.ROLE, severity=Severity.CRITICAL, detail="Role is gone.")
OTHERS = Finding(check=AuditCheck.OTHER_DATABASES, severity=Severity.WARNING, detail="Open.")


def audited(api: Api, tenant: str, *findings: Finding) -> None:
    """The audit's findings for *tenant*; its name ends each detail."""
    state = api.service.manager.tenants.state(tenant)
    assert state.isolation is not None
    named = tuple(replace(each, detail=f"{each.detail} {tenant}") for each in findings)
    state.isolation = replace(state.isolation, findings=named)
    api.service.snapshots.invalidate()


async def test_a_cause_is_one_finding_and_the_worst_come_first(api: Api) -> None:
    for name in ("acme", "beta", "gamma"):
        await api.tenant(name)
    assert ok(await api.client.get(URL)) == {"items": []}
    unknown = replace(ROLE, severity=Severity.NOT_CHECKED)
    audited(api, "gamma", OTHERS, ROLE)
    audited(api, "acme", OTHERS, unknown)
    audited(api, "beta", OTHERS)
    found = ok(await api.client.get(f"{URL}?named=2"))["items"]
    assert [
        (each["check"], each["severity"], each["count"], each["tenants"]) for each in found
    ] == [
        ("role", "critical", 1, ["gamma"]),
        ("other_databases", "warning", 3, ["acme", "beta"]),
        ("role", "not_checked", 1, ["acme"]),
    ]
    assert [each["detail"] for each in found] == [
        *("Role is gone. gamma", "Open. acme", "Role is gone. acme")
    ]
    assert pointers(await api.client.get(f"{URL}?named=0")) == ["/query/named"]


async def test_two_causes_of_a_check_are_two_findings_and_a_flood_of_causes_is_one(
    api: Api,
) -> None:
    for name in ("acme", "beta", "gamma"):
        await api.tenant(name)
    hr, sales = (replace(OTHERS, cause=name, detail=f"{name} is open.") for name in ("hr", "sales"))
    audited(api, "acme", hr)
    audited(api, "beta", hr, sales)
    audited(api, "gamma", hr)
    found = ok(await api.client.get(URL))["items"]
    assert [(each["detail"], each["server"], each["tenants"]) for each in found] == [
        ("hr is open. acme", "local", ["acme", "beta", "gamma"]),
        ("sales is open. beta", "local", ["beta"]),
    ]
    # A tenant is counted once, whichever of its causes are in the rest.
    flood = [replace(hr, cause=f"database {each}") for each in range(99)]
    audited(api, "acme", *flood)
    audited(api, "beta", hr, sales, replace(sales, cause="erp", detail="erp is open."), ROLE)
    audited(api, "gamma", sales, flood[0])
    found = ok(await api.client.get(URL))["items"]
    # A flood of one check leaves the causes of another apart.
    assert len(found) == 102
    [role] = [each for each in found if each["check"] == "role"]
    assert (role["server"], role["tenants"]) == ("local", ["beta"])
    [rest] = [each for each in found if each["server"] is None]
    assert (rest["count"], rest["tenants"]) == (2, ["beta", "gamma"])
    assert rest["detail"] == "sales is open. beta erp is open. beta sales is open. gamma"
    [rest] = [
        each
        for each in ok(await api.client.get(f"{URL}?named=1"))["items"]
        if each["server"] is None
    ]
    assert (rest["count"], rest["detail"]) == (2, "sales is open. beta erp is open. beta")


async def test_a_key_bound_to_tenants_sees_their_findings_without_the_details(
    keyed_api: tuple[Api, Keyring],
) -> None:
    api, keys = keyed_api
    for name in ("acme", "beta"):
        await api.tenant(name)
        audited(api, name, OTHERS)
    audited(api, "beta", OTHERS, ROLE)
    api.client.headers.update(keys.headers("bound"))
    [found] = ok(await api.client.get(URL))["items"]
    assert (found["check"], found["count"], found["tenants"]) == ("other_databases", 1, ["acme"])
    assert found["detail"] is None


async def test_the_list_for_one_key_is_never_the_cached_one_of_another(
    api_with: ApiWith, tmp_path: Path
) -> None:
    keys = Keyring(tmp_path / "keys.json")
    keys.make("all")
    keys.make("query", "query")
    for name in ("acme", "beta"):
        keys.make(name, "read", tenants=(name,))
    async with api_with(keys_file=keys.path, rate_limit=0) as api:
        api.client.headers.update(keys.headers("all"))
        for name in ("acme", "beta"):
            await api.tenant(name)
            audited(api, name, OTHERS)
        cache: ResponseCache = api.app.state.response_cache
        seen = {"all": ["acme", "beta"], "acme": ["acme"], "beta": ["beta"]}

        async def all_are_stored() -> bool:
            for key, tenants in seen.items():
                response = await api.client.get(URL, headers=keys.headers(key))
                [found] = ok(response)["items"]
                assert found["tenants"] == tenants
                assert (found["detail"] is None) is (key != "all")
            # On a slow machine they may be of several snapshots.
            return len(cache._responses) == len(seen)

        await eventually(all_are_stored)
        # The second time, they come from the cache.
        assert await all_are_stored()
        problem(await api.client.get(URL, headers=keys.headers("query")), 403, "missing-scope")


async def test_a_list_that_has_not_changed_is_not_sent_again(api: Api) -> None:
    await api.tenant("acme")
    audited(api, "acme", OTHERS)
    first = await api.client.get(URL)
    assert set(ok(first)) == {"items"}
    few = await api.client.get(f"{URL}?fields=check,count")
    assert ok(few) == {"items": [{"check": "other_databases", "count": 1}]}
    known = {"If-None-Match": first.headers["etag"]}
    assert (await api.client.get(URL, headers=known)).status_code == 304
    audited(api, "acme", ROLE)
    assert ok(await api.client.get(URL, headers=known))["items"][0]["check"] == "role"


async def test_nodes_with_a_vulnerable_pooler_are_one_finding_with_their_tenants(
    keyed_api: tuple[Api, Keyring],
) -> None:
    api, keys = keyed_api
    for name in ("acme", "beta"):
        await api.tenant(name)
    for name, labels in {"edge": {}, "idle": {"plan": "gold"}, "quiet": {}}.items():
        ok(await api.client.put(f"/v1/nodes/{name}", json={"selector": labels}), 201)
    assert ok(await api.client.get(URL)) == {"items": []}
    for name in ("edge", "idle"):
        node = api.service.fleet.node(name)
        node.begin_session(1)
        said = NodeReport(
            session=1, sequence=1, version=0, engine="PgBouncer 1.25.2", servers={}, entries=()
        )
        node.hear(said, most_sessions=2)
    [found] = ok(await api.client.get(f"{URL}?named=1"))["items"]
    cause = "PgBouncer 1.25.2: one user can log in as another (CVE-2026-107350). Fixed in 1.26.1."
    assert found == {
        "check": "pooler_version",
        "severity": "warning",
        "server": None,
        "nodes": ["edge"],
        "node_count": 2,
        "detail": cause,
        "count": 2,
        "tenants": ["acme"],
    }
    api.client.headers.update(keys.headers("bound"))
    [own] = ok(await api.client.get(URL))["items"]
    # It sees no node that does not serve its tenants.
    assert own == {**found, "node_count": 1, "detail": None, "count": 1}


async def test_a_refused_login_is_a_finding_until_it_is_repaired(
    api: Api, database: Database
) -> None:
    for name in ("acme", "beta"):
        await api.tenant(name)
    async with database.connected() as admin:
        await admin.execute("ALTER ROLE tenant_acme PASSWORD 'another'")
    problem(await api.query("/v1/tenants/acme", "SELECT 1"), 503, "tenant-login-failed")
    [found] = ok(await api.client.get(URL))["items"]
    assert (found["check"], found["severity"], found["server"], found["tenants"]) == (
        *("tenant_login", "critical", "local"),
        ["acme"],
    )
    assert found["detail"].endswith("poolkeeper tenants rotate acme")
    ok(await api.client.post("/v1/tenants/acme/rotate-credentials"))
    assert ok(await api.client.get(URL)) == {"items": []}


async def test_what_is_away_is_a_finding_and_the_service_itself_comes_first(
    keyed_api: tuple[Api, Keyring], monkeypatch: pytest.MonkeyPatch
) -> None:
    api, keys = keyed_api
    for name in ("acme", "beta"):
        await api.tenant(name)
    ok(await api.client.put("/v1/nodes/edge", json={}), 201)
    server = api.service.manager.servers["local"]
    monkeypatch.setattr(server, "last_error", "It has no room.")
    monkeypatch.setattr(TrackedNode, "state", property(lambda _: NodeState.STALE))

    async def check_tables() -> None:
        raise CatalogUnavailable("The catalog is away.")

    monkeypatch.setattr(api.service.catalog, "check_tables", check_tables)
    items = ok(await api.client.get(f"{URL}?named=1"))["items"]
    assert [(each["check"], each["detail"]) for each in items] == [
        ("catalog", "The catalog is away."),
        (
            "node_silent",
            "Its agent does not report; it may go on with the connections that it has.",
        ),
        ("server", "It opens no new connection: It has no room."),
    ]
    assert [(each["severity"], each["count"], each["tenants"]) for each in items] == [
        ("warning", 0, []),
        ("warning", 2, ["acme"]),
        ("warning", 2, ["acme"]),
    ]
    monkeypatch.setattr(Server, "is_available", property(lambda _: False))
    first, *_ = ok(await api.client.get(URL))["items"]
    assert (first["check"], first["severity"], first["detail"]) == (
        *("server", "critical"),
        "It is unavailable: It has no room.",
    )
    api.client.headers.update(keys.headers("bound"))
    items = ok(await api.client.get(URL))["items"]
    assert [(each["check"], each["tenants"], each["detail"]) for each in items] == [
        ("server", ["acme"], None),
        ("node_silent", ["acme"], None),
    ]


async def test_paused_pools_and_nodes_and_leases_held_for_too_long_are_findings(
    api_with: ApiWith,
) -> None:
    async with api_with(leak_threshold_seconds=0.05) as api:
        for name in ("acme", "beta", "gamma"):
            await api.tenant(name)
        # Paused pools are findings whether or not they are open.
        ok(await api.client.put("/v1/tenants/beta/pool", json={"max_size": 3}), 201)
        for name in ("beta", "gamma"):
            ok(await api.client.post(f"/v1/tenants/{name}/pool/pause"))
        ok(await api.client.put("/v1/nodes/edge", json={}), 201)
        ok(await api.client.post("/v1/nodes/edge/pause"))
        manager = api.service.manager
        async with manager.lease(TenantId("acme")), manager.lease(TenantId("acme")):
            # Both are older than the threshold.
            await eventually(lambda: _lists(api, "and 1 more"))
            items = ok(await api.client.get(URL))["items"]
        found = {each["check"]: each for each in items}
        assert {name: (each["severity"], each["tenants"]) for name, each in found.items()} == {
            "node_paused": ("warning", ["acme", "beta", "gamma"]),
            "pool_paused": ("warning", ["beta", "gamma"]),
            "leak_suspect": ("warning", ["acme"]),
        }
        since = ok(await api.client.get("/v1/tenants/beta"))["pool"]["pause"]["since"]
        assert found["pool_paused"]["detail"] == (
            f"Pool beta was paused at {since[:19]}Z by api and grants no leases."
        )
        assert re.fullmatch(
            r"acme has held a lease for \d+ s, acquired at .+test_findings.py:\d+ \(pid \d+\), "
            r"and 1 more beyond the leak threshold\.",
            found["leak_suspect"]["detail"],
        )


async def _lists(api: Api, text: str) -> bool:
    return text in (await api.client.get(URL)).text


async def test_audits_that_are_too_old_are_a_finding_beside_what_they_found(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    await api.tenant("acme")
    monkeypatch.setattr(readiness, "oldest_audit_age", lambda _: 1e6)
    [found] = ok(await api.client.get(URL))["items"]
    assert (found["check"], found["severity"], found["count"]) == ("isolation", "warning", 0)
    assert found["detail"].endswith("too old.")
    audited(api, "acme", ROLE)
    items = ok(await api.client.get(URL))["items"]
    assert [each["check"] for each in items] == ["role", "isolation"]
