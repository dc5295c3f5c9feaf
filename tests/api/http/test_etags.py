"""If-Match and If-None-Match: nobody undoes another's change, and nobody reads the same twice."""

import asyncio
from collections.abc import AsyncIterator, Mapping

import pytest
from httpx import Response

from tests.fixtures.app import Api, ApiWith, ok, problem
from tests.fixtures.waiting import eventually

ACME = "/v1/tenants/acme"
EDGE = "/v1/nodes/edge"
# A request: its method and perhaps a path below the URL, its body and its precondition.
Asked = tuple[str, Mapping[str, object] | None, Mapping[str, str]]


@pytest.fixture
async def strict_api(api_with: ApiWith) -> AsyncIterator[Api]:
    """The application of an operator who requires a precondition for every change."""
    async with api_with(require_if_match=True) as api:
        yield api


IN_FORCE: list[list[tuple[str, str]]] = [
    [("If-Match", '"{}"')],
    [("If-Match", '"77", "{}"')],
    [("If-Match", '"77" ,\t"{}","x"')],
    [("If-Match", ', "{}",,')],
    [("If-Match", '"{}-provisioned"')],
    [("If-Match", " * ")],
    [("If-Match", '"77"'), ("If-Match", '"{}"')],
]
OVER = ['"2"', '"0"', 'W/"1"', '"x", "y"', '"' + "9" * 90 + '"', '""', '"01x"']


async def test_if_match_accepts_one_of_many_versions(api: Api) -> None:
    await api.client.put(ACME, json={})
    for generation, lines in enumerate(IN_FORCE, start=1):
        headers = [(name, value.replace("{}", str(generation))) for name, value in lines]
        response = await api.client.put(ACME, json={"weight": 1 + generation}, headers=headers)
        assert ok(response)["generation"] == generation + 1


async def test_if_match_refuses_many_other_versions(api: Api) -> None:
    await api.client.put(ACME, json={})
    for tags in OVER:
        stale = {"If-Match": tags}
        refused = await api.client.put(ACME, json={"weight": 2}, headers=stale)
        problem(refused, 412, "stale-version")
        problem(await api.client.delete(ACME, headers=stale), 412, "stale-version")
    assert ok(await api.client.get(ACME))["generation"] == 1


async def test_if_none_match_refuses_the_named_versions(api: Api) -> None:
    await api.client.put(ACME, json={})
    for tags, status in (('"1"', 412), ('W/"1", "2"', 412), ('"2"', 200)):
        response = await api.client.put(ACME, json={}, headers={"If-None-Match": tags})
        assert response.status_code == status


async def test_a_tenant_and_its_pool_are_deleted_in_the_version_one_saw(api: Api) -> None:
    url = await api.tenant("acme")
    pool = f"{url}/pool"
    ok(await api.client.put(pool, json={}), 201)
    ok(await api.client.put(pool, json={"max_size": 2}))
    stale = await api.client.delete(pool, headers={"If-Match": '"1"'})
    problem(stale, 412, "stale-version")
    assert ok(await api.client.get(pool))["open"]
    ok(await api.client.delete(pool, headers={"If-Match": '"2"'}))
    tag = (await api.client.get(url)).headers["etag"]
    mark = api.service.manager.tenants.state("acme").tenant.uid.hex[:8]
    assert tag == f'"1-{mark}-provisioned"'
    ok(await api.client.delete(url, headers={"If-Match": tag}))


async def test_a_later_tenant_of_the_same_name_is_another_version(api: Api) -> None:
    old = {"If-Match": (await api.client.put(ACME, json={})).headers["etag"]}
    ok(await api.client.delete(ACME, headers=old))
    made = await api.client.put(ACME, json={})
    assert ok(made, 201)["generation"] == 1
    problem(await api.client.put(ACME, json={"weight": 2}, headers=old), 412, "stale-version")
    problem(await api.client.delete(ACME, headers=old), 412, "stale-version")
    ok(await api.client.delete(ACME, headers={"If-Match": made.headers["etag"]}))


