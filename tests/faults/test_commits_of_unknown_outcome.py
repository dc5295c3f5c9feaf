"""The catalog stores a change, and its response is lost: the service learns what was stored."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.catalog import in_doubt_writes
from tests.fixtures.app import Api, ok, problem, serving
from tests.fixtures.postgres import Database
from tests.fixtures.proxy import FaultProxy

pytestmark = pytest.mark.usefixtures("scrub_roles")

SPEC = {"strategy": "per_tenant"}


@pytest.fixture
async def api(
    database: Database,
    catalog_database: Database,
    fault_proxy: FaultProxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Api]:
    """The application, whose catalog is behind a proxy; its clients repeat nothing."""
    monkeypatch.setattr(in_doubt_writes, "REPEATED_WITHIN", 0.0)
    async with serving(database, replace(catalog_database, port=fault_proxy.port), tmp_path) as api:
        yield api


async def losing_the_response(
    api: Api, proxy: FaultProxy, method: str, url: str, **request: Any
) -> None:
    """Send a request whose commit is not confirmed; the catalog works again afterwards."""
    proxy.ends_after = b"COMMI"
    problem(await api.client.request(method, url, **request), 503, "catalog-unavailable")
    proxy.ends_after = b""
    await api.service.reconciler.run_once()


@pytest.mark.parametrize(
    ("path", "stored", "later"),
    [
        ("", {**SPEC, "weight": 5}, {**SPEC, "weight": 6}),
        ("/pool", {"max_size": 6}, {"max_size": 7}),
    ],
)
async def test_a_change_that_was_stored_is_shown_and_the_next_one_can_follow(
    api: Api, fault_proxy: FaultProxy, path: str, stored: dict[str, Any], later: dict[str, Any]
) -> None:
    url = await api.tenant("acme") + path
    if path:
        ok(await api.client.put(url, json={"max_size": 4}), 201)
    await losing_the_response(api, fault_proxy, "PUT", url, json=stored)
    shown = await api.client.get(url)
    assert stored.items() <= {**shown.json(), **shown.json().get("desired", {})}.items()
    change = {"If-Match": shown.headers["etag"]}
    assert (await api.client.put(url, json=later, headers=change)).status_code == 200


async def test_so_are_a_node_and_the_settings_of_the_advisor(
    api: Api, fault_proxy: FaultProxy
) -> None:
    for url, before, stored, later in (
        ("/v1/nodes/edge", {}, {"labels": {"zone": "a"}}, {"labels": {"zone": "b"}}),
        ("/v1/advisor", {"mode": "off"}, {"mode": "recommend"}, {"mode": "off"}),
    ):
        (await api.client.put(url, json=before)).raise_for_status()
        await losing_the_response(api, fault_proxy, "PUT", url, json=stored)
        shown = await api.client.get(url)
        assert stored.items() <= shown.json().items()
        change = {"If-Match": shown.headers["etag"]}
        assert (await api.client.put(url, json=later, headers=change)).status_code == 200


async def test_a_node_that_was_deleted_is_gone(api: Api, fault_proxy: FaultProxy) -> None:
    for name in ("edge", "other"):
        ok(await api.client.put(f"/v1/nodes/{name}", json={}), 201)
    await losing_the_response(api, fault_proxy, "DELETE", "/v1/nodes/edge")
    assert [each["name"] for each in ok(await api.client.get("/v1/nodes"))["items"]] == ["other"]


async def test_a_credential_that_was_revoked_is_refused(api: Api, fault_proxy: FaultProxy) -> None:
    url = await api.tenant("acme") + "/credentials"
    for name in ("jobs", "web"):
        ok(await api.client.post(url, json={"name": name}), 201)
    await losing_the_response(api, fault_proxy, "DELETE", f"{url}/web")
    assert api.service.credentials.find("acme.web") is None
    assert [each["name"] for each in ok(await api.client.get(url))["items"]] == ["jobs"]


async def test_a_tenant_that_was_created_is_there(api: Api, fault_proxy: FaultProxy) -> None:
    await losing_the_response(api, fault_proxy, "PUT", "/v1/tenants/acme", json=SPEC)
    ok(await api.client.get("/v1/tenants/acme"))


async def test_a_deletion_that_was_begun_is_finished(api: Api, fault_proxy: FaultProxy) -> None:
    url = await api.tenant("acme")
    assert await api.value(url, "SELECT 42") == 42
    await losing_the_response(api, fault_proxy, "DELETE", url)
    problem(await api.client.get(url), 404, "tenant-not-found")
    assert api.service.manager.find("acme") is None


async def test_what_failed_before_its_commit_was_not_stored_and_is_not_read(
    api: Api, fault_proxy: FaultProxy
) -> None:
    """A long outage would otherwise leave a read for each thing that somebody tried to create."""
    fault_proxy.ends_after = b"INSERT 0"
    url = "/v1/tenants/acme"
    problem(await api.client.put(url, json=SPEC), 503, "catalog-unavailable")
    fault_proxy.ends_after = b""
    assert api.service.catalog.tenants.in_doubt == ()
