"""Credentials of applications over HTTP: a password is in one response, and nowhere else."""

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
import structlog
from httpx import AsyncClient, Response

from tests.fixtures.app import Api, ApiWith, ok, pointers, problem

ACME = "/v1/tenants/acme"
CREDENTIALS = f"{ACME}/credentials"
WEB = f"{CREDENTIALS}/web"
SHOWN = {"name", "user", "created_at", "expires_at", "expired", "last_used_at"}


@pytest.fixture
async def acme(api: Api) -> Api:
    """An application with a declared tenant."""
    ok(await api.client.put(ACME, json={"strategy": "per_tenant"}), 201)
    return api


async def create(api: Api, name: str = "web", **more: Any) -> Response:
    headers = more.pop("headers", {})
    body = {"name": name, **more}
    return await api.client.post(CREDENTIALS, json=body, headers=headers)


async def test_a_credential_is_created_shown_and_revoked(acme: Api) -> None:
    before = datetime.now(UTC)
    created = await create(acme)
    issued = ok(created, 201)
    assert (issued["name"], issued["user"]) == ("web", "acme.web")
    assert (issued["expires_at"], issued["expired"], issued["last_used_at"]) == (None, False, None)
    assert before <= datetime.fromisoformat(issued["created_at"]) <= datetime.now(UTC)
    url = urlsplit(issued["connection_string"])
    assert (url.scheme, url.username, url.path) == ("postgresql", "acme.web", "/acme")
    assert (url.password, url.hostname) == (issued["password"], "localhost")
    got = await acme.client.get(WEB)
    assert ok(got) == {key: issued[key] for key in SHOWN}
    assert got.headers["etag"] == created.headers["etag"]
    assert ok(await acme.client.get(CREDENTIALS)) == {"items": [got.json()], "next_cursor": None}
    assert ok(await acme.client.delete(WEB)) == got.json()
    assert acme.service.credentials.find("acme.web") is None
    problem(await acme.client.get(WEB), 404, "credential-not-found")
    problem(await acme.client.delete(WEB), 404, "credential-not-found")


async def test_its_last_use_is_shown(acme: Api) -> None:
    tag = (await create(acme)).headers["etag"]
    credentials = acme.service.credentials
    found = credentials.find("acme.web")
    assert found is not None
    credentials.used(found)
    shown = await acme.client.get(WEB)
    assert datetime.fromisoformat(ok(shown)["last_used_at"]) <= datetime.now(UTC)
    # The number is live; the declaration is unchanged.
    assert shown.headers["etag"] == tag


async def test_the_password_is_in_no_other_response(acme: Api) -> None:
    with structlog.testing.capture_logs() as logged:
        issued = ok(await create(acme), 201)
        problem(await create(acme), 409, "credential-exists")
        others = [
            await acme.client.get(url)
            for url in (WEB, CREDENTIALS, ACME, "/v1/events", "/v1/refusals", "/v1/tenants")
        ]
        others.append(await acme.client.delete(WEB))
    for other in others:
        ok(other)
        assert issued["password"] not in other.text
        assert "SCRAM" not in other.text
    assert "credential.revoked" in str(logged)
    assert issued["password"] not in str(logged)


async def test_each_password_is_another_one(acme: Api) -> None:
    passwords = {ok(await create(acme, name), 201)["password"] for name in ("a", "b", "c")}
    assert len(passwords) == 3
    assert {len(each) for each in passwords} == {43}


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ({}, "/body/name"),
        ({"name": ""}, "/body/name"),
        ({"name": "Web"}, "/body/name"),
        ({"name": "a.b"}, "/body/name"),
        ({"name": "x" * 49}, "/body/name"),
        ({"name": "web", "password": "secret"}, "/body/password"),
        ({"name": "web", "expires_at": "2020-01-01T00:00:00Z"}, "/body/expires_at"),
        ({"name": "web", "expires_at": "2090-01-01T00:00:00"}, "/body/expires_at"),
        ({"name": "web", "expires_at": "2090-01-01"}, "/body/expires_at"),
        ({"name": "web", "expires_at": 3_800_000_000}, "/body/expires_at"),
        ({"name": "web", "expires_at": "2100-01-01T00:00:00Z"}, "/body/expires_at"),
    ],
)
async def test_an_invalid_credential_is_refused_with_its_place(
    unstarted: AsyncClient, body: dict[str, Any], wrong: str
) -> None:
    assert pointers(await unstarted.post(CREDENTIALS, json=body)) == [wrong]


