"""Why a request was refused: in the log, and over HTTP."""

from pathlib import Path

from structlog.testing import capture_logs

from tests.fixtures.app import Api, ApiWith, ok, pointers, problem
from tests.fixtures.keys import Keyring

URL = "/v1/refusals"


async def test_a_timeout_is_logged_and_listed_with_its_request_id(api_with: ApiWith) -> None:
    async with api_with(acquire_timeout_seconds=0.05, per_tenant_pool_size=1) as api:
        url = await api.tenant("acme")
        async with api.service.manager.lease("acme", timeout=60):
            with capture_logs() as logged:
                refused = problem(await api.query(url, "select 1"), 503, "pool-timeout")
        [line] = [each for each in logged if each["event"] == "request refused"]
        assert (line["tenant"], line["code"]) == ("acme", "pool-timeout")
        listed = ok(await api.client.get(f"{URL}?request_id={refused['request_id']}"))["items"]
        expected = {
            "tenant": "acme",
            "actor": "api",
            "method": "POST",
            "path": f"{url}/query",
            "status": 503,
            "code": "pool-timeout",
            "detail": refused["detail"],
            "request_id": refused["request_id"],
        }
        assert [{key: each[key] for key in expected} for each in listed] == [expected]


async def test_refusals_can_be_filtered_and_paged(api: Api) -> None:
    url = await api.tenant("acme")
    beta = await api.tenant("beta")
    for _ in range(3):
        problem(await api.client.delete(f"{url}/pool"), 404, "pool-not-found")
    problem(await api.client.put(f"{beta}/pool", json={"min_size": 9}), 422, "invalid-input")
    problem(await api.client.delete("/v1/tenants/nobody"), 404, "tenant-not-found")
    items = ok(await api.client.get(URL))["items"]
    assert [(each["tenant"], each["code"]) for each in items] == [
        (None, "tenant-not-found"),
        ("beta", "invalid-input"),
        *[("acme", "pool-not-found")] * 3,
    ]
    acme = ok(await api.client.get(f"{URL}?tenant=acme&limit=2"))
    rest = ok(await api.client.get(f"{URL}?tenant=acme&limit=2&cursor={acme['next_cursor']}"))
    ids = [each["id"] for each in acme["items"] + rest["items"]]
    assert ids == [each["id"] for each in items[2:]]
    assert rest["next_cursor"] is None
    found = ok(await api.client.get(f"{URL}?code=invalid-input"))["items"]
    assert [each["tenant"] for each in found] == ["beta"]
    for query, place in [
        ("tenant=A", "tenant"),
        ("code=A", "code"),
        ("request_id=%00", "request_id"),
    ]:
        assert pointers(await api.client.get(f"{URL}?{query}")) == [f"/query/{place}"]


async def test_what_is_wrong_with_an_invalid_request_is_kept(api: Api) -> None:
    url = await api.tenant("acme")
    body = {"min_size": "many", "size": 3}
    problem(await api.client.put(f"{url}/pool", json=body), 422, "validation-failed")
    [listed] = ok(await api.client.get(URL))["items"]
    why = "/body/min_size: Must be a whole number. And 1 more."
    assert listed["detail"] == f"The request does not match its schema. {why}"


async def test_data_in_a_failed_statement_is_not_kept(api: Api) -> None:
    url = await api.tenant("acme")
    with capture_logs() as logged:
        failed = problem(await api.query(url, "select 'secret'::int"), 422, "statement-failed")
    assert "secret" in failed["detail"]
    [listed] = ok(await api.client.get(URL))["items"]
    assert listed["detail"] == "SQLSTATE 22P02"
    assert "secret" not in str(logged)


async def test_a_look_that_finds_nothing_or_what_exists_is_no_refusal(api: Api) -> None:
    url = await api.tenant("acme")
    problem(await api.query(url, "select 1 / 0"), 422, "statement-failed")
    with capture_logs() as logged:
        problem(await api.client.get(f"{url}/credentials/web"), 404, "credential-not-found")
        problem(await api.client.get("/v1/tenants/nobody"), 404, "tenant-not-found")
        problem(await api.client.get("/v1/nothing"), 404, "not-found")
        unless = {"If-None-Match": "*"}
        again = await api.client.put(url, json={"strategy": "per_tenant"}, headers=unless)
        problem(again, 412, "stale-version")
    assert [each for each in logged if each["event"] == "request refused"] == []
    listed = ok(await api.client.get(URL))["items"]
    assert [each["code"] for each in listed] == ["statement-failed"]


async def test_what_a_dry_run_finds_is_no_refusal(api: Api) -> None:
    pool = "/v1/tenants/acme/pool"
    found = await api.client.put(f"{pool}?dry_run=true", json={"max_size": 3})
    problem(found, 404, "tenant-not-found")
    assert ok(await api.client.get(URL))["items"] == []
    problem(await api.client.put(pool, json={"max_size": 3}), 404, "tenant-not-found")
    assert len(ok(await api.client.get(URL))["items"]) == 1


async def test_a_key_of_one_tenant_leaves_nothing_in_the_list_of_another(
    api_with: ApiWith, tmp_path: Path
) -> None:
    keys = Keyring(tmp_path / "keys.json")
    keys.make("all")
    keys.make("mallory", "query", tenants=("acme",))
    async with api_with(keys_file=keys.path) as api:
        api.client.headers.update(keys.headers("all"))
        url = await api.tenant("beta")
        problem(await api.client.delete(f"{url}/pool"), 404, "pool-not-found")
        for _ in range(60):
            refused = await api.client.post(
                f"{url}/query", json={"sql": "select 1"}, headers=keys.headers("mallory")
            )
            problem(refused, 404, "tenant-not-found")
        [of_beta] = ok(await api.client.get(f"{URL}?tenant=beta"))["items"]
        assert of_beta["code"] == "pool-not-found"
        latest = ok(await api.client.get(f"{URL}?limit=1"))["items"][0]
    assert (latest["tenant"], latest["actor"], latest["path"]) == (None, "mallory", f"{url}/query")
