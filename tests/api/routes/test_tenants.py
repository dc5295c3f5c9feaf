"""Tenants over HTTP: declared, shown, listed, provisioned, deleted."""

import asyncio
import re
from dataclasses import replace
from typing import Any

import pytest

from app.api.views.tenant import TenantViews, phase_of
from app.control import keyed_locks
from app.domain.isolation_checks import AuditCheck, Finding, Severity
from app.domain.tenant import TenantId
from tests.fixtures.app import Api, ok, pointers, problem
from tests.fixtures.postgres import Database
from tests.fixtures.turns import counted_turns

ACME = "/v1/tenants/acme"


async def test_the_first_put_creates_and_every_other_one_answers_200(api: Api) -> None:
    created = await api.client.put(ACME, json={"strategy": "per_tenant", "weight": 2})
    body = ok(created, 201)
    assert (body["id"], body["server"], body["weight"]) == ("acme", "local", 2)
    assert (body["state"], body["generation"], body["stale"]) == ("declared", 1, False)
    assert re.fullmatch(r'"1-[0-9a-f]{8}"', created.headers["etag"])
    again = await api.client.put(ACME, json={"strategy": "per_tenant", "weight": 2})
    assert ok(again) == body
    assert again.headers["etag"] == created.headers["etag"]


async def test_what_is_omitted_on_an_update_gets_its_default_but_server_and_strategy_stay(
    api: Api,
) -> None:
    first = {"strategy": "per_database", "weight": 7, "max_leases": 3, "labels": {"plan": "gold"}}
    ok(await api.client.put(ACME, json=first), 201)
    body = ok(await api.client.put(ACME, json={}))
    assert (body["server"], body["strategy"]) == ("local", "per_database")
    assert (body["weight"], body["max_leases"], body["labels"]) == (1, None, {})
    assert body["generation"] == 2


async def test_a_tenant_without_a_strategy_gets_the_services_default(api: Api) -> None:
    assert ok(await api.client.put(ACME, json={}), 201)["strategy"] == "shared"


async def test_strategy_and_server_cannot_change(api: Api) -> None:
    ok(await api.client.put(ACME, json={"strategy": "per_tenant"}), 201)
    refused = await api.client.put(ACME, json={"strategy": "shared"})
    problem(refused, 409, "immutable-field")


async def test_a_server_that_is_not_declared_is_refused_with_its_place(api: Api) -> None:
    assert pointers(await api.client.put(ACME, json={"server": "mars"})) == ["/body/server"]


async def test_if_match_lets_only_the_version_it_names_be_changed(api: Api) -> None:
    await api.client.put(ACME, json={"weight": 1})
    changed = await api.client.put(ACME, json={"weight": 2}, headers={"If-Match": '"1"'})
    assert ok(changed)["generation"] == 2
    stale = await api.client.put(ACME, json={"weight": 3}, headers={"If-Match": '"1"'})
    problem(stale, 412, "stale-version")
    any_version = await api.client.put(ACME, json={"weight": 3}, headers={"If-Match": "*"})
    assert ok(any_version)["generation"] == 3


@pytest.mark.parametrize("tag", ["*", '"1"', '"0"'])
async def test_if_match_on_a_tenant_that_does_not_exist_creates_nothing(api: Api, tag: str) -> None:
    refused = await api.client.put(ACME, json={}, headers={"If-Match": tag})
    problem(refused, 412, "stale-version")
    problem(await api.client.get(ACME), 404, "tenant-not-found")


async def test_if_none_match_creates_only(api: Api) -> None:
    create_only = {"If-None-Match": "*"}
    ok(await api.client.put(ACME, json={"weight": 1}, headers=create_only), 201)
    refused = await api.client.put(ACME, json={"weight": 2}, headers=create_only)
    problem(refused, 412, "stale-version")
    assert ok(await api.client.get(ACME))["weight"] == 1


@pytest.mark.parametrize(
    "headers",
    [
        {"If-Match": "1"},
        {"If-Match": '"1" "2"'},
        {"If-Match": '*, "1"'},
        {"If-Match": 'w/"1"'},
        {"If-Match": ""},
        {"If-None-Match": "1"},
        {"If-Match": '"1"', "If-None-Match": "*"},
    ],
)
async def test_a_malformed_etag_is_a_bad_request(api: Api, headers: dict[str, str]) -> None:
    await api.client.put(ACME, json={})
    problem(await api.client.put(ACME, json={}, headers=headers), 400, "bad-request")


