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
    rendered: list[str] = []

    def noted(
        kept: ResponseCache, snapshot: Snapshot, question: CacheKey, answer: CachedResponse
    ) -> None:
        rendered.append(question[0])
        keep(kept, snapshot, question, answer)

    keep = ResponseCache.store
    monkeypatch.setattr(ResponseCache, "store", noted)

    async def all_are_kept() -> bool:
        for path in paths:
            ok(await api.client.get(path))
        # On a slow machine the last one may be of a newer snapshot than the first.
        return len(api.app.state.rendered._answers) == len(paths)

    await eventually(all_are_kept)
    rendered.clear()
    api.service.snapshots.invalidate()
    answers = await asyncio.gather(*(api.client.get(path) for path in paths * 20))
    assert len({ok(answer)["as_of"] for answer in answers if "fields" not in str(answer.url)}) == 1
    assert sorted(rendered) == ["/v1/pools", "/v1/pools", "/v1/stats", "/v1/stats"]


async def test_what_is_kept_of_answers_is_bounded(api: Api) -> None:
    rendered, snapshot = ResponseCache(), await taken(api)
    for number in range(20):
        answer = CachedResponse(b"x" * (MAX_BYTES // 16))
        rendered.store(snapshot, ("/", str(number).encode(), None), answer)
    kept = [rendered.get(snapshot, ("/", str(number).encode(), None)) for number in range(20)]
    assert sum(answer is not None for answer in kept) == 8
    later = await taken(api)
    rendered.store(later, ("/", b"", None), CachedResponse(b"y"))
    assert rendered.get(snapshot, ("/", b"0", None)) is None
    assert rendered.get(later, ("/", b"", None)) is not None