async def in_turn(api: Api, lock: str, url: str, *requests: Asked) -> list[int]:
    """Send requests that wait for each other in this order; the statuses of their responses."""
    return [each.status_code for each in await answers_in_turn(api, lock, url, *requests)]


async def answers_in_turn(api: Api, lock: str, url: str, *requests: Asked) -> list[Response]:
    locks = api.service.locks
    sent: list[asyncio.Task[Response]] = []
    async with locks.hold(lock):
        for asked, body, headers in requests:
            method, _, path = asked.partition(" ")
            request = api.client.request(method, url + path, json=body, headers=headers)
            sent.append(asyncio.create_task(request))
            await eventually(lambda: len(locks._locks[lock]._waiters or ()) == len(sent))
    return [await each for each in sent]


@pytest.mark.parametrize(("lock", "url"), [("acme", ACME), ("node edge", EDGE)])
async def test_a_change_that_waited_does_not_concern_what_was_replaced_meanwhile(
    api: Api, lock: str, url: str
) -> None:
    tag = (await api.client.put(url, json={})).headers["etag"]
    old = {"If-Match": tag}
    new = {"labels": {"is": "new"}}
    late: tuple[Asked, ...] = (("PUT", {}, old), ("DELETE", None, old))
    statuses = await in_turn(api, lock, url, ("DELETE", None, {}), ("PUT", new, {}), *late)
    assert statuses == [200, 201, 412, 412]
    assert ok(await api.client.get(url))["labels"] == {"is": "new"}


@pytest.mark.parametrize(("lock", "url"), [("acme", ACME), ("node edge", EDGE)])
async def test_a_change_of_what_is_there_creates_nothing_that_was_deleted_meanwhile(
    api: Api, lock: str, url: str
) -> None:
    ok(await api.client.put(url, json={}), 201)
    change: Asked = ("PUT", {"labels": {"is": "new"}}, {"If-Match": "*"})
    assert await in_turn(api, lock, url, ("DELETE", None, {}), change) == [200, 412]
    assert (await api.client.get(url)).status_code == 404


async def test_a_later_tenant_has_the_default_strategy_and_not_the_one_of_the_deleted_tenant(
    api: Api,
) -> None:
    default = ok(await api.client.put(ACME, json={}), 201)["strategy"]
    ok(await api.client.delete(ACME))
    other = "per_tenant" if default == "shared" else "shared"
    ok(await api.client.put(ACME, json={"strategy": other}), 201)
    change: Asked = ("PUT", {"weight": 2}, {})
    assert await in_turn(api, "acme", ACME, ("DELETE", None, {}), change) == [200, 201]
    assert ok(await api.client.get(ACME))["strategy"] == default


async def test_an_update_keeps_the_strategy_of_the_tenant_that_is_there_when_its_turn_comes(
    api: Api,
) -> None:
    ok(await api.client.put(ACME, json={"strategy": "per_tenant"}), 201)
    new: Asked = ("PUT", {"strategy": "shared"}, {})
    change: Asked = ("PUT", {"weight": 2}, {})
    statuses = await in_turn(api, "acme", ACME, ("DELETE", None, {}), new, change)
    assert statuses == [200, 201, 200]
    shown = ok(await api.client.get(ACME))
    assert (shown["strategy"], shown["weight"]) == ("shared", 2)


REPLACED: tuple[Asked, ...] = (
    ("DELETE", None, {}),
    ("PUT", {"strategy": "per_tenant"}, {}),
    ("POST /provision?adopt=true", None, {}),
)
MOVED: tuple[Asked, ...] = (("DELETE", None, {}), ("PUT", {"strategy": "shared"}, {}))