async def test_fifty_puts_at_once_create_one_tenant(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    # They run one at a time, and none of them may wait longer.
    monkeypatch.setattr(keyed_locks, "_HOLD_DEADLINE", 180.0)
    puts = [api.client.put(ACME, json={"weight": 1 + number % 2}) for number in range(50)]
    answers = await asyncio.gather(*puts)
    assert sorted(response.status_code for response in answers) == [200] * 49 + [201]
    generations = {response.json()["generation"] for response in answers}
    assert ok(await api.client.get(ACME))["generation"] == max(generations)


async def test_of_many_who_expect_the_same_version_one_succeeds(api: Api) -> None:
    await api.client.put(ACME, json={})
    puts = [
        api.client.put(ACME, json={"weight": 2 + number}, headers={"If-Match": '"1"'})
        for number in range(20)
    ]
    statuses = sorted(response.status_code for response in await asyncio.gather(*puts))
    assert statuses == [200] + [412] * 19


async def test_no_operation_finds_an_undeclared_tenant(api: Api) -> None:
    url = "/v1/tenants/nobody"
    for method, path, body in [
        ("GET", "", None),
        ("DELETE", "", None),
        ("POST", "/provision", None),
        ("GET", "/pool", None),
        ("PUT", "/pool", {}),
        ("DELETE", "/pool", None),
        ("POST", "/pool/pause", None),
        ("POST", "/pool/resume", None),
        ("POST", "/pool/drain", None),
        ("POST", "/pool/recycle", None),
        ("POST", "/pool/check", None),
        ("POST", "/query", {"sql": "select 1"}),
    ]:
        refused = await api.client.request(method, url + path, json=body)
        problem(refused, 404, "tenant-not-found")


async def test_provisioning_twice_is_the_same_as_once(api: Api) -> None:
    ok(await api.client.put(ACME, json={"strategy": "per_tenant"}), 201)
    first = ok(await api.client.post(f"{ACME}/provision"))
    assert first["objects"] == ["role tenant_acme", "schema tenant_acme"]
    assert first["provisioned_at"].endswith("Z")
    assert ok(await api.client.post(f"{ACME}/provision")) == first
    shown = ok(await api.client.get(ACME))
    assert (shown["state"], shown["provisioned_at"]) == ("provisioned", first["provisioned_at"])
    assert shown["isolation"]["schema"] == shown["isolation"]["role"] == "tenant_acme"


async def test_existing_objects_are_taken_over_only_with_adopt(
    api: Api, database: Database
) -> None:
    async with database.connected() as connection:
        await connection.execute("CREATE SCHEMA tenant_acme")
    ok(await api.client.put(ACME, json={"strategy": "per_tenant"}), 201)
    problem(await api.client.post(f"{ACME}/provision"), 409, "objects-exist")
    ok(await api.client.post(f"{ACME}/provision?adopt=true"))
    assert await api.value(ACME, "select current_user") == "tenant_acme"


async def test_deleting_closes_the_pool_disables_the_login_and_keeps_the_data(
    api: Api, database: Database
) -> None:
    url = await api.tenant("acme")
    ok(await api.query(url, "create table notes (text text)", read_only=False))
    gone = ok(await api.client.delete(url))
    assert gone == {"tenant": "acme", "closed": 1, "cut": 0, "login_disabled": True}
    problem(await api.client.get(url), 404, "tenant-not-found")
    problem(await api.client.delete(url), 404, "tenant-not-found")
    async with database.connected() as connection:
        assert await connection.fetchval("SELECT count(*) FROM tenant_acme.notes") == 0
        assert not await connection.fetchval(
            "SELECT rolcanlogin FROM pg_roles WHERE rolname = 'tenant_acme'"
        )


async def test_a_new_tenant_of_an_old_name_is_not_handed_the_old_data(api: Api) -> None:
    await api.client.delete(await api.tenant("acme"))
    ok(await api.client.put(ACME, json={"strategy": "per_tenant"}), 201)
    problem(await api.client.post(f"{ACME}/provision"), 409, "objects-exist")


async def test_one_that_is_created_again_with_another_strategy_lives_where_that_says(
    api: Api,
) -> None:
    url = await api.tenant("acme")
    where = "select current_database()::text, current_schema()::text"
    await api.query(url, where)
    [closed] = api.service.manager.pools()  # as if it were not collected yet
    ok(await api.client.delete(url))
    ok(await api.client.put(url, json={"strategy": "per_database"}), 201)
    ok(await api.client.post(f"{url}/provision?adopt=true"))
    [[database, schema]] = ok(await api.query(url, where))["rows"]
    assert (database, schema) == ("tenant_acme", "public")
    assert closed not in api.service.manager.pools()


async def test_a_lease_that_outlasts_the_deadline_of_a_deletion_is_cut(api: Api) -> None:
    url = await api.tenant("acme")
    entered = asyncio.Event()

    async def hold() -> None:
        async with api.service.manager.lease("acme"):
            entered.set()
            await asyncio.Event().wait()

    holder = asyncio.create_task(hold(), name="holds a lease")
    await entered.wait()
    gone = ok(await api.client.delete(f"{url}?deadline_seconds=0"))
    assert (gone["closed"], gone["cut"]) == (1, 1)
    holder.cancel()
    await asyncio.wait({holder})


async def test_other_requests_have_their_turn_while_a_long_list_is_made(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    await api.client.put(ACME, json={})
    manager = api.service.manager
    acme = manager.tenants.state("acme").tenant
    for number in range(249):
        spec = replace(acme.spec, id=TenantId(f"t{number:03}"))
        manager.put_tenant(replace(acme, spec=spec))
    async with counted_turns() as turns:
        monkeypatch.setattr(TenantViews, "show", turns.counted(TenantViews.show))
        listed = ok(await api.client.get("/v1/tenants?limit=500"))
    assert len(listed["items"]) == turns.calls == 250
    assert turns.most == 1
    async with counted_turns() as turns:
        monkeypatch.setattr("app.api.routes.tenants.phase_of", turns.counted(phase_of))
        none = ok(await api.client.get("/v1/tenants?state=deleting"))
    assert (none["matches"], turns.calls, turns.most) == (0, 250, 1)


async def test_the_list_is_filtered_by_everything_it_offers(api: Api) -> None:
    await api.tenant("acme", labels={"plan": "gold", "region": "eu"})
    await api.client.put("/v1/tenants/beta", json={"labels": {"plan": "gold:plus"}})
    await api.client.put("/v1/tenants/gamma", json={"strategy": "per_database"})

    async def ids(**wanted: Any) -> list[str]:
        page = ok(await api.client.get("/v1/tenants", params=wanted))
        return [item["id"] for item in page["items"]]

    assert await ids() == ["acme", "beta", "gamma"]
    assert await ids(strategy="per_database") == ["gamma"]
    assert await ids(state="declared") == ["beta", "gamma"]
    assert await ids(server="local", state="provisioned") == ["acme"]
    assert await ids(server="mars") == []
    assert await ids(search="MA") == ["gamma"]
    assert await ids(search="a", state="declared") == ["beta", "gamma"]
    assert await ids(search="_") == []
    part = ok(await api.client.get("/v1/tenants?limit=1&state=declared"))
    last = {"state": "declared", "cursor": part["next_cursor"]}
    for page in (part, ok(await api.client.get("/v1/tenants", params=last))):
        assert (page["matches"], len(page["items"])) == (2, 1)
    state = api.service.manager.tenants.state("acme")
    assert state.isolation is not None
    found = Finding(check=AuditCheck.ROLE, severity=Severity.CRITICAL, detail="It is gone.")
    state.isolation = replace(state.isolation, findings=(found,))
    assert await ids(finding="critical") == ["acme"]
    assert await ids(finding="warning") == []
    assert await ids(label="plan:gold") == ["acme"]
    assert await ids(label="plan:gold:plus") == ["beta"]
    assert await ids(label=["plan:gold", "region:eu"]) == ["acme"]
    assert await ids(label=["plan:gold", "plan:silver"]) == []


async def test_pages_hold_every_tenant_once_though_some_come_and_go_meanwhile(api: Api) -> None:
    for name in "abcdefg":
        await api.client.put(f"/v1/tenants/{name}", json={})
    page = ok(await api.client.get("/v1/tenants?limit=3"))
    seen = [item["id"] for item in page["items"]]
    await api.client.delete("/v1/tenants/c")  # where the cursor points
    await api.client.put("/v1/tenants/aa", json={})  # behind it
    while page["next_cursor"]:
        query = {"limit": 3, "cursor": page["next_cursor"]}
        page = ok(await api.client.get("/v1/tenants", params=query))
        seen += [item["id"] for item in page["items"]]
    assert seen == list("abcdefg")


async def test_a_tenant_shows_where_it_will_live(api: Api) -> None:
    ok(await api.client.put(ACME, json={"strategy": "per_database"}), 201)
    assert ok(await api.client.get(ACME))["isolation"] == {
        "strategy": "per_database",
        "assurance": "database",
        "database": "tenant_acme",
        "schema": None,
        "role": "tenant_acme",
        "checks": [],
        "checked_at": None,
    }


async def test_a_provisioned_tenant_shows_that_its_promise_holds_and_rotates_its_password(
    api: Api,
) -> None:
    url = await api.tenant("acme")
    isolation = ok(await api.client.get(url))["isolation"]
    assert isolation["checked_at"] is not None
    assert {check["ok"] for check in isolation["checks"]} == {True}
    assert "role_attributes" in {check["name"] for check in isolation["checks"]}
    rotated = ok(await api.client.post(f"{url}/rotate-credentials"))
    assert (rotated["role"], rotated["version"], rotated["tenants"]) == ("tenant_acme", 2, 1)
    assert await api.value(url, "select 1") == 1
    shared = await api.tenant("beta", "shared")
    problem(await api.client.post(f"{shared}/rotate-credentials"), 409, "pool-is-shared")
    assert ok(await api.client.post(f"{shared}/rotate-credentials?scope=pool"))["tenants"] == 1
