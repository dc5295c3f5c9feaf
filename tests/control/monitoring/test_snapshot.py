"""Snapshots: taken one at a time, as fresh as requested, and reusing what did not change."""

import asyncio
from dataclasses import replace

import pytest

from app.control import time_slices
from app.control.monitoring import snapshot as snapshot_module
from app.control.monitoring.isolation_audit import findings_of
from app.control.monitoring.snapshot import Snapshot
from app.domain.isolation_checks import AuditCheck, Finding, Severity
from tests.fixtures.app import Api, ApiWith, ok
from tests.fixtures.turns import counted_turns


async def taken(api: Api) -> Snapshot:
    """A new snapshot."""
    api.service.snapshots.invalidate()
    return await api.service.snapshots.current()


async def test_concurrent_requests_share_one_snapshot(api: Api) -> None:
    before = (await taken(api)).sequence
    api.service.snapshots.invalidate()
    seen = await asyncio.gather(*(api.service.snapshots.current() for _ in range(50)))
    assert {snapshot.sequence for snapshot in seen} == {before + 1}


async def test_a_change_while_one_is_taken_is_in_the_next(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("acme", "globex", "hooli", "initech"):
        ok(await api.client.put(f"/v1/tenants/{name}", json={}), 201)
    monkeypatch.setattr(time_slices, "_SLICE_SECONDS", -1.0)
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


async def test_other_tasks_have_their_turn_while_findings_are_counted(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("acme", "globex", "hooli"):
        await api.tenant(name)
        state = api.service.manager.tenants.state(name)
        assert state.isolation is not None
        found = Finding(check=AuditCheck.ROLE, severity=Severity.CRITICAL, detail="It is gone.")
        state.report_isolation(replace(state.isolation, findings=(found, found)))
    async with counted_turns() as turns:
        noted = turns.counted(lambda each: each)
        monkeypatch.setattr(
            snapshot_module, "findings_of", lambda manager: map(noted, findings_of(manager))
        )
        snapshot = await taken(api)
    # The poller may have taken another one. Tenants without findings take a step, too.
    assert sum(snapshot.findings.values()) == 6 < 6 + 3 <= turns.calls
    assert turns.most == 1


async def test_a_cancelled_request_leaves_the_others_their_snapshot(api: Api) -> None:
    api.service.snapshots.invalidate()
    asking = [asyncio.create_task(api.service.snapshots.current(), name="ask") for _ in range(3)]
    await asyncio.sleep(0)
    asking[0].cancel()
    _, *others = await asyncio.gather(*asking, return_exceptions=True)
    assert all(isinstance(snapshot, Snapshot) for snapshot in others)


async def test_what_did_not_change_is_reused(api: Api) -> None:
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


async def test_percentiles_go_on_forgetting_when_nothing_happens(api_with: ApiWith) -> None:
    window = {"stats_window_seconds": 0.1}
    async with api_with(**window) as api:
        await api.value(await api.tenant("acme"), "SELECT 1")
        await taken(api)
        await asyncio.sleep(0.12)  # beyond the window, which this test is about
        assert (await taken(api)).pools["acme"].stats.hold.p50_ms is None


async def test_what_was_deleted_is_in_no_snapshot(api: Api) -> None:
    url = await api.tenant("acme")
    await api.value(url, "SELECT 1")
    assert list((await taken(api)).pools) == ["acme"]
    ok(await api.client.delete(url))
    after = await taken(api)
    assert (list(after.pools), list(after.tenants)) == ([], [])
