"""`?dry_run=true`: a change returns its plan, or the refusal it would get, and does nothing."""

import re
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from httpx import Response

from app.domain.errors import LeaseLost
from app.domain.recommendation import RecommendationStatus
from tests.catalog.values import recommendation
from tests.fixtures.app import Api, ok, problem
from tests.fixtures.openapi import committed
from tests.fixtures.pools import pool_of
from tests.fixtures.postgres import Database
from tests.fixtures.proxy import FaultProxy
from tests.fixtures.waiting import eventually

ACME = "/v1/tenants/acme"
OTHER = "/v1/tenants/other"
NODE = "/v1/nodes/edge"
RECOMMENDATION = "/v1/recommendations/{id}"

Change = tuple[str, str, dict[str, Any] | None]
CHANGES: list[Change] = [
    ("PUT", "/v1/tenants/fresh", {"strategy": "per_database"}),
    ("PUT", ACME, {"weight": 7}),
    ("POST", f"{OTHER}/provision", None),
    ("POST", f"{ACME}/provision", None),
    ("PUT", f"{ACME}/pool", {"max_size": 4}),
    ("POST", f"{ACME}/pool/pause", None),
    ("POST", f"{ACME}/pool/resume", None),
    ("POST", f"{ACME}/pool/drain", None),
    ("POST", f"{ACME}/pool/recycle", None),
    ("POST", f"{ACME}/pool/check", None),
    ("DELETE", f"{ACME}/pool", None),
    ("POST", "/v1/pools/evict-expired", None),
    ("PUT", "/v1/advisor", {"mode": "apply"}),
    ("POST", f"{RECOMMENDATION}/apply", None),
    ("POST", f"{RECOMMENDATION}/dismiss", None),
    ("POST", f"{ACME}/query", {"sql": "create table t ()", "read_only": False}),
    ("POST", f"{ACME}/rotate-credentials", None),
    ("POST", f"{ACME}/credentials", {"name": "jobs"}),
    ("DELETE", f"{ACME}/credentials/web", None),
    ("PUT", NODE, {"address": "pools.example:6432"}),
    ("POST", f"{NODE}/pause", None),
    ("POST", f"{NODE}/resume", None),
    ("POST", f"{NODE}/drain", None),
    ("DELETE", NODE, None),
    ("DELETE", ACME, None),
]
# One changes nothing, the protocol of the other has no dry runs.
WITHOUT = {"post /v1/advisor/evaluate", "post /sql"}


async def send(api: Api, change: Change, query: str = "", **more: Any) -> Response:
    method, url, body = change
    url = f"{url}?{query}" if query else url
    return await api.client.request(method, url, json=body, **more)


async def contents(database: Database) -> dict[str, list[str]]:
    """Everything in a database, except what is written every 2 s."""
    connection = await database.connect()
    try:
        tables = await connection.fetch(
            "select format('%I.%I', schemaname, tablename) from pg_tables"
            " where schemaname not in ('pg_catalog', 'information_schema')"
            " and tablename not in ('leadership', 'instances') order by 1"
        )
        return {
            table: [str(row) for row in await connection.fetch(f"select * from {table}")]
            for (table,) in tables
        }
    finally:
        await connection.close()


async def objects(database: Database) -> list[str]:
    """Roles with their passwords, schemas and databases of the server."""
    connection = await database.connect()
    try:
        return [
            str(row)
            for row in await connection.fetch(
                "select rolname, rolpassword, rolcanlogin from pg_authid"
                " union all select nspname, null, null from pg_namespace"
                " union all select datname, null, null from pg_database order by 1"
            )
        ]
    finally:
        await connection.close()


async def prepared(api: Api) -> str:
    """A tenant with an open pool and a credential, one without; a recommendation's ID."""
    await api.tenant("acme")
    ok(await api.client.post(f"{ACME}/credentials", json={"name": "web"}), 201)
    ok(await api.client.put(OTHER, json={"strategy": "per_tenant"}), 201)
    ok(await api.client.put(f"{ACME}/pool", json={"max_size": 5}), 201)
    ok(await api.client.put(NODE, json={}), 201)
    return await advised(api)


async def advised(api: Api) -> str:
    """A recommendation for the pool as it is now; returns its ID."""
    size = api.service.manager.desired["acme"].size.max_size
    made = recommendation("acme")
    made = replace(made, max_size=size, advice=replace(made.advice, new_size=size + 5))
    await api.service.catalog.recommendations.add(made)
    await api.service.advisor_loop.load()
    return str(made.id)


def of(change: Change, advice: str) -> Change:
    return change[0], change[1].replace("{id}", advice), change[2]


