"""The page's frame in a browser: navigation, outages, keyboard, phone, accessibility."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from axe_playwright_python.async_playwright import Axe
from axe_playwright_python.base import AXE_SCRIPT
from playwright.async_api import Page, Route, expect

from tests.fixtures.app import Api, ok
from tests.fixtures.browser import Tab
from tests.fixtures.reporting import entry, reporting_node

pytestmark = pytest.mark.asyncio(loop_scope="session")

VIEWS = [
    *("overview", "tenants", "pools", "nodes", "servers", "advice", "findings"),
    *("usage", "events", "refusals", "keys"),
]
RULES_OF_COLOR = ["color-contrast", "link-in-text-block"]
LONGEST = "a-tenant-whose-name-is-as-long-as-a-name-can-be"
# Words on several lines; a longer one may be an ID.
BROKEN_WORDS = """() => {
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const range = document.createRange();
  const broken = [];
  for (let node = texts.nextNode(); node; node = texts.nextNode()) {
    for (const { 0: word, index } of node.data.matchAll(/\\w+/g)) {
      range.setStart(node, index);
      range.setEnd(node, index + word.length);
      const lines = new Set([...range.getClientRects()].map(({ top }) => Math.round(top)));
      if (word.length < 25 && lines.size > 1) broken.push(word);
    }
  }
  return broken;
}"""

# What is wider than its place.
WIDE = """[document.documentElement, ...document.querySelectorAll('main, .scroll, #drawer')]
  .filter((each) => each.scrollWidth > each.clientWidth).map((each) => each.outerHTML)"""

# The names in the bars of servers, and whether each is whole, hidden, or neither: cut.
NAMES = """Object.fromEntries([...document.querySelectorAll('.segment .name')].map((name) => {
  const [inner, outer] = [name, name.parentElement].map((each) => each.getBoundingClientRect());
  const shown = inner.right <= outer.right ? "whole" : "cut";
  return [name.textContent.replace(/\\d+/, "n"), inner.top >= outer.bottom - 2 ? "hidden" : shown];
}))"""
UNITS = """async () => {
  const { milliseconds, unbroken } = await import("/page/core/format.js");
  return [milliseconds(12.62), milliseconds(999.2), milliseconds(2709), milliseconds(123456),
    milliseconds(12.6, 84.6, 28100), milliseconds(null), unbroken("2 % in 30 ms of 5 seconds")];
}"""


@asynccontextmanager
async def callers_of(service: Api, tenant: str, callers: int) -> AsyncIterator[None]:
    """Callers of one tenant; each holds a connection for a while, again and again."""
    url = f"/v1/tenants/{tenant}"

    async def call() -> None:
        while True:
            await service.query(url, "SELECT pg_sleep(0.2)")

    tasks = [asyncio.create_task(call(), name=f"caller {number}") for number in range(callers)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def violations(page: Page, *rules: str) -> list[str]:
    """Accessibility problems that axe finds, by all its rules if none is named."""
    is_loaded = await page.evaluate("'axe' in window")
    options = {"resultTypes": ["violations"]} | ({"runOnly": rules} if rules else {})
    found = await Axe("" if is_loaded else AXE_SCRIPT).run(page, options=options)
    return [
        f"{each['id']}: {node['html']}"
        for each in found.response["violations"]
        for node in each["nodes"]
    ]


async def test_the_first_run_says_what_to_do_next(service: Api, tab: Tab) -> None:
    page = tab.page
    await page.goto("/")
    await expect(page.locator(".empty")).to_contain_text("There are no tenants yet.")
    await expect(page.get_by_role("button", name="New tenant")).to_be_visible()
    await page.get_by_role("link", name="Pools", exact=True).click()
    await expect(page).to_have_url(f"{tab.address}/#/pools")
    await expect(page.locator(".empty")).to_contain_text("No pool is open.")
    await page.get_by_role("link", name="See the tenants").click()
    await expect(page.locator("h1")).to_have_text("Tenants")
    await page.goto("/#/nowhere")
    await expect(page.locator(".empty")).to_contain_text("There is no such view.")


async def test_the_overview_shows_what_to_do_and_the_trend(service: Api, tab: Tab) -> None:
    await service.tenant("acme")
    page = tab.page
    await page.goto("/")
    async with callers_of(service, "acme", callers=8):
        await expect(page.locator("#tiles")).to_contain_text("Tenants1")
        for tile in ("Timeouts since start", "Event loop lag"):
            await expect(page.locator("#tiles")).to_contain_text(tile)
        await expect(page.locator("#trend canvas")).to_have_count(2)
        advice = page.locator("#to-do .recommendation", has_text="acme")
        await expect(advice).to_contain_text("Callers wait now")
        await advice.get_by_role("button", name="Apply").click()
        await expect(page.locator("#outcome")).to_contain_text("was applied")
    pool = await service.client.get("/v1/tenants/acme/pool")
    assert pool.json()["desired"]["max_size"] > 2


async def test_an_unreachable_service_is_reported_until_it_responds(service: Api, tab: Tab) -> None:
    page = tab.page
    await page.goto("/")
    await expect(page.locator("#tiles")).to_contain_text("Tenants0")
    await tab.context.set_offline(offline=True)
    await expect(page.locator("#error")).to_contain_text("does not respond")
    await tab.context.set_offline(offline=False)
    await expect(page.locator("#error")).to_be_hidden()


async def test_no_view_has_accessibility_problems_in_either_theme(service: Api, tab: Tab) -> None:
    for name, strategy in [("acme", "per_tenant"), ("beta", "per_tenant"), ("cafe", "shared")]:
        await service.tenant(name, strategy)
        await service.client.put(f"/v1/tenants/{name}/pool")
    (await service.client.post("/v1/tenants/beta/pool/pause")).raise_for_status()
    page = tab.page
    await page.goto("/")
    async with (
        callers_of(service, "acme", callers=8),
        reporting_node(service.client, entry("acme", waiting=2), entry("beta")) as agent,
    ):
        agent.problem = "its disk is full"
        await expect(page.locator(".recommendation")).to_be_visible()
        for view in VIEWS:
            await page.goto(f"/#/{view}")
            await expect(page.locator("h1")).to_be_visible()
            await page.emulate_media(color_scheme="light")
            assert await violations(page) == [], view
            # Themes differ in their colors.
            await page.emulate_media(color_scheme="dark")
            assert await violations(page, *RULES_OF_COLOR) == [], view
        await page.emulate_media(color_scheme="light")
        await page.goto("/#/nodes/edge")
        await expect(page.locator("#drawer .on-nodes")).to_be_visible()
        assert await violations(page) == []
        await page.goto("/#/pools/acme")
        await expect(page.locator("#drawer canvas")).to_have_count(5)
        assert await violations(page) == []
        await page.locator("#drawer").get_by_role("button", name="Evict").click()
        await expect(page.locator("#action .plan")).to_contain_text("Close pool acme")
        assert await violations(page) == []


async def test_a_phone_shows_every_view_without_scrolling_sideways(service: Api, tab: Tab) -> None:
    await service.tenant(LONGEST)
    opened = await service.client.put(f"/v1/tenants/{LONGEST}/pool", json={"max_size": 10_000})
    opened.raise_for_status()
    (await service.client.post(f"/v1/tenants/{LONGEST}/pool/pause")).raise_for_status()
    page = tab.page
    await page.set_viewport_size({"width": 390, "height": 844})
    charts = dict.fromkeys(VIEWS, 0)
    on_nodes = {f"tenants/{LONGEST}", f"nodes/{LONGEST}"}
    # Three of the pool, two of nodes.
    charts |= {f"tenants/{LONGEST}": 5, f"pools/{LONGEST}": 5, f"nodes/{LONGEST}": 0}
    async with reporting_node(service.client, entry(LONGEST, waiting=6), name=LONGEST):
        for view, count in charts.items():
            await page.goto(f"/#/{view}")
            await expect(page.locator("#side [aria-current]")).to_be_in_viewport()
            await expect(page.locator("main > :nth-child(2)")).to_be_visible()
            await expect(page.locator("#drawer canvas")).to_have_count(count)
            await expect(page.locator(".on-nodes")).to_have_count(int(view in on_nodes))
            assert await page.evaluate(WIDE) == [], view
            assert await page.evaluate(BROKEN_WORDS) == [], view
    await page.goto("/#/pools")
    await expect(page.locator(".scroll tbody tr")).to_contain_text("of 10000")


async def test_a_name_in_the_bar_of_a_server_is_whole_or_hidden(service: Api, tab: Tab) -> None:
    url = await service.tenant("acme")
    ok(await service.client.put(f"{url}/pool", json={"min_size": 16, "max_size": 16}), 201)
    ok(await service.query(url, "select 1"))
    page = tab.page
    await page.goto("/#/servers")
    for width, name in ((1280, "whole"), (390, "hidden")):
        await page.set_viewport_size({"width": width, "height": 844})
        await expect(page.locator(".budget")).to_contain_text("acme 16")
        names = await page.evaluate(NAMES)
        assert (names["acme n"], names["n free"]) == (name, "whole")
        assert "cut" not in names.values()


async def test_times_that_stand_together_have_one_unit(service: Api, tab: Tab) -> None:
    await tab.page.goto("/")
    assert await tab.page.evaluate(UNITS) == [
        *("12.6 ms", "999 ms", "2.71 s", "123 s", "0.0126 s, 0.0846 s, 28.1 s", "\N{EN DASH}"),
        "2\u00a0% in 30\u00a0ms of 5 seconds",
    ]


async def test_the_keyboard_reaches_everything_and_stays_in_the_drawer(
    service: Api, tab: Tab
) -> None:
    for name in ("acme", "beta"):
        await service.tenant(name)
        ok(await service.query(f"/v1/tenants/{name}", "SELECT 1"))
    page = tab.page
    await page.goto("/")
    await expect(page.locator("#tiles")).to_contain_text("Tenants2")
    await page.keyboard.press("g")
    await page.keyboard.press("p")
    await expect(page.locator("h1")).to_have_text("Pools")
    await page.keyboard.press("/")
    await page.keyboard.type("bet")
    await expect(page.locator("#count")).to_have_text("1 of 2")
    await page.keyboard.press("Enter")
    drawer = page.locator("#drawer")
    await expect(drawer.locator("h2")).to_contain_text("beta")
    await expect(drawer.locator("canvas")).to_have_count(3)
    for key in ("Shift+Tab", "Tab"):
        for _ in range(24):
            await page.keyboard.press(key)
            assert await page.evaluate("document.activeElement.closest('#drawer') !== null")
    await page.keyboard.press("Escape")
    await expect(drawer).to_have_count(0)
    await expect(page.locator("#search")).to_be_focused()
    await page.keyboard.press("Control+A")
    await page.keyboard.press("Delete")
    await expect(page.locator("#count")).to_have_text("2 of 2")
    await page.locator("h1").click()
    await page.keyboard.press("j")
    await page.keyboard.press("j")
    await page.keyboard.press("Enter")
    await expect(drawer).to_be_visible()
    await page.keyboard.press("Escape")
    await page.keyboard.press("t")
    await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    await page.keyboard.press("?")
    await expect(page.locator("#shortcuts-dialog")).to_contain_text("next and previous row")


async def test_behind_a_path_prefix_it_loads_everything_from_there(service: Api, tab: Tab) -> None:
    """A reverse proxy serves the page at `/tools/pools/`."""
    page, prefix = tab.page, f"{tab.address}/tools/pools/"

    async def forward(route: Route) -> None:
        await route.continue_(url=route.request.url.replace(prefix, f"{tab.address}/"))

    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await page.route(f"{prefix}**", forward)
    await page.goto(prefix)
    await expect(page.locator("#tiles")).to_contain_text("Tenants0")
    await page.get_by_role("link", name="Tenants", exact=True).click()
    await expect(page).to_have_url(f"{prefix}#/tenants")
    assert [url for url in asked if not url.startswith(prefix)] == []


async def test_a_line_ends_where_nothing_was_measured(service: Api, tab: Tab) -> None:
    await tab.page.goto("/")
    gaps = "async (at) => (await import('/page/parts/gaps.js')).withGaps(at.map((at) => ({ at })))"

    async def drawn(*times: int) -> list[int]:
        points = await tab.page.evaluate(gaps, times)
        return [point["at"] for point in points]

    # One poll was late, one is missing; then the service was down.
    assert await drawn(0, 5, 11, 15, 25, 30, 90, 95) == [0, 5, 11, 15, 25, 30, 35, 90, 95]
    assert await drawn(0, 60, 120, 240, 300) == [0, 60, 120, 240, 300]
    # These do not show the time between measurements.
    assert await drawn(0, 5, 600) == [0, 5, 600]