async def test_what_waited_for_a_replaced_tenant_concerns_the_one_that_is_there(api: Api) -> None:
    await api.tenant("acme")
    ok(await api.client.put(EDGE, json={}), 201)
    late: tuple[Asked, ...] = (
        ("PUT /pool", {"max_size": 3}, {}),
        ("POST /pool/pause", None, {}),
        ("POST /pool/resume", None, {}),
        ("POST /pool/recycle", None, {}),
        ("POST /pool/drain", None, {}),
        ("DELETE /pool", None, {}),
        ("POST /rotate-credentials", None, {}),
        ("POST /credentials", {"name": "web"}, {}),
    )
    statuses = await in_turn(api, "acme", ACME, *REPLACED, *late)
    assert statuses == [200, 201, 200, 201, 200, 200, 200, 202, 200, 200, 201]
    assert ok(await api.client.get(f"{ACME}/pool"))["desired"]["max_size"] == 3


async def test_a_change_of_a_pool_that_waited_knows_the_pool_of_a_later_tenant(api: Api) -> None:
    pool = f"{await api.tenant('acme')}/pool"
    old = (await api.client.put(pool, json={"max_size": 2})).headers["etag"]
    late: tuple[Asked, ...] = (
        ("PUT /pool", {"max_size": 3}, {}),
        ("PUT /pool", {"max_size": 4}, {"If-Match": old}),
    )
    statuses = await in_turn(api, "acme", ACME, *REPLACED, *late)
    assert statuses == [200, 201, 200, 201, 412]


async def test_the_etag_of_a_pool_whose_change_waited_is_that_of_its_present_tenant(
    api: Api,
) -> None:
    url = await api.tenant("acme")
    change: Asked = ("PUT /pool", {"max_size": 3}, {})
    *_, changed = await answers_in_turn(api, "acme", url, *REPLACED, change)
    shown = await api.client.get(f"{url}/pool")
    assert changed.headers["etag"] == shown.headers["etag"]


async def test_a_change_that_waited_leaves_the_shared_pool_of_a_later_tenant_alone(
    api: Api,
) -> None:
    """Whoever may change all of a tenant's own pool may not change a shared one."""
    await api.tenant("acme")
    late: tuple[Asked, ...] = (
        ("PUT /pool?scope=pool", {"max_size": 3}, {}),
        ("POST /pool/pause?scope=pool", None, {}),
        ("POST /rotate-credentials?scope=pool", None, {}),
    )
    assert await in_turn(api, "acme", ACME, *MOVED, *late) == [200, 201, 409, 409, 409]
    assert not api.service.manager.desired


async def test_a_later_tenant_is_provisioned_by_its_strategy_and_gets_no_credential_if_shared(
    api: Api,
) -> None:
    await api.tenant("acme")
    late: tuple[Asked, ...] = (
        ("POST /provision", None, {}),
        ("POST /credentials", {"name": "web"}, {}),
    )
    assert await in_turn(api, "acme", ACME, *MOVED, *late) == [200, 201, 200, 409]


@pytest.mark.parametrize(
    ("lock", "url", "change"),
    [
        ("acme", ACME, {"weight": 2}),
        ("acme", f"{ACME}/pool", {"max_size": 2}),
        ("node edge", EDGE, {"labels": {"n": "1"}}),
    ],
)
async def test_of_two_equal_changes_of_one_version_only_one_succeeds(
    api: Api, lock: str, url: str, change: Mapping[str, object]
) -> None:
    """Each may be a step of a counter."""
    await api.tenant("acme")
    tag = (await api.client.put(url, json={})).headers["etag"]
    step: Asked = ("PUT", change, {"If-Match": tag})
    assert await in_turn(api, lock, url, step, step) == [200, 412]


async def test_changes_of_the_advisor_at_the_same_time_leave_each_others_fields(api: Api) -> None:
    url = "/v1/advisor"
    async with api.service.advisor_loop._locks.hold("the settings"):
        changes = [
            asyncio.create_task(api.client.put(url, json=body))
            for body in ({"mode": "off"}, {"config": {"late_share": 0.05}})
        ]
        held = api.service.advisor_loop._locks._locks["the settings"]
        await eventually(lambda: len(held._waiters or ()) == 2)
    for each in changes:
        ok(await each)
    shown = ok(await api.client.get(url))
    assert (shown["mode"], shown["config"]["late_share"]) == ("off", 0.05)


