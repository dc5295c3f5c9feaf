"""POST /sql at its limits, turned off, and from pages of other sites."""

import asyncio
from collections.abc import Sequence

import pytest

from app.api.http.sql_protocol import _SQLSTATES
from app.domain.errors import PoolkeeperError
from tests.fixtures.app import PROBLEM, Api, ApiWith, ok
from tests.fixtures.driver import driver_for, error
from tests.fixtures.listening import connected, listening
from tests.fixtures.postgres import Database
from tests.fixtures.waiting import eventually


async def test_what_must_wait_too_long_says_so_and_when_to_come_back(api_with: ApiWith) -> None:
    limits = {"acquire_timeout_seconds": 1, "max_waiting": 1, "per_tenant_pool_size": 1}
    async with api_with(query_timeout_seconds=1, **limits) as api:
        driver = await driver_for(api)
        ok(await api.client.put("/v1/tenants/acme/pool", json={"min_size": 1}), 201)
        found = error(await driver.transaction("select 1", "select pg_sleep(60)"), "57014")
        assert "1 s" in found["message"]
        async with api.service.manager.lease("acme"):
            waiting = asyncio.create_task(driver.ask("select 1"), name="a statement")
            [pool] = api.service.manager.pools()
            await eventually(lambda: pool.metrics.waiting_requests == 1)
            full = await driver.ask("select 1")
            for refused in (full, await waiting):
                assert error(refused, "53300")["severity"] == "FATAL"
                assert refused.headers["retry-after"] == "1"
        ok(await driver.ask("drop schema tenant_acme"))
        error(await driver.ask("select 1"), "3F000")


async def test_a_statement_ends_with_its_client(api: Api, database: Database) -> None:
    driver = await driver_for(api)
    sleeping = (
        "select count(*) from pg_stat_activity"
        " where wait_event = 'PgSleep' and datname = current_database()"
    )
    async with database.connected() as admin, listening(api.app) as address:

        async def sleeps(count: int) -> bool:
            return bool(await admin.fetchval(sleeping) == count)

        async with connected(address) as client:
            body = {"query": "select pg_sleep(600)"}
            client.ask("POST", "/sql", body, Neon_Connection_String=driver.url)
            await eventually(lambda: sleeps(1))
        await eventually(lambda: sleeps(0))
    await eventually(lambda: api.app.state.abandoned == 1)
    assert await driver.rows("select 1") == [["1"]]


async def test_a_credential_has_a_rate_of_its_own(api_with: ApiWith) -> None:
    async with api_with(rate_limit=1, sql_rate_limit=1, max_waiting=3) as api:
        driver = await driver_for(api)
        responses = await asyncio.gather(*(driver.ask("select 1") for _ in range(20)))
        assert sum(each.status_code == 200 for each in responses) >= 3
        late = next(each for each in responses if each.status_code == 400)
        error(late, "53400")
        assert int(late.headers["retry-after"]) >= 1
        elsewhere = driver.instead(database="other")
        refused = await asyncio.gather(*(elsewhere.ask("select 1") for _ in range(5)))
        assert "53400" in {each.json()["code"] for each in refused}
        assert api.app.state.authenticator.rate_limited.keys() == {"credential"}


async def test_it_can_be_turned_off(api_with: ApiWith) -> None:
    async with api_with(sql_endpoint=False) as api:
        driver = await driver_for(api)
        assert "sql_endpoint" in error(await driver.ask("select 1"), "0A000")["message"]


PAGE = "https://app.example.com"


async def test_pages_of_other_sites_are_refused_unless_they_are_named(api: Api) -> None:
    driver = await driver_for(api)
    options = await driver.api.client.options("/sql", headers={"Origin": PAGE})
    assert options.status_code == 204
    assert options.headers["allow"] == "OPTIONS, POST"
    refused = await driver.send({"query": "select 1"}, {"Origin": PAGE})
    error(refused, "28000")
    for response in (options, refused):
        assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize("origins", [[PAGE], ["*"]])
async def test_a_named_site_may_use_it_and_nothing_else(
    api_with: ApiWith, origins: Sequence[str]
) -> None:
    async with api_with(sql_origins=origins) as api:
        driver = await driver_for(api)
        page = {"Origin": PAGE, "Sec-Fetch-Site": "cross-site"}
        options = await api.client.options("/sql", headers=page)
        assert "Neon-Connection-String" in options.headers["access-control-allow-headers"]
        responses = [options, await driver.send({"query": "select 1"}, page)]
        ok(responses[1])
        responses.append(await driver.send({"query": "selec"}, page))
        error(responses[2], "42601")
        responses.append(await driver.instead(password="wrong").send({}, page))
        for response in responses:
            assert response.headers["access-control-allow-origin"] == PAGE
        other = await driver.send({"query": "select 1"}, {"Origin": "https://evil.example"})
        assert ("access-control-allow-origin" in other.headers) is ("*" in origins)
        tenant = await api.client.put("/v1/tenants/new", json={}, headers=page)
        assert (tenant.status_code, tenant.headers["content-type"]) == (403, PROBLEM)
        assert "access-control-allow-origin" not in tenant.headers


def test_every_failure_has_a_sqlstate_of_its_own() -> None:
    """What a driver's user meets: failures of leases and statements, not of the API."""

    def kinds(kind: type[PoolkeeperError]) -> list[type[PoolkeeperError]]:
        return [kind, *(each for below in kind.__subclasses__() for each in kinds(below))]

    codes = {each.code for each in kinds(PoolkeeperError) if each.retryable}
    with_their_own = {"statement-conflict"}
    of_the_api = {"unavailable", "too-many-streams", "idempotency-key-in-flight"}
    assert codes - with_their_own - of_the_api <= _SQLSTATES.keys()
