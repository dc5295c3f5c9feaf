"""Idempotency-Key: an action that is sent twice is done once, and gets the same answer twice."""

import asyncio
from collections import Counter
from dataclasses import replace
from uuid import uuid4

import pytest
from httpx import Response

from app.api.auth.principal import Principal
from app.api.http import idempotency
from app.domain.errors import IdempotencyKeyReused, ReplayHoldsSecret
from tests.fixtures.app import Api, ok, problem
from tests.fixtures.pools import pool_of

AS_JSON = {"Content-Type": "application/json"}
REPLAYED = "idempotency-replayed"


ALICE: idempotency.Owner = ("alice", None)
BOB: idempotency.Owner = ("bob", None)


def keyed(key: str = "k") -> dict[str, str]:
    return {"Idempotency-Key": key}


@pytest.fixture
async def url(api: Api) -> str:
    """A tenant with an open pool."""
    url = await api.tenant("acme")
    ok(await api.client.put(f"{url}/pool", json={}), 201)
    return url


async def actions(api: Api) -> Counter[str]:
    """The audit trail, by action."""
    events = ok(await api.client.get("/v1/events?limit=500"))["items"]
    return Counter(event["action"] for event in events)


def same(first: Response, second: Response) -> None:
    assert second.headers[REPLAYED] == "true"
    assert REPLAYED not in first.headers
    assert (second.status_code, second.content) == (first.status_code, first.content)
    for header in ("content-type", "etag"):
        assert second.headers.get(header) == first.headers.get(header)


ACTIONS = [
    ("POST", "/provision", "tenant.provisioned"),
    ("POST", "/pool/recycle", "pool.recycled"),
    ("POST", "/pool/check", "pool.checked"),
    ("POST", "/rotate-credentials", "tenant.credentials_rotated"),
    ("POST", "/pool/pause", "pool.paused"),
    ("POST", "/pool/resume", "pool.resumed"),
    ("DELETE", "/pool", "pool.evicted"),
    ("DELETE", "", "tenant.deleted"),
]


async def test_an_action_sent_twice_is_done_once(api: Api, url: str) -> None:
    for method, path, _ in ACTIONS:
        key = keyed(f"{method}{path}")
        first = await api.client.request(method, url + path, headers=key)
        assert first.is_success, first.text
        same(first, await api.client.request(method, url + path, headers=key))
    done = await actions(api)
    assert [done[action] for _, _, action in ACTIONS] == [1] * len(ACTIONS)


async def test_a_row_is_inserted_once(api: Api, url: str) -> None:
    ok(await api.query(url, "create table note (text text)", read_only=False))
    body = {"sql": "insert into note values ('x')", "read_only": False}
    for _ in range(3):
        ok(await api.client.post(f"{url}/query", json=body, headers=keyed()))
    assert await api.value(url, "select count(*) from note") == 1


async def test_fifty_at_once_are_one(api: Api, url: str) -> None:
    async def check() -> Response:
        return await api.client.post(f"{url}/pool/check", headers=keyed())

    answers = await asyncio.gather(*(check() for _ in range(50)))
    for response in answers:
        if response.status_code != 200:
            problem(response, 409, "idempotency-key-in-flight")
    assert (await actions(api))["pool.checked"] == 1
    assert (await check()).headers[REPLAYED] == "true"


async def test_a_key_is_of_one_request(api: Api, url: str) -> None:
    sql = {"sql": "select 1", "max_rows": 1}
    ok(await api.client.post(f"{url}/query", json=sql, headers=keyed()))
    spaced = b'{ "max_rows": 1, "sql": "select \\u0031" }'
    again = await api.client.post(f"{url}/query", content=spaced, headers={**keyed(), **AS_JSON})
    assert again.headers[REPLAYED] == "true"
    for other in (
        api.client.post(f"{url}/query", json={"sql": "select 2"}, headers=keyed()),
        api.client.post(f"{url}/query?dry_run=true", json=sql, headers=keyed()),
        api.client.post(f"{url}/pool/check", headers=keyed()),
        api.client.delete(f"{url}/pool", headers=keyed()),
    ):
        problem(await other, 422, "idempotency-key-reused")


async def test_what_cannot_be_done_stays_so_for_its_key(api: Api, url: str) -> None:
    missing = f"/v1/recommendations/{uuid4()}/apply"
    first = await api.client.post(missing, headers=keyed())
    problem(first, 404, "recommendation-not-found")
    same(first, await api.client.post(missing, headers=keyed()))


