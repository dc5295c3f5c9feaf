"""Liveness and readiness over HTTP."""

import asyncio
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.api.views import readiness
from app.domain.isolation_checks import AuditCheck as IsolationCheck
from app.domain.isolation_checks import Finding, Severity
from tests.fixtures.app import Api, ok, serving
from tests.fixtures.postgres import Database
from tests.fixtures.proxy import FaultProxy
from tests.fixtures.waiting import eventually


async def checks(api: Api, status: int = 200) -> dict[str, dict[str, Any]]:
    """The checks by name, from an answer with this status."""
    response = await api.client.get("/readyz")
    body = ok(response, status)
    assert response.headers["content-type"] == "application/json"
    assert body["status"] == ("ready" if status == 200 else "not_ready")
    return {check["name"]: check for check in body["checks"]}


async def is_ready(api: Api) -> bool:
    return (await api.client.get("/readyz")).status_code == 200


async def test_a_process_that_answers_is_alive_even_if_nothing_was_started(
    unstarted: httpx.AsyncClient,
) -> None:
    assert ok(await unstarted.get("/livez")) == {"status": "alive"}


async def test_a_service_that_polls_and_reaches_its_catalog_is_ready(api: Api) -> None:
    await eventually(lambda: is_ready(api))
    found = await checks(api)
    assert {name: check["ok"] for name, check in found.items()} == dict.fromkeys(
        ["catalog", "poller", "loops", "servers", "isolation", "keys"], True
    )
    assert all(check["detail"] for check in found.values())


async def test_the_active_instances_readiness_is_an_ordinary_resource(api: Api) -> None:
    await eventually(lambda: is_ready(api))
    found = ok(await api.client.get("/v1/readiness"))
    assert found["status"] == "ready"
    assert {check["name"] for check in found["checks"]} == set(await checks(api))


def forget_cached_checks(api: Api) -> None:
    api.app.state.readiness._cached = None


async def test_an_old_isolation_audit_is_reported(api: Api) -> None:
    await api.tenant("acme")
    fresh = (await checks(api))["isolation"]
    assert fresh["ok"]
    assert re.search(r"The oldest audit is \d+ s old\.", fresh["detail"])
    state = api.service.manager.tenants.state("acme")
    assert state.isolation is not None
    state.isolation = replace(
        state.isolation, checked_at_monotonic=state.isolation.checked_at_monotonic - 600
    )
    forget_cached_checks(api)
    found = (await checks(api))["isolation"]
    assert (found["ok"], found["required"]) == (False, False)
    assert "s old, too old" in found["detail"]
    metrics = (await api.client.get("/metrics")).text
    [age] = re.findall(r"^poolkeeper_isolation_check_age_seconds (\S+)$", metrics, re.MULTILINE)
    assert float(age) >= 600


async def test_an_isolation_check_that_could_not_run_is_reported(api: Api) -> None:
    url = await api.tenant("acme")
    state = api.service.manager.tenants.state("acme")
    assert state.isolation is not None
    finding = Finding(
        check=IsolationCheck.SETTINGS, severity=Severity.NOT_CHECKED, detail="Not checked: no."
    )
    state.isolation = replace(state.isolation, findings=(finding,))
    forget_cached_checks(api)
    found = (await checks(api))["isolation"]
    assert not found["ok"]
    assert "could not run" in found["detail"]
    shown = ok(await api.client.get(url))["isolation"]["checks"]
    [failed] = [check for check in shown if not check["ok"]]
    assert (failed["name"], failed["severity"]) == ("settings", "not_checked")


async def test_without_its_catalog_it_says_so_and_stays_ready_because_pools_serve(
    api_apart: Api, fault_proxy: FaultProxy
) -> None:
    async def sees_its_catalog() -> bool:
        check = (await checks(api_apart))["catalog"]
        assert not check["required"]
        return bool(check["ok"])

    async def misses_its_catalog() -> bool:
        return not await sees_its_catalog()

    url = await api_apart.tenant("acme")
    await eventually(lambda: is_ready(api_apart))
    await fault_proxy.cut()
    await eventually(misses_its_catalog)
    assert await api_apart.value(url, "select 1") == 1
    await fault_proxy.pass_through()
    await eventually(sees_its_catalog)
    fault_proxy.black_hole()
    await eventually(misses_its_catalog)
    assert await api_apart.value(url, "select 1") == 1
    await fault_proxy.pass_through()
    await eventually(sees_its_catalog)


async def test_the_catalog_is_checked_once_a_second_at_most(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, asked = 1000.0, 0
    check = api.service.catalog.check_tables

    async def counted() -> None:
        nonlocal asked
        asked += 1
        await check()

    monkeypatch.setattr(api.service.catalog, "check_tables", counted)
    monkeypatch.setattr(readiness, "monotonic", lambda: now)
    for total in (1, 2):
        await asyncio.gather(*(api.client.get("/readyz") for _ in range(20)))
        assert asked == total
        now += 1.0


async def test_a_dead_loop_is_named(api: Api) -> None:
    await eventually(lambda: is_ready(api))
    api.service.supervisor.dead = "poll"
    check = (await checks(api, 503))["loops"]
    assert (check["ok"], check["detail"]) == (False, "Background task poll died.")
    assert ok(await api.client.get("/livez")) == {"status": "alive"}


async def test_before_the_first_poll_it_is_not_ready(api: Api) -> None:
    await eventually(lambda: is_ready(api))
    api.service.poller.last_at = None
    assert not (await checks(api, 503))["poller"]["ok"]


async def test_a_poll_long_ago_is_too_old(api: Api) -> None:
    """Three intervals and the time that one poll can take."""
    await eventually(lambda: is_ready(api))
    assert api.service.poller.last_at is not None
    api.service.poller.last_at -= 3 * 3600 + 61
    check = (await checks(api, 503))["poller"]
    assert (check["ok"], check["required"]) == (False, True)


async def test_an_unavailable_server_is_reported_but_not_required(
    database: Database,
    catalog_database: Database,
    fault_proxy: FaultProxy,
    tmp_path: Path,
) -> None:
    """The other servers' tenants are served."""
    distant = replace(database, host=fault_proxy.host, port=fault_proxy.port)
    async with serving(distant, catalog_database, tmp_path) as api:
        await eventually(lambda: is_ready(api))
        await fault_proxy.cut()
        [server] = api.service.manager.servers.values()
        await server.refresh()
        check = (await checks(api))["servers"]
    assert (check["ok"], check["required"]) == (False, False)
    assert "local" in check["detail"]