async def test_a_dry_run_changes_nothing_anywhere(
    api: Api, database: Database, catalog_database: Database
) -> None:
    advice = await prepared(api)
    pool = pool_of(api.service.manager, "acme")
    # However long this takes, no check of the service itself runs at that time.
    await api.service.supervisor.stop()

    async def everything() -> list[object]:
        shown = [await api.client.get(url) for url in (ACME, f"{ACME}/pool", "/v1/advisor")]
        return [
            await contents(catalog_database),
            await contents(database),
            await objects(database),
            [(each.headers["etag"], each.json()) for each in shown],
            dict(api.service.manager.desired),
            dict(api.service.advisor_loop.open_recommendations),
            (repr(pool), pool.recorder.connections_opened, pool.recorder.connections_closed),
            (api.service.audit_outbox.pending, api.service.audit_outbox.dropped),
        ]

    before = await everything()
    for change in CHANGES:
        response = await send(api, of(change, advice), "dry_run=true")
        body = ok(response)
        assert response.headers["dry-run"] == "true"
        assert body["dry_run"] is True
        assert body.keys() == {"dry_run", "plan", "effects", "warnings"}
        assert await everything() == before, change


async def test_a_plan_can_be_executed(api: Api) -> None:
    """No plan is returned for a request that would be refused."""
    advice = await prepared(api)
    for change in CHANGES:
        if change[1].startswith(ACME):
            await eventually(lambda: not _is_closing(api))
            assert (await api.client.put(f"{ACME}/pool", json={})).is_success
        if "{id}" in change[1]:
            advice = await advised(api)
        ok(await send(api, of(change, advice), "dry_run=true"))
        done = await send(api, of(change, advice))
        assert done.is_success, (change, done.text)
        assert "dry-run" not in done.headers


def _is_closing(api: Api) -> bool:
    pool = api.service.manager.find("acme")
    return pool is not None and pool.is_closing


def test_every_change_has_a_dry_run() -> None:
    changes = {
        f"{method} {path}": operation
        for path, methods in committed()["paths"].items()
        for method, operation in methods.items()
        if method != "get"
    }
    without = {
        name
        for name, operation in changes.items()
        if not any(each["name"] == "dry_run" for each in operation["parameters"])
    }
    assert without == WITHOUT
    tried = {
        f"{method.lower()} {re.sub('acme|other|fresh', '{tenant}', url)}".replace(
            "credentials/web", "credentials/{credential}"
        ).replace("nodes/edge", "nodes/{node}")
        for method, url, _ in CHANGES
    }
    assert tried == changes.keys() - WITHOUT


REFUSED: list[tuple[str, str, dict[str, Any] | None, dict[str, str]]] = [
    ("PUT", "/v1/tenants/A", {}, {}),
    ("PUT", "/v1/tenants/public", {}, {}),
    ("PUT", ACME, {"weight": 0}, {}),
    ("PUT", ACME, {"server": "nowhere"}, {}),
    ("PUT", ACME, {"strategy": "shared"}, {}),
    ("PUT", ACME, {"strategy": "per_tenant"}, {"If-Match": '"9"'}),
    ("PUT", ACME, {"strategy": "per_tenant"}, {"If-None-Match": "*"}),
    ("PUT", "/v1/tenants/fresh", {}, {"If-Match": "*"}),
    ("PUT", ACME, {}, {"If-Match": "x"}),
    ("DELETE", "/v1/tenants/nobody", None, {}),
    ("DELETE", ACME, None, {"If-Match": '"9"'}),
    ("POST", "/v1/tenants/nobody/provision", None, {}),
    ("POST", "/v1/tenants/taken/provision", None, {}),
    ("PUT", f"{OTHER}/pool", {}, {}),
    ("PUT", "/v1/tenants/nobody/pool", {}, {}),
    ("PUT", f"{ACME}/pool", {"min_size": 9999, "max_size": 9999}, {}),
    ("PUT", f"{ACME}/pool", {"min_size": 6}, {}),
    ("PUT", f"{ACME}/pool", {}, {"If-Match": '"9"'}),
    ("PUT", "/v1/tenants/common/pool", {"max_size": 3}, {}),
    ("POST", "/v1/tenants/common/pool/pause", None, {}),
    ("POST", f"{OTHER}/pool/drain", None, {}),
    ("POST", f"{OTHER}/pool/recycle", None, {}),
    ("POST", f"{OTHER}/pool/check", None, {}),
    ("DELETE", f"{OTHER}/pool", None, {}),
    ("DELETE", "/v1/tenants/common/pool", None, {}),
    ("DELETE", f"{ACME}/pool?deadline_seconds=-1", None, {}),
    ("PUT", "/v1/advisor", {"mode": "x"}, {}),
    ("PUT", "/v1/advisor", {"config": {"min_pool_size": 10, "max_pool_size": 5}}, {}),
    ("PUT", "/v1/advisor", {}, {"If-Match": '"9"'}),
    ("POST", f"/v1/recommendations/{uuid4()}/apply", None, {}),
    ("POST", f"/v1/recommendations/{uuid4()}/dismiss", None, {}),
    ("POST", f"{RECOMMENDATION}/apply", None, {}),
    ("POST", f"{RECOMMENDATION}/dismiss", None, {}),
    ("POST", f"{OTHER}/query", {"sql": "select 1"}, {}),
    ("POST", f"{ACME}/query", {"sql": "select 1", "max_rows": 10_000_000}, {}),
    ("POST", "/v1/tenants/nobody/query", {"sql": "select 1"}, {}),
    ("POST", f"{OTHER}/rotate-credentials", None, {}),
    ("POST", "/v1/tenants/common/rotate-credentials", None, {}),
    ("POST", f"{ACME}/credentials", {"name": "web"}, {}),
    ("POST", f"{ACME}/credentials", {"name": "late", "expires_at": "2020-01-01T00:00:00Z"}, {}),
    ("POST", "/v1/tenants/common/credentials", {"name": "web"}, {}),
    ("POST", "/v1/tenants/nobody/credentials", {"name": "web"}, {}),
    ("DELETE", f"{ACME}/credentials/jobs", None, {}),
    ("DELETE", f"{ACME}/credentials/web", None, {"If-Match": '"9"'}),
]