async def test_a_refused_request_can_be_corrected(api: Api, url: str) -> None:
    for body, status in (
        ({"sql": ""}, 422),
        ({"sql": "nonsense"}, 422),
        ({"sql": "select 1"}, 200),
    ):
        response = await api.client.post(f"{url}/query", json=body, headers=keyed())
        assert (response.status_code, response.headers.get(REPLAYED)) == (status, None)


async def test_a_failed_request_can_be_retried(api: Api, url: str) -> None:
    ok(await api.client.post(f"{url}/pool/pause"))
    body = {"sql": "select 1"}
    pool = pool_of(api.service.manager, "acme")
    usual, pool.config = pool.config, replace(pool.config, max_waiting=0)
    refused = await api.client.post(f"{url}/query", json=body, headers=keyed())
    problem(refused, 503, "pool-saturated")
    pool.config = usual
    ok(await api.client.post(f"{url}/pool/resume"))
    response = await api.client.post(f"{url}/query", json=body, headers=keyed())
    assert (response.status_code, response.headers.get(REPLAYED)) == (200, None)


async def test_a_dry_run_uses_up_no_key(api: Api, url: str) -> None:
    ok(await api.client.post(f"{url}/pool/recycle?dry_run=true", headers=keyed()))
    done = await api.client.post(f"{url}/pool/recycle", headers=keyed())
    assert REPLAYED not in done.headers
    assert (await actions(api))["pool.recycled"] == 1


async def test_a_response_too_large_to_store_is_not_made_again(api: Api, url: str) -> None:
    sql = {"sql": f"select repeat('x', {idempotency.MAX_BODY_BYTES})"}
    ok(await api.client.post(f"{url}/query", json=sql, headers=keyed()))
    again = await api.client.post(f"{url}/query", json=sql, headers=keyed())
    problem(again, 409, "replay-too-large")


async def test_a_long_request_is_the_same_if_its_bytes_are(api: Api, url: str) -> None:
    body = b'{"sql": "select $1::text", "params": ["%b"]}' % (b"x" * idempotency.MAX_BODY_BYTES)
    headers = {**keyed(), **AS_JSON}
    ok(await api.client.post(f"{url}/query", content=body, headers=headers))
    again = await api.client.post(f"{url}/query", content=body, headers=headers)
    problem(again, 409, "replay-too-large")
    spaced = await api.client.post(f"{url}/query", content=body + b" ", headers=headers)
    problem(spaced, 422, "idempotency-key-reused")


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "é", "a\tb"])
async def test_an_invalid_key_is_refused(api: Api, key: str) -> None:
    sent = [(b"Idempotency-Key", key.encode("latin-1"))]
    response = await api.client.post("/v1/tenants/acme/pool/check", headers=sent)
    problem(response, 400, "bad-idempotency-key")


async def test_two_keys_are_none(api: Api) -> None:
    twice = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    response = await api.client.post("/v1/tenants/acme/pool/check", headers=twice)
    problem(response, 400, "bad-idempotency-key")


@pytest.mark.parametrize("sent", [["a b"], ["a", "b"]], ids=["invalid", "two"])
async def test_a_key_that_has_no_effect_is_ignored(api: Api, url: str, sent: list[str]) -> None:
    headers = [("Idempotency-Key", key) for key in sent]
    for path in ("/livez", "/readyz", "/metrics", "/openapi.json", "/v1/tenants", url, "/"):
        assert (await api.client.get(path, headers=headers)).status_code == 200
    assert (await api.client.head("/livez", headers=headers)).status_code == 200
    ok(await api.client.put(url, json={"strategy": "per_tenant"}, headers=headers))


async def test_what_is_read_or_declared_needs_no_key(api: Api, url: str) -> None:
    for _ in range(2):
        for response in (
            await api.client.get(url, headers=keyed()),
            await api.client.put(url, json={"strategy": "per_tenant"}, headers=keyed()),
        ):
            assert REPLAYED not in response.headers


def test_keys_of_two_callers_never_meet() -> None:
    answers = idempotency.ResponseStore()
    answers.begin(ALICE, "k", b"1")
    answers.end(ALICE, "k", idempotency.StoredResponse(200, {}, b"alice's"))
    assert answers.begin(BOB, "k", b"2") is None