async def test_an_expiry_is_in_any_time_zone(acme: Api) -> None:
    later = datetime.now(UTC) + timedelta(days=90)
    issued = ok(await create(acme, expires_at=later.isoformat()), 201)
    assert datetime.fromisoformat(issued["expires_at"]) == later
    there = (later.replace(microsecond=0) + timedelta(hours=2)).isoformat()
    issued = ok(await create(acme, "jobs", expires_at=there.replace("+00:00", "+02:00")), 201)
    assert datetime.fromisoformat(issued["expires_at"]) == later.replace(microsecond=0)


async def test_a_shared_tenant_has_none_and_the_response_says_why(api: Api) -> None:
    ok(await api.client.put(ACME, json={"strategy": "shared"}), 201)
    refused = problem(await create(api), 409, "strategy-not-on-nodes")
    assert "Use the strategy per_tenant or per_database." in refused["detail"]
    assert ok(await api.client.get(CREDENTIALS))["items"] == []


async def test_a_tenant_that_does_not_exist_has_none(api: Api) -> None:
    for response in (
        await create(api),
        await api.client.get(CREDENTIALS),
        await api.client.get(WEB),
        await api.client.delete(WEB),
    ):
        problem(response, 404, "tenant-not-found")


async def test_only_the_version_that_one_saw_is_revoked(acme: Api) -> None:
    first = {"If-Match": (await create(acme)).headers["etag"]}
    ok(await acme.client.delete(WEB, headers=first))
    second = {"If-Match": (await create(acme)).headers["etag"]}
    problem(await acme.client.delete(WEB, headers=first), 412, "stale-version")
    ok(await acme.client.get(WEB))
    ok(await acme.client.delete(WEB, headers=second))


async def test_where_versions_are_required_a_revocation_names_one(api_with: ApiWith) -> None:
    async with api_with(require_if_match=True) as api:
        ok(await api.client.put(ACME, json={"strategy": "per_tenant"}), 201)
        ok(await create(api), 201)
        problem(await api.client.delete(WEB), 428, "precondition-required")
        ok(await api.client.delete(WEB, headers={"If-Match": "*"}))


async def test_the_list_is_paged_by_name(acme: Api) -> None:
    for name in ("c", "a", "b"):
        ok(await create(acme, name), 201)
    page = ok(await acme.client.get(f"{CREDENTIALS}?limit=2"))
    assert [each["name"] for each in page["items"]] == ["a", "b"]
    rest = ok(await acme.client.get(f"{CREDENTIALS}?cursor={page['next_cursor']}"))
    assert ([each["name"] for each in rest["items"]], rest["next_cursor"]) == (["c"], None)


async def test_a_dry_run_makes_no_password(acme: Api) -> None:
    body = {"name": "web", "expires_at": "2090-01-01T00:00:00Z"}
    plan = ok(await acme.client.post(f"{CREDENTIALS}?dry_run=true", json=body))
    assert plan["plan"] == [
        {
            "action": "record",
            "target": "credential acme.web",
            "before": None,
            "after": {"user": "acme.web", "expires_at": "2090-01-01T00:00:00+00:00"},
        }
    ]
    ok(await create(acme), 201)
    [step] = ok(await acme.client.delete(f"{WEB}?dry_run=true"))["plan"]
    assert (step["action"], step["target"]) == ("forget", "credential acme.web")


async def test_a_repeated_creation_neither_repeats_nor_reveals(acme: Api) -> None:
    key = {"Idempotency-Key": "deploy-417"}
    issued = ok(await create(acme, headers=key), 201)
    again = await create(acme, headers=key)
    problem(again, 409, "replay-holds-secret")
    assert issued["password"] not in again.text
    # A response without effect has no secret: it is replayed as usual.
    key = {"Idempotency-Key": "deploy-418"}
    for is_replayed in (False, True):
        refused = await create(acme, headers=key)
        assert (refused.status_code, refused.json()["code"]) == (409, "credential-exists")
        assert ("idempotency-replayed" in refused.headers) is is_replayed
    assert len(ok(await acme.client.get(CREDENTIALS))["items"]) == 1
