"""Snapshots: one at a time, as new as they have to be, and nothing of others in them."""

import asyncio
from pathlib import Path

import pytest

from app.api.http.response_cache import MAX_BYTES, CachedResponse, CacheKey, ResponseCache
from app.control.monitoring import snapshot as snapshot_module
from app.control.monitoring.snapshot import Snapshot
from tests.fixtures.app import Api, ok, serving
from tests.fixtures.keys import Keyring
from tests.fixtures.postgres import Database
from tests.fixtures.waiting import eventually


async def taken(api: Api) -> Snapshot:
    """A new snapshot."""
    api.service.snapshots.invalidate()
    return await api.service.snapshots.current()


async def test_many_who_ask_at_once_share_one(api: Api) -> None:
    before = (await taken(api)).sequence
    api.service.snapshots.invalidate()
    seen = await asyncio.gather(*(api.service.snapshots.current() for _ in range(50)))
    assert {snapshot.sequence for snapshot in seen} == {before + 1}


async def test_a_change_while_one_is_taken_is_in_the_next(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("acme", "globex", "hooli", "initech"):
        ok(await api.client.put(f"/v1/tenants/{name}", json={}), 201)
    monkeypatch.setattr(snapshot_module, "_SLICE_SECONDS", -1.0)
    monkeypatch.setattr(snapshot_module, "_REST_FACTOR", 0)
    before = (await taken(api)).sequence
    api.service.snapshots.invalidate()
    first = asyncio.create_task(api.service.snapshots.current(), name="the first")
    for _ in range(4):
        await asyncio.sleep(0)
    assert not first.done()
    api.service.snapshots.invalidate()
    assert (await api.service.snapshots.current()).sequence == before + 2
    assert (await first).sequence == before + 1


async def test_whoever_gives_up_leaves_the_others_theirs(api: Api) -> None:
    api.service.snapshots.invalidate()
    asking = [asyncio.create_task(api.service.snapshots.current(), name="ask") for _ in range(3)]
    await asyncio.sleep(0)
    asking[0].cancel()
    _, *others = await asyncio.gather(*asking, return_exceptions=True)
    assert all(isinstance(snapshot, Snapshot) for snapshot in others)


async def test_rows_in_which_nothing_changed_are_taken_over(api: Api) -> None:
    for name in ("acme", "globex"):
        await api.value(await api.tenant(name), "SELECT 1")
    await api.tenant("initech")
    before = await taken(api)
    await api.value("/v1/tenants/acme", "SELECT 1")
    after = await taken(api)
    assert after.pools["globex"] is before.pools["globex"]
    assert after.tenants["initech"] is before.tenants["initech"]
    assert after.pools["acme"].stats.counters.connections_acquired == 2
    assert before.pools["acme"].stats.counters.connections_acquired == 1
    assert after.tenants["acme"].stats is after.pools["acme"].stats


async def test_percentiles_go_on_forgetting_when_nothing_happens(
    database: Database, catalog_database: Database, scrub_roles: None, tmp_path: Path
) -> None:
    window = {"stats_window_seconds": 0.1}
    async with serving(database, catalog_database, tmp_path, **window) as api:
        await api.value(await api.tenant("acme"), "SELECT 1")
        await taken(api)
        await asyncio.sleep(0.12)  # beyond the window, which is what this is about
        assert (await taken(api)).pools["acme"].stats.hold.p50_ms is None


async def test_what_is_gone_is_in_no_snapshot(api: Api) -> None:
    url = await api.tenant("acme")
    await api.value(url, "SELECT 1")
    assert list((await taken(api)).pools) == ["acme"]
    ok(await api.client.delete(url))
    after = await taken(api)
    assert (list(after.pools), list(after.tenants)) == ([], [])


async def test_answers_are_never_those_for_another_key(
    database: Database, catalog_database: Database, scrub_roles: None, tmp_path: Path
) -> None:
    keys = Keyring(tmp_path / "keys.json")
    keys.make("all")
    keys.make("bound", "read", tenants=("acme",))
    keys.make("query", "query")
    async with serving(
        database, catalog_database, tmp_path, keys_file=keys.path, rate_limit=0
    ) as api:
        api.client.headers.update(keys.headers("all"))
        for name in ("acme", "globex"):
            await api.value(await api.tenant(name), "SELECT 1")
        for path in ("/v1/stats?fields=tenant", "/v1/pools?fields=tenant"):
            for key, seen in (("all", ["acme", "globex"]), ("bound", ["acme"])) * 2:
                answer = await api.client.get(path, headers=keys.headers(key))
                assert [item["tenant"] for item in ok(answer)["items"]] == seen
                refused = await api.client.get(path, headers=keys.headers("query"))
                assert refused.status_code == 403


async def test_of_many_dashboards_that_wait_for_a_snapshot_one_has_it_rendered(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = ("/v1/stats", "/v1/stats?limit=7", "/v1/pools", "/v1/pools?fields=tenant")
    cache: ResponseCache = api.app.state.response_cache
    rendered: list[str] = []

    def store(snapshot: Snapshot, key: CacheKey, response: CachedResponse) -> None:
        rendered.append(key[0])
        stored(snapshot, key, response)

    stored = cache._store
    monkeypatch.setattr(cache, "_store", store)

    async def all_are_stored() -> bool:
        for path in paths:
            ok(await api.client.get(path))
        # On a slow machine the last one may be of a newer snapshot than the first.
        return len(cache._responses) == len(paths)

    await eventually(all_are_stored)
    rendered.clear()
    api.service.snapshots.invalidate()
    responses = await asyncio.gather(*(api.client.get(path) for path in paths * 20))
    assert len({ok(each)["as_of"] for each in responses if "fields" not in str(each.url)}) == 1
    assert sorted(rendered) == ["/v1/pools", "/v1/pools", "/v1/stats", "/v1/stats"]


async def test_the_cache_is_bounded_and_holds_one_snapshots_responses(api: Api) -> None:
    cache, snapshot = ResponseCache(api.service.snapshots, stale_after=60), await taken(api)
    for number in range(20):
        response = CachedResponse(b"x" * (MAX_BYTES // 16))
        cache._store(snapshot, ("/", str(number).encode(), None), response)
    assert len(cache._responses) == 8
    cache._store(await taken(api), ("/", b"", None), CachedResponse(b"y"))
    assert list(cache._responses) == [("/", b"", None)]
