"""Keys and scopes: every operation requires them, and a bound key sees only its own tenants."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio
from starlette.routing import Route
from structlog.testing import capture_logs

from app.api.auth.api_key import new_token
from app.api.auth.authenticator import Authenticator, AuthFailure
from app.api.auth.key_file import KeyFile
from app.api.auth.rate_limits import RateLimits
from app.api.http.authentication import OPEN_PATHS, OPEN_PREFIXES
from app.api.http.sql_protocol import SQL_PATH
from app.domain.isolation_checks import AuditCheck, Finding, IsolationReport, Severity
from app.domain.tenant import TenantId
from app.main import create_app
from app.settings import Settings
from tests.catalog.values import recommendation
from tests.fixtures.app import Api, ok, problem, serving
from tests.fixtures.keys import Keyring, bearer
from tests.fixtures.openapi import committed
from tests.fixtures.postgres import Database, fresh_database
from tests.fixtures.roles import drop_roles
from tests.fixtures.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

SCOPES = ("read", "operate", "query", "admin")
ENOUGH = {
    "read": {"read", "operate", "admin"},
    "operate": {"operate", "admin"},
    "query": {"query"},
    "admin": {"admin"},
}
OPEN = {"get /livez", "get /readyz", "post /sql"}
FOR_AGENTS = {f"/v1/nodes/{{node}}/{each}" for each in ("session", "configuration", "reports")}
EVALUATE = "/v1/advisor/evaluate"
OF_WHOLE_SERVICE = {"get /metrics", "post /v1/pools/evict-expired", "put /v1/advisor"}


def operations() -> list[str]:
    paths = committed()["paths"]
    return sorted(f"{method} {path}" for path, methods in paths.items() for method in methods)


def scope_of(operation: str) -> str:
    """The scope that each operation should require, judged by its name alone."""
    method, path = operation.split(" ")
    if path == "/v1/keys" or "/credentials" in path:
        return "admin"
    if method == "get" or path == EVALUATE:
        return "read"
    if path.endswith("/query"):
        return "query"
    if "pool" in path or "recommendations" in path:
        return "operate"
    return "admin"


CLOSED = [operation for operation in operations() if operation not in OPEN]
OF_A_TENANT = [operation for operation in CLOSED if "{tenant}" in operation]
EACH = pytest.mark.parametrize("operation", CLOSED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Locked:
    """An application with keys."""

    api: Api
    keys: Keyring
    addresses: Iterator[int]

    async def send(
        self, operation: str, key: str | None = None, *, tenant: str = "absent", **more: Any
    ) -> httpx.Response:
        """Call an operation with a key, from an address that was never seen before."""
        method, path = operation.split(" ")
        names = {"tenant": tenant, "server": "local", "pool_id": tenant, "credential": "web"}
        url = path.format(**names, node="edge", id=uuid4())
        headers = more.pop("headers", self.keys.headers(key) if key else {})
        transport = httpx.ASGITransport(self.api.app, client=(f"client-{next(self.addresses)}", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, url, headers=headers, **more)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def locked(
    postgres_server: Database, catalog_template: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Locked]:
    """An application with two tenants that have a pool each, and one more in the shared pool."""
    directory = tmp_path_factory.mktemp("keys")
    keys = Keyring(directory / "keys.json")
    keys.make("everything")
    keys.make("bound", tenants=("mine", "mine-too", "not-yet"))
    for scope in SCOPES:
        keys.make(f"only-{scope}", scope)
        others = [other for other in SCOPES if other not in ENOUGH[scope]]
        keys.make(f"not-{scope}", *others)
    keys.make("expired", expires_at=datetime.now(UTC) - timedelta(seconds=1))
    async with (
        fresh_database(postgres_server, template="template1") as tenants,
        fresh_database(postgres_server, template=catalog_template) as catalog,
        serving(tenants, catalog, directory, keys_file=keys.path, rate_limit=0) as api,
    ):
        api.client.headers.update(keys.headers("everything"))
        for name, strategy in (
            ("mine", "per_tenant"),
            ("mine-too", "shared"),
            ("theirs", "per_tenant"),
            ("theirs-too", "shared"),
        ):
            assert await api.value(await api.tenant(name, strategy), "select 1") == 1
        for tenant in ("mine", "theirs"):
            await api.service.catalog.recommendations.add(recommendation(tenant))
        del api.client.headers["authorization"]
        yield Locked(api=api, keys=keys, addresses=count())
    await drop_roles(postgres_server)


# --- who comes in ----------------------------------------------------------------------------


@EACH
async def test_an_operation_needs_a_key(locked: Locked, operation: str) -> None:
    response = await locked.send(operation, content=b"{", headers={"Content-Type": "text/html"})
    problem(response, 401, "unauthenticated")
    assert response.headers["www-authenticate"] == "Bearer"


@EACH
async def test_an_operation_refuses_a_key_without_its_scope(locked: Locked, operation: str) -> None:
    scope = scope_of(operation)
    refused = problem(await locked.send(operation, f"not-{scope}"), 403, "missing-scope")
    assert refused["detail"] == f"The API key lacks the required scope {scope}."


@EACH
async def test_an_operation_accepts_its_scope_and_those_that_include_it(
    locked: Locked, operation: str
) -> None:
    for scope in ENOUGH[scope_of(operation)]:
        response = await locked.send(operation, f"only-{scope}", params={"dry_run": "true"})
        assert response.status_code not in (401, 403), response.text


@EACH
async def test_the_document_names_the_scope(operation: str) -> None:
    method, path = operation.split(" ")
    found = committed()["paths"][path][method]
    assert found["security"] == [{"key": [scope_of(operation)]}]
    assert f"Scope: `{scope_of(operation)}`." in found["description"]
    assert {"401", "403", "429"} <= found["responses"].keys()
    assert committed()["components"]["securitySchemes"]["key"]["scheme"] == "bearer"


async def test_every_route_outside_the_document_is_open_or_for_agents_of_nodes() -> None:
    app = create_app(Settings.model_construct())
    paths = {route.path.replace(":path", "") for route in app.routes if isinstance(route, Route)}
    listed = {operation.partition(" ")[2] for operation in CLOSED}
    assert listed < paths
    opened = OPEN_PATHS | {f"{folder}{{asset}}" for folder in OPEN_PREFIXES}
    # For the last one, the key is a password.
    assert paths - listed == opened | FOR_AGENTS | {SQL_PATH}


@pytest.mark.parametrize("path", sorted(FOR_AGENTS))
async def test_what_is_for_agents_needs_a_key_of_a_node(locked: Locked, path: str) -> None:
    method = "get" if path.endswith("/configuration") else "post"
    problem(await locked.send(f"{method} {path}"), 401, "unauthenticated")
    refused = problem(await locked.send(f"{method} {path}", "everything"), 403, "missing-scope")
    assert refused["detail"] == "The API key lacks the required scope node."


@pytest.mark.parametrize("path", sorted(OPEN_PATHS | {"/docs/docs.js", "/page/app.js"}))
async def test_what_is_open_needs_no_key_and_minds_no_wrong_one(locked: Locked, path: str) -> None:
    for headers in ({}, bearer("wrong")):
        response = await locked.send(f"get {path}", headers=headers)
        assert response.status_code in (200, 307)


async def test_every_request_without_a_valid_key_gets_the_same_response(locked: Locked) -> None:
    token = locked.keys.tokens["everything"]
    wrong = token[:-1] + ("0" if token[-1] != "0" else "1")
    shown = [
        bearer(wrong),
        bearer(new_token()),
        bearer(locked.keys.tokens["expired"]),
        bearer(token.upper()),
        bearer(token + " x"),
        bearer(""),
        {"Authorization": b"Bearer " + b"\xff" * 20},
        {"Authorization": f"Basic {token}"},
        {"Authorization": token},
        [*bearer(token).items(), *bearer(token).items()],
    ]
    found = []
    for headers in shown:
        response = await locked.send("get /v1/tenants", headers=headers)
        body = problem(response, 401, "unauthenticated")
        assert response.headers["www-authenticate"] == 'Bearer error="invalid_token"'
        found.append({**body, "request_id": ""})
    assert found == found[:1] * len(shown)


@pytest.mark.parametrize("name", ["access_token", "key", "api_key", "authorization", "token"])
async def test_a_key_in_the_query_or_a_cookie_is_no_key(locked: Locked, name: str) -> None:
    token = locked.keys.tokens["everything"]
    problem(await locked.send("get /v1/tenants", params={name: token}), 401, "unauthenticated")
    cookie = {"Cookie": f"{name}={token}"}
    problem(await locked.send("get /v1/tenants", headers=cookie), 401, "unauthenticated")


async def test_the_scheme_may_be_written_in_any_case(locked: Locked) -> None:
    headers = {"Authorization": f"bEaReR  {locked.keys.tokens['everything']}"}
    ok(await locked.send("get /v1/tenants", headers=headers))


async def test_a_revoked_key_is_refused_within_a_second(locked: Locked) -> None:
    locked.keys.make("leaver")

    async def is_let_in() -> bool:
        return (await locked.send("get /v1/tenants", "leaver")).status_code == 200

    async def is_refused() -> bool:
        return not await is_let_in()

    await eventually(is_let_in)
    locked.keys.revoke("leaver")
    await eventually(is_refused)


async def test_refusals_are_counted_and_logged_without_the_key(
    locked: Locked, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, stranger = locked.keys.tokens["not-admin"], new_token()
    guard = locked.api.app.state.authenticator
    monkeypatch.setattr(guard, "_limits", RateLimits(0))  # the log may have been full
    before = guard.failures.copy()
    with capture_logs() as logged:
        await locked.send("get /v1/tenants", headers=bearer(stranger))
        await locked.send("put /v1/tenants/{tenant}", "not-admin", json={})
    assert guard.failures - before == {AuthFailure.UNKNOWN: 1, AuthFailure.MISSING_SCOPE: 1}
    assert [found["reason"] for found in logged if "reason" in found] == [
        "unknown",
        "missing_scope",
    ]
    text = str(logged) + (await locked.send("get /metrics", "only-read")).text
    assert 'poolkeeper_auth_failures_total{reason="unknown"}' in text
    assert token not in text
    assert stranger not in text


async def test_what_is_done_is_done_in_the_keys_name(locked: Locked) -> None:
    ok(await locked.send("put /v1/tenants/{tenant}", "only-admin", tenant="named", json={}), 201)
    [body] = ok(await locked.send("get /v1/events?tenant=named", "only-read"))["items"]
    assert (body["actor"], body["action"]) == ("only-admin", "tenant.created")
    ok(await locked.send("delete /v1/tenants/{tenant}", "only-admin", tenant="named"))


async def test_readiness_shows_details_only_to_keys_that_can_read_everything(
    locked: Locked,
) -> None:
    for key, is_told in ((None, False), ("bound", False), ("not-read", False), ("only-read", True)):
        checks = ok(await locked.send("get /readyz", key))["checks"]
        assert [check["name"] for check in checks if check["detail"]] == (
            [check["name"] for check in checks] if is_told else []
        )


# --- keys that are bound to tenants ----------------------------------------------------------


@pytest.mark.parametrize("operation", OF_A_TENANT)
async def test_to_a_bound_key_other_tenants_are_none(locked: Locked, operation: str) -> None:
    found = []
    for tenant in ("theirs", "theirs-too", "absent"):
        response = await locked.send(operation, "bound", tenant=tenant)
        body = problem(response, 404, "tenant-not-found")
        found.append(str({**body, "request_id": ""}).replace(tenant, "?"))
    assert found == found[:1] * 3


async def test_an_unknown_tenant_looks_the_same_to_an_unbound_key(locked: Locked) -> None:
    details = [
        {**problem(response, 404, "tenant-not-found"), "request_id": ""}
        for response in (
            await locked.send("get /v1/tenants/{tenant}", "everything"),
            await locked.send("get /v1/tenants/{tenant}", "bound"),
        )
    ]
    assert details[0] == details[1]


@pytest.mark.parametrize(
    "path",
    [
        "/v1/tenants",
        "/v1/tenants?limit=1",
        "/v1/pools",
        "/v1/pools?sort=-size&limit=1",
        "/v1/servers",
        "/v1/servers/local",
        "/v1/stats",
        "/v1/stats?limit=1",
        "/v1/events",
        "/v1/events?limit=1",
        "/v1/refusals",
        "/v1/refusals?limit=1",
        "/v1/recommendations",
        "/v1/recommendations?limit=1",
    ],
)
async def test_a_list_shows_a_bound_key_only_what_it_can_access(locked: Locked, path: str) -> None:
    for tenant in ("mine", "theirs"):
        await locked.send("delete /v1/tenants/{tenant}", "only-read", tenant=tenant)
    seen = ""
    cursor: str | None = ""
    while cursor is not None:
        more = f"{'&' if '?' in path else '?'}cursor={cursor}" if cursor else ""
        page = ok(await locked.send(f"get {path}{more}", "bound"))
        cursor = page.get("next_cursor")
        seen += str(page)
    assert "theirs" not in seen
    assert "mine" in seen
    assert "theirs" in str(ok(await locked.send(f"get {path.partition('?')[0]}", "everything")))


async def test_a_bound_keys_sums_are_of_its_own_tenants(locked: Locked) -> None:
    everything = ok(await locked.send("get /v1/stats", "everything"))
    bound = ok(await locked.send("get /v1/stats", "bound"))
    assert (everything["tenants"], bound["tenants"]) == (4, 2)
    assert (everything["pools"]["open"], bound["pools"]["open"]) == (3, 2)
    acquired = [each["connections_acquired"] for each in bound["items"]]
    assert bound["totals"]["connections_acquired"] == sum(acquired) == 2
    assert everything["totals"]["connections_acquired"] == 4
    assert everything["evictions"]
    assert not bound["evictions"]


async def test_a_shared_pool_shows_a_bound_key_nothing_of_others(locked: Locked) -> None:
    url = "get /v1/tenants/{tenant}/pool"
    assert ok(await locked.send(url, "everything", tenant="mine-too"))["tenants"] == 2
    assert ok(await locked.send(url, "bound", tenant="mine-too"))["tenants"] == 1
    url, dry = "put /v1/tenants/{tenant}/pool", {"dry_run": "true"}
    body = ok(await locked.send(url, "bound", tenant="mine-too", params=dry))
    assert not body["warnings"]
    whole = {**dry, "scope": "pool"}
    body = ok(await locked.send(url, "everything", tenant="mine-too", params=whole))
    assert body["warnings"] == ["The pool is shared: this touches 2 tenants."]


async def test_a_finding_shows_a_bound_key_no_other_names(locked: Locked) -> None:
    state = locked.api.service.manager.tenants[TenantId("mine")]
    wrong = Finding(
        check=AuditCheck.MEMBERSHIPS, severity=Severity.CRITICAL, detail="of tenant_theirs"
    )
    before, state.isolation = (
        state.isolation,
        IsolationReport(
            checked_at=datetime.now(UTC), checked_at_monotonic=monotonic(), findings=(wrong,)
        ),
    )
    try:
        for key, detail in (("everything", "of tenant_theirs"), ("bound", None)):
            shown = ok(await locked.send("get /v1/tenants/{tenant}", key, tenant="mine"))
            [failed] = [check for check in shown["isolation"]["checks"] if not check["ok"]]
            assert (failed["name"], failed["detail"]) == ("memberships", detail)
    finally:
        state.isolation = before


@pytest.mark.parametrize(
    "operation", [each for each in OF_A_TENANT if "/pool" in each and not each.startswith("get")]
)
async def test_a_bound_key_changes_no_pool_that_serves_others(
    locked: Locked, operation: str
) -> None:
    params = {"scope": "pool", "dry_run": "true"}
    refused = await locked.send(operation, "bound", tenant="mine-too", params=params)
    problem(refused, 403, "bound-to-tenants")


async def test_a_bound_key_neither_sees_nor_closes_advice_for_others(locked: Locked) -> None:
    listed = ok(await locked.send("get /v1/recommendations", "everything"))["items"]
    ids = {each["tenant"]: each["id"] for each in listed}
    for verb in ("apply", "dismiss"):
        url = f"post /v1/recommendations/{ids['theirs']}/{verb}"
        problem(await locked.send(url, "bound"), 404, "recommendation-not-found")
    theirs = f"get /v1/recommendations/{ids['theirs']}"
    problem(await locked.send(theirs, "bound"), 404, "recommendation-not-found")
    ok(await locked.send(f"get /v1/recommendations/{ids['mine']}", "bound"))
    url = f"post /v1/recommendations/{ids['mine']}/dismiss?dry_run=true"
    ok(await locked.send(url, "bound"))


@pytest.mark.parametrize("operation", sorted(OF_WHOLE_SERVICE))
async def test_what_concerns_all_tenants_is_not_for_a_bound_key(
    locked: Locked, operation: str
) -> None:
    problem(await locked.send(operation, "bound", json={}), 403, "bound-to-tenants")


async def test_a_bound_key_declares_its_own_tenants(locked: Locked) -> None:
    url = "put /v1/tenants/{tenant}"
    ok(await locked.send(url, "bound", tenant="not-yet", json={}), 201)
    ok(await locked.send("delete /v1/tenants/{tenant}", "bound", tenant="not-yet"))


# --- without keys ----------------------------------------------------------------------------


async def test_without_keys_local_programs_have_full_access_until_the_first_key(
    tmp_path: Path,
) -> None:
    app = create_app(Settings.model_construct(data_dir=tmp_path))
    app.state.authenticator = Authenticator(
        KeyFile(tmp_path / "keys.json", required=False, clock=lambda: next(moments)), RateLimits(0)
    )
    moments = count(step=2)
    url = "http://localhost"
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=url) as client:
        for headers in ({}, bearer("whatever")):
            response = await client.post(EVALUATE, json={}, headers=headers)
            problem(response, 422, "validation-failed")
        keys = Keyring(tmp_path / "keys.json")
        response = await client.post(EVALUATE, json={})
        problem(response, 401, "unauthenticated")
        keys.make("first")
        response = await client.post(EVALUATE, json={}, headers=keys.headers("first"))
        problem(response, 422, "validation-failed")
