"""Usage and current leases in a browser."""

import httpx
import pytest
from playwright.async_api import Route, expect

from tests.api.ui.test_page import callers_of, violations
from tests.fixtures.app import Api
from tests.fixtures.browser import Tab

pytestmark = pytest.mark.asyncio(loop_scope="session")

_TOTALS = {"groups": 2, "connection_seconds": 4030.5, "leases": 9, "timeouts": 1}
_PERIOD = {"covered_from": "2026-11-19T00:00:00Z", "covered_to": "2026-11-20T00:00:00Z"}


async def test_who_used_the_most_in_a_period(service: Api, tab: Tab) -> None:
    asked: list[str] = []

    async def used(route: Route) -> None:
        asked.append(route.request.url)
        items = [
            {"group": name, "tenants": 1, "connection_seconds": seconds, "share": share}
            | {"mean_connections": 0.7, "leases": 4, "timeouts": 0}
            for name, seconds, share in [("acme", 4000.0, 0.75), (None, 30.5, 0.25)]
        ]
        group_by = httpx.URL(route.request.url).params["group_by"]
        body = {"items": items, "totals": _TOTALS, "next_cursor": None, "group_by": group_by}
        await route.fulfill(json=body | _PERIOD)

    page, rows = tab.page, tab.page.locator(".scroll tbody tr")
    await page.route("**/v1/usage?*", used)
    await page.goto("/#/usage?range=7d")
    await expect(rows.first).to_contain_text("acme1 h 6 min")
    await expect(rows.last).to_contain_text("others")
    assert await violations(page) == []
    assert "group_by=tenant" in asked[-1]
    await page.get_by_label("or by label").fill("plan")
    await expect(rows.first.get_by_role("link")).to_have_attribute(
        "href", "#/tenants?label=plan%3Aacme"
    )
    assert "group_by=label%3Aplan" in asked[-1]


async def test_the_service_answers_what_the_view_asks(service: Api, tab: Tab) -> None:
    await tab.page.goto("/#/usage?range=all&group=pool")
    await expect(tab.page.locator(".empty")).to_contain_text("Nothing was used in this period.")


async def test_a_pool_shows_who_holds_and_who_waits_for_a_connection(
    service: Api, tab: Tab
) -> None:
    await service.tenant("acme")
    page, leases = tab.page, tab.page.locator("#leases")
    async with callers_of(service, "acme", callers=5):
        await page.goto("/#/pools/acme")
        await expect(page.locator("#drawer")).to_contain_text("Now: 2 leased, 3 waiting")
        await expect(page.locator("#drawer")).to_contain_text("Waits fora lease to end: all 2")
        await expect(leases).to_contain_text("waiting, 1")
        await expect(leases).to_contain_text("waits for a lease to end: all 2 connections")
        await expect(leases).to_contain_text("SELECT pg_sleep(")


async def test_a_tenant_shows_what_its_callers_wait_for(service: Api, tab: Tab) -> None:
    await service.tenant("acme")
    drawer = tab.page.locator("#drawer")
    async with callers_of(service, "acme", callers=3):
        await tab.page.goto("/#/tenants/acme")
        await expect(drawer).to_contain_text(
            "Waits fora lease to end: all 2 connections of the pool are on lease (max_size)"
        )
    await expect(drawer).not_to_contain_text("Waits for")