def test_the_memory_is_bounded_and_what_is_under_way_is_never_forgotten() -> None:
    answers = idempotency.ResponseStore()
    answers.begin(ALICE, "first", b"1")
    for number in range(idempotency.MAX_KEYS * 2):
        answers.begin(ALICE, f"k{number}", b"1")
        answers.end(ALICE, f"k{number}", idempotency.StoredResponse(200, {}, b""))
    kept = answers.by_owner[ALICE]
    assert len(kept) <= idempotency.MAX_KEYS
    assert "first" in kept
    assert "k0" not in kept


def test_after_a_day_a_key_is_new_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = idempotency.ResponseStore()
    now = 1000.0
    monkeypatch.setattr(idempotency, "monotonic", lambda: now)
    answers.begin(ALICE, "k", b"1")
    answers.end(ALICE, "k", idempotency.StoredResponse(200, {}, b""))
    now += idempotency.RETENTION_SECONDS - 1
    assert answers.begin(ALICE, "k", b"1") is not None
    now += 2
    assert answers.begin(ALICE, "k", b"2") is None


def test_a_rebound_key_gets_no_earlier_response() -> None:
    store = idempotency.ResponseStore()

    def ask(tenants: frozenset[str] | None) -> None:
        caller = Principal(name="k", scopes=frozenset(), tenants=tenants, key_id="k")
        scope = {"type": "http", "method": "POST", "state": {"principal": caller}}
        reservation = idempotency.reservation_for(store, scope, {b"idempotency-key": ["k"]})
        assert isinstance(reservation, idempotency.KeyReservation)
        reservation.begin(b"1")
        reservation.record({"type": "http.response.start", "status": 200, "headers": []})
        reservation.end()

    ask(None)
    ask(frozenset({"acme"}))
    with pytest.raises(idempotency.ResponseReplayed):
        ask(None)


def test_a_response_with_a_password_is_not_stored_and_a_refusal_is() -> None:
    store = idempotency.ResponseStore()
    caller = Principal(name="k", scopes=frozenset(), tenants=None, key_id="k")
    scope = {"type": "http", "method": "POST", "state": {"principal": caller}}

    def respond(key: str, status: int) -> idempotency.KeyReservation:
        found = idempotency.reservation_for(store, scope, {b"idempotency-key": [key]})
        assert isinstance(found, idempotency.KeyReservation)
        found.begin(b"1")
        found.has_secret = True
        found.record({"type": "http.response.start", "status": status, "headers": []})
        for part in (b"pass", b"word"):
            found.record({"type": "http.response.body", "body": part})
        found.end()
        return found

    created, refused = respond("created", 201), respond("refused", 409)
    with pytest.raises(ReplayHoldsSecret):
        created.begin(b"1")
    with pytest.raises(IdempotencyKeyReused):
        created.begin(b"2")
    with pytest.raises(idempotency.ResponseReplayed):
        refused.begin(b"1")
    stored = [each.response for each in store.by_owner["k", None].values()]
    assert [each and each.body for each in stored] == [None, b"password"]


def test_all_stored_responses_together_are_bounded() -> None:
    answers = idempotency.ResponseStore()
    most = idempotency.MAX_TOTAL_BYTES // idempotency.MAX_BODY_BYTES
    body = bytes(idempotency.MAX_BODY_BYTES)  # one object: the test takes no memory
    owners = [(f"caller-{number}", None) for number in range(most + 1)]
    answers.begin(ALICE, "under way", b"1")
    for owner in owners:
        answers.begin(owner, "k", b"1")
        answers.end(owner, "k", idempotency.StoredResponse(200, {}, body))
    assert answers.begin(owners[0], "k", b"1") is None
    for owner in owners[1:]:
        assert answers.begin(owner, "k", b"1") is not None
    assert "under way" in answers.by_owner[ALICE]


def test_a_caller_with_many_long_responses_costs_no_other_one_theirs() -> None:
    answers = idempotency.ResponseStore()
    body = bytes(idempotency.MAX_BODY_BYTES)
    answers.begin(ALICE, "k", b"1")
    answers.end(ALICE, "k", idempotency.StoredResponse(200, {}, b"done"))
    for number in range(idempotency.MAX_KEYS):
        for owner in (BOB, ("mallory", None)):
            answers.begin(owner, f"k{number}", b"1")
            answers.end(owner, f"k{number}", idempotency.StoredResponse(200, {}, body))
    assert answers.begin(ALICE, "k", b"1") is not None
    assert answers.begin(BOB, f"k{idempotency.MAX_KEYS - 1}", b"1") is not None
    stored = [each.response for kept in answers.by_owner.values() for each in kept.values()]
    size = sum(len(each.body or b"") for each in stored if each is not None)
    assert size <= idempotency.MAX_TOTAL_BYTES