async def test_a_dry_run_is_refused_where_the_change_would_be(api: Api, database: Database) -> None:
    advice = await prepared(api)
    await api.tenant("common", "shared")
    ok(await api.client.put("/v1/tenants/common/pool", json={}), 201)
    ok(await api.client.put("/v1/tenants/taken", json={"strategy": "per_tenant"}), 201)
    connection = await database.connect()
    await connection.execute("create schema tenant_taken")
    await connection.close()
    ok(await api.client.post(f"/v1/recommendations/{advice}/dismiss"))
    for method, template, body, headers in REFUSED:
        url = template.replace("{id}", advice)
        dry = url + ("&" if "?" in url else "?") + "dry_run=true"
        response = await api.client.request(method, dry, json=body, headers=headers)
        real = await api.client.request(method, url, json=body, headers=headers)
        assert 400 <= real.status_code < 500, (url, real.text)
        told_body, real_body = response.json(), real.json()
        del told_body["request_id"], real_body["request_id"]
        assert told_body == real_body, (method, url)


async def test_a_plan_has_steps_and_effects(api: Api) -> None:
    url = await api.tenant("acme")
    pool = f"{url}/pool"
    opening = ok(await api.client.put(f"{pool}?dry_run=true", json={"min_size": 2}))
    assert [step["action"] for step in opening["plan"]] == ["record", "open"]
    assert opening["plan"][1] == {
        "action": "open",
        "target": "pool acme",
        "before": None,
        "after": {"min_size": 2, "max_size": 5, "warmup_size": 1, "paused": False},
    }
    assert opening["effects"] == {
        "connections_opened": 2,
        "connections_closed": 0,
        "leases_cut": 0,
    }
    ok(await api.client.put(pool, json={"min_size": 2, "max_size": 4}), 201)
    opened = pool_of(api.service.manager, "acme")
    await eventually(lambda: opened.metrics.total_connections == 2)
    with pytest.raises(LeaseLost):  # noqa: PT012 - it is raised when the block is left
        async with api.service.manager.lease("acme"):
            evicting = ok(await api.client.delete(f"{pool}?dry_run=true&mode=force"))
            assert [step["action"] for step in evicting["plan"]] == ["close"]
            assert evicting["effects"] == {
                "connections_opened": 0,
                "connections_closed": 2,
                "leases_cut": 1,
            }
            assert evicting["warnings"] == []
            graceful = ok(await api.client.delete(f"{pool}?dry_run=true"))
            assert graceful["warnings"] == [
                "Active leases (1) get 5 s to end; after that they are cut."
            ]
            done = ok(await api.client.delete(f"{pool}?mode=force"))
            assert (done["closed"], done["cut"]) == (2, 1)


async def test_a_plan_without_changes_is_empty(api: Api) -> None:
    url = await api.tenant("acme")
    ok(await api.client.put(f"{url}/pool", json={}), 201)
    for change in (
        ("PUT", url, {"strategy": "per_tenant"}),
        ("PUT", f"{url}/pool", {}),
        ("POST", f"{url}/pool/resume", None),
        ("PUT", "/v1/advisor", {}),
        ("POST", "/v1/pools/evict-expired", None),
    ):
        body = ok(await send(api, change, "dry_run=true"))
        assert (body["plan"], body["warnings"]) == ([], [])


async def test_a_plan_warns_of_what_is_unreachable(api_apart: Api, fault_proxy: FaultProxy) -> None:
    url = await api_apart.tenant("acme")
    await fault_proxy.cut()
    response = await api_apart.client.put(url, json={"strategy": "per_tenant", "weight": 2})
    problem(response, 503, "catalog-unavailable")
    body = ok(await send(api_apart, ("PUT", url, {"strategy": "per_tenant"}), "dry_run=true"))
    assert body["warnings"] == ["The catalog is unreachable: the request itself would get 503 now."]
    body = ok(await api_apart.client.post(f"{url}/pool/pause?dry_run=true"))
    assert body["warnings"] == []


async def test_applied_advice_is_planned_as_the_resize_it_is(api: Api) -> None:
    advice = await prepared(api)
    body = ok(await api.client.post(f"/v1/recommendations/{advice}/apply?dry_run=true"))
    assert [step["action"] for step in body["plan"]] == ["record", "resize", "record"]
    kept = await api.service.catalog.recommendations.page(status=RecommendationStatus.OPEN)
    assert [str(each.id) for each in kept] == [advice]