async def test_the_pool_of_a_later_tenant_is_another_version(api: Api) -> None:
    pool = f"{await api.tenant('acme')}/pool"
    old = (await api.client.put(pool, json={"max_size": 2})).headers["etag"]
    ok(await api.client.delete(ACME))
    ok(await api.client.put(ACME, json={"strategy": "per_tenant"}), 201)
    ok(await api.client.post(f"{ACME}/provision?adopt=true"))
    ok(await api.client.put(pool, json={"max_size": 3}), 201)
    shown = ok(await api.client.get(pool, headers={"If-None-Match": old}))
    assert shown["desired"]["max_size"] == 3
    for method, body in (("PUT", {"max_size": 4}), ("DELETE", None)):
        refused = await api.client.request(method, pool, json=body, headers={"If-Match": old})
        problem(refused, 412, "stale-version")


async def test_where_required_every_change_needs_a_precondition(strict_api: Api) -> None:
    api = strict_api
    ok(await api.client.put(ACME, json={}), 201)
    ok(await api.client.post(f"{ACME}/provision"))
    ok(await api.client.put(f"{ACME}/pool?scope=pool", json={}), 201)
    for method, url in (
        ("PUT", ACME),
        ("DELETE", ACME),
        ("PUT", f"{ACME}/pool?scope=pool"),
        ("DELETE", f"{ACME}/pool?scope=pool"),
        ("PUT", "/v1/advisor"),
    ):
        body: dict[str, str] | None = {} if method == "PUT" else None
        refused = await api.client.request(method, url, json=body)
        problem(refused, 428, "precondition-required")
        dry = f"{url}{'&' if '?' in url else '?'}dry_run=true"
        problem(await api.client.request(method, dry, json=body), 428, "precondition-required")
        any_version = {"If-Match": "*"}
        ok(await api.client.request(method, dry, json=body, headers=any_version))
    ok(await api.client.put(ACME, json={"weight": 3}, headers={"If-Match": '"1"'}))


async def test_an_unchanged_resource_is_not_sent_again(api: Api) -> None:
    url = await api.tenant("acme")
    ok(await api.client.put(f"{url}/pool", json={}), 201)
    for path in (url, f"{url}/pool", "/v1/advisor", "/v1/tenants"):
        tag = (await api.client.get(path)).headers["etag"]
        for asked in (tag, f'"x", W/{tag}', "*"):
            same = await api.client.get(path, headers={"If-None-Match": asked})
            assert (same.status_code, same.content) == (304, b"")
            assert same.headers["etag"] == tag
            assert same.headers["cache-control"] == "no-store"
        assert (await api.client.get(path, headers={"If-None-Match": '"x"'})).status_code == 200
        malformed = await api.client.get(path, headers={"If-None-Match": "x"})
        problem(malformed, 400, "bad-request")


async def test_provisioning_changes_the_etag(api: Api) -> None:
    declared = await api.client.put(ACME, json={"strategy": "per_tenant"})
    seen = {"If-None-Match": declared.headers["etag"]}
    assert (await api.client.get(ACME, headers=seen)).status_code == 304
    ok(await api.client.post(f"{ACME}/provision"))
    assert ok(await api.client.get(ACME, headers=seen))["state"] == "provisioned"


async def test_a_list_that_changed_is_sent_again(api: Api) -> None:
    seen = {"If-None-Match": (await api.client.get("/v1/tenants")).headers["etag"]}
    assert (await api.client.get("/v1/tenants", headers=seen)).status_code == 304
    ok(await api.client.put(ACME, json={}), 201)
    assert len(ok(await api.client.get("/v1/tenants", headers=seen))["items"]) == 1


async def test_a_missing_resource_is_not_unmodified(api: Api) -> None:
    problem(await api.client.get(ACME, headers={"If-None-Match": "*"}), 404, "tenant-not-found")
