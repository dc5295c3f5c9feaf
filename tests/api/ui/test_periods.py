"""Periods in the page's addresses, also in a browser of another time zone; and their rates."""

import re

import httpx
import pytest
from playwright.async_api import Locator, Page, Request, expect

from tests.fixtures.app import Api
from tests.fixtures.browser import Tab

pytestmark = pytest.mark.asyncio(loop_scope="session")

FROM, TO = "2026-11-29T12:50", "2026-11-29T13:10"


def pressed(page: Page) -> Locator:
    """The chosen period."""
    return page.get_by_role("group", name="Period").locator("[aria-pressed=true]")


async def test_a_period_means_the_same_in_another_time_zone(service: Api, tab: Tab) -> None:
    page = tab.page
    asked: list[httpx.URL] = []

    def note(request: Request) -> None:
        if "/v1/usage?" in request.url:
            asked.append(httpx.URL(request.url))

    page.on("request", note)
    await page.goto("/#/usage?range=custom")
    await page.get_by_label("From").fill(FROM)
    await page.get_by_label("to", exact=True).fill(TO)
    await page.get_by_role("button", name="Show").click()
    await expect(page.locator(".empty")).to_contain_text("Nothing was used")
    zone = await page.evaluate("new Date().getTimezoneOffset()")
    assert zone == 0, "this machine's zone is not UTC: the test compares two"
    sent = page.url
    cdp = await tab.context.new_cdp_session(page)
    await cdp.send("Emulation.setTimezoneOverride", {"timezoneId": "America/New_York"})
    asked.clear()
    await page.goto("/#/tenants")
    await page.goto(sent)
    await expect(page.get_by_label("From")).to_have_value("2026-11-29T07:50")
    await expect(page.locator(".empty")).to_contain_text("Nothing was used")
    period = asked[-1].params["from"], asked[-1].params["to"]
    assert period == (f"{FROM}:00.000Z", f"{TO}:00.000Z")


async def test_an_address_without_a_known_period_gets_the_default(service: Api, tab: Tab) -> None:
    page = tab.page
    for query, chosen in [
        ("", "24 h"),
        ("?range=bogus", "24 h"),
        ("?range=6h", "6 h"),
        (f"?from={FROM}Z&to={TO}Z", "Custom"),
    ]:
        await page.goto(f"/#/usage{query}")
        await expect(pressed(page)).to_have_text(chosen)


async def test_the_charts_can_be_asked_for_by_a_script(service: Api, tab: Tab) -> None:
    await service.tenant("acme")
    await tab.page.goto("/#/overview?range=1h")
    button = tab.page.locator("#trend").get_by_role("button", name="Copy as curl")
    asked = re.compile(r"curl '[^']+/v1/stats/history\?from=[^']+&to=[^']+&step_seconds=15'")
    await expect(button).to_have_attribute("title", asked)


async def test_a_step_that_is_not_over_is_rated_by_what_it_covers(service: Api, tab: Tab) -> None:
    """Divided by its whole length, the last rate of each chart would be too low."""
    await tab.page.goto("/#/usage")
    covered = await tab.page.evaluate("""async () => {
      const { coveredBy } = await import("./page/parts/range.js");
      const at = 60000;
      return [[60600, 60], [60045, 60], [60005, 60], [62000, 14400], [60005, 5], [60004, 5]]
        .map(([to, step]) => coveredBy({ at }, { to, step }));
    }""")
    assert covered == [60, 45, None, 2000, 5, None]


async def test_after_a_gap_a_step_is_rated_by_all_that_it_counts(service: Api, tab: Tab) -> None:
    """While the catalog is away nothing is stored, and the next poll counts what was meanwhile."""
    await tab.page.goto("/#/usage")
    covered = await tab.page.evaluate("""async () => {
      const { coveredBy } = await import("./page/parts/range.js");
      const period = { to: 70000, step: 5 };
      return [59995, 59990, 59905, 59000].map((at) => coveredBy({ at: 60000 }, period, { at }));
    }""")
    assert covered == [5, 5, 95, 1000]
