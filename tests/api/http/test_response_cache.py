"""Cached responses: rendered once for all who can see the same, and bounded."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from app.api.http.response_cache import MAX_BYTES, CachedResponse, CacheKey, ResponseCache
from app.control.monitoring.snapshot import Snapshot
from app.domain.tenant import TenantId
from tests.fixtures.app import Api, ApiWith, ok
from tests.fixtures.keys import Keyring
from tests.fixtures.waiting import eventually


async def taken(api: Api) -> Snapshot:
    """A new snapshot."""
    api.service.snapshots.invalidate()
    return await api.service.snapshots.current()


async def test_answers_are_never_those_for_another_key(api_with: ApiWith, tmp_path: Path) -> None:
    keys = Keyring(tmp_path / "keys.json")
    keys.make("all")
    keys.make("bound", "read", tenants=("acme",))
    keys.make("query", "query")
    async with api_with(keys_file=keys.path, rate_limit=0) as api:
        api.client.headers.update(keys.headers("all"))
        for name in ("acme", "globex"):
            await api.value(await api.tenant(name), "SELECT 1")
        for path in ("/v1/stats?fields=tenant", "/v1/pools?fields=tenant"):
            for key, seen in (("all", ["acme", "globex"]), ("bound", ["acme"])) * 2:
                response = await api.client.get(path, headers=keys.headers(key))
                assert [item["tenant"] for item in ok(response)["items"]] == seen
                refused = await api.client.get(path, headers=keys.headers("query"))
                assert refused.status_code == 403


async def test_of_many_dashboards_that_wait_for_a_snapshot_one_has_it_rendered(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = (
        *("/v1/stats", "/v1/stats?limit=7", "/v1/pools", "/v1/pools?fields=tenant"),
        # Rendered in several turns of the event loop.
        "/v1/findings",
    )
    await api.client.put("/v1/tenants/acme", json={})
    acme = api.service.manager.tenants.state("acme").tenant
    for number in range(1_000):
        spec = replace(acme.spec, id=TenantId(f"t{number:03}"))
        api.service.manager.put_tenant(replace(acme, spec=spec))
    cache: ResponseCache = api.app.state.response_cache
    rendered: list[tuple[int, CacheKey]] = []

    def store(snapshot: Snapshot, key: CacheKey, response: CachedResponse) -> None:
        rendered.append((snapshot.sequence, key))
        stored(snapshot, key, response)

    stored = cache._store
    monkeypatch.setattr(cache, "_store", store)

    async def all_are_stored() -> bool:
        for path in paths:
            ok(await api.client.get(path))
        # On a slow machine the last one may be from a newer snapshot than the first.
        return len(cache._responses) == len(paths)

    await eventually(all_are_stored)
    rendered.clear()
    api.service.snapshots.invalidate()
    same_together = sorted(paths * 20)
    for response in await asyncio.gather(*(api.client.get(path) for path in same_together)):
        ok(response)
    # On a slow machine several snapshots may have been taken.
    assert len(rendered) == len(set(rendered))
    assert sorted({key[:2] for _, key in rendered}) == [
        ("/v1/findings", b""),
        ("/v1/pools", b""),
        ("/v1/pools", b"fields=tenant"),
        ("/v1/stats", b""),
        ("/v1/stats", b"limit=7"),
    ]


async def test_the_cache_is_bounded_and_holds_one_snapshots_responses(api: Api) -> None:
    cache, snapshot = ResponseCache(api.service.snapshots, stale_after=60), await taken(api)
    for number in range(20):
        response = CachedResponse(b"x" * (MAX_BYTES // 16))
        cache._store(snapshot, ("/", str(number).encode(), None), response)
    assert len(cache._responses) == 8
    cache._store(await taken(api), ("/", b"", None), CachedResponse(b"y"))
    assert list(cache._responses) == [("/", b"", None)]


async def test_who_leaves_while_their_list_is_rendered_keeps_no_other_waiting(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = api.app.state.readiness
    is_rendering = asyncio.Event()

    async def hang(*_: object) -> None:
        is_rendering.set()
        await asyncio.Event().wait()

    async with asyncio.timeout(180):
        with monkeypatch.context() as patched:
            patched.setattr(type(checks), "run", hang)
            leaves = asyncio.create_task(api.client.get("/v1/findings"))
            await is_rendering.wait()
        waits = asyncio.create_task(api.client.get("/v1/findings"))
        # Another list does not wait at all.
        ok(await api.client.get("/v1/stats"))
        leaves.cancel()
        ok(await waits)
