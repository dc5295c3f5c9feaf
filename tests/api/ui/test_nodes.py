"""Nodes in a browser: what they show, their operations, and their tenants."""

import pytest
from playwright.async_api import expect

from app.domain.nodes.gate import EntryState
from tests.fixtures.app import Api, ok
from tests.fixtures.browser import Tab
from tests.fixtures.reporting import entry, reporting_node

pytestmark = pytest.mark.asyncio(loop_scope="session")

LINES_OF_DATABASE = """one => {
  const word = document.createRange();
  const at = one.textContent.indexOf("database");
  word.setStart(one.firstChild, at);
  word.setEnd(one.firstChild, at + "database".length);
  return word.getClientRects().length;
}"""
WAITING = entry("beta", state=EntryState.CLOSED, in_use=0, clients=4, waiting=3, longest_wait=4.5)


async def test_a_node_shows_its_budget_and_who_waits_on_it(service: Api, tab: Tab) -> None:
    for name in ("acme", "beta"):
        await service.tenant(name)
    page, drawer = tab.page, tab.page.locator("#drawer")
    async with reporting_node(
        service.client, entry("acme"), WAITING, address="pools.example:6432", limits={"local": 9}
    ):
        await page.goto("/#/nodes")
        row = page.locator("main tbody tr")
        await expect(row).to_contain_text("pools.example:6432")
        await expect(row).to_have_class("is-waiting")
        await row.get_by_role("link", name="edge").click()
        await expect(drawer).to_contain_text("11, 3 waiting")
        await expect(drawer).to_contain_text("the latest is in force")
        await expect(drawer.locator(".finding", has_text="CVE").first).to_be_visible()
        # Both have work, and may have two connections each.
        server = drawer.locator("#node-servers tbody tr td")
        await expect(server).to_have_text(["3", "4", "4", "9"])
        tenants = drawer.locator(".on-nodes tbody tr")
        await expect(tenants.locator("th")).to_have_text(["beta", "acme"])
        await expect(tenants.first).to_contain_text("closed")
        assert await tenants.first.get_by_title("The first for 4.5 s").count() == 1
        # Estimates are marked as such, and nothing else is.
        load = drawer.locator(".on-nodes thead th[title]")
        await expect(load).to_have_text(
            ["Share", "Waiting", "Per second", "Hold", "Wait", "p99 est."]
        )
        await expect(tenants.first).to_contain_text("3 of 4")
        await expect(tenants.last).to_contain_text("100 ms")
        await drawer.get_by_label("Order").select_option("most clients")
        await expect(tenants.locator("th")).to_have_text(["acme", "beta"])
        await drawer.get_by_label("Tenant", exact=True).fill("bet")
        await expect(tenants).to_have_count(1)
        await tenants.get_by_role("link", name="beta").click()

        await expect(drawer.locator("h2")).to_contain_text("beta")
        on_nodes = drawer.locator(".on-nodes tbody tr")
        await expect(on_nodes).to_contain_text("edge")
        await expect(on_nodes.locator("td").first).to_have_text("closed")
        await expect(drawer.locator("figcaption")).to_contain_text(
            [
                "Connections",
                "Wait",
                "Connects",
                "On nodes",
                "On nodes: wait and hold, p95, estimated",
            ]
        )
        # It was never open in the service itself.
        await page.goto("/#/tenants")
        row = page.locator("main tbody tr", has_text="beta")
        await expect(row).to_contain_text("not open, 3 waiting on nodes")
        await row.get_by_role("link", name="beta").click()
        await drawer.get_by_role("button", name="Open", exact=True).click()
        await page.locator("#action").get_by_role("button", name="Open", exact=True).click()
        await expect(page.locator("#outcome")).to_contain_text("Pool beta: 1 connection open")
        await page.goto("/#/overview")
        await expect(page.locator("#tiles")).to_contain_text("Waiting now3 0 here, 3 on nodes")
        label = "on nodes: 3 open of 4 left to them"
        bar = page.locator(".budget").get_by_role("link", name=label)
        await expect(bar).to_have_attribute("href", "#/nodes")
        await expect(page.locator(".server")).to_contain_text("0 waiting + 3 on nodes")
        await page.goto("/#/pools")
        waiting = page.locator("main tbody tr", has_text="beta").locator("td.waiting")
        await expect(waiting).to_have_text("3 on nodes")
    assert ok(await service.client.get("/v1/refusals"))["items"] == []


async def test_an_exhausted_budget_names_those_that_wait_for_it(service: Api, tab: Tab) -> None:
    beta = await service.tenant("beta")
    ok(await service.client.put(f"{beta}/pool", json={"max_size": 1000}), 201)
    async with reporting_node(service.client, WAITING):
        await tab.page.goto("/#/servers")
        await expect(tab.page.locator(".server")).to_contain_text(
            "0 waiting + 3 on nodes Budget exhausted: clients of nodes wait for their tenants'"
        )


async def test_a_tenant_shows_how_many_connections_each_place_may_have(
    service: Api, tab: Tab
) -> None:
    acme = await service.tenant("acme")
    ok(await service.client.put(f"{acme}/pool", json={"max_size": 6}), 201)
    ok(await service.client.post(f"{acme}/credentials", json={"name": "web"}), 201)
    drawer = tab.page.locator("#drawer")
    async with reporting_node(service.client, entry("acme")):
        await tab.page.goto("/#/tenants/acme")
        # Its callers are on the node.
        await expect(drawer.locator(".on-nodes thead th").nth(3)).to_have_text("Share")
        await expect(drawer.locator(".on-nodes tbody td").nth(2)).to_have_text("5")
        await expect(drawer).to_contain_text("share 1 of 6")
        await tab.page.goto("/#/pools/acme")
        await expect(drawer).to_contain_text("Share1 of 6")


@pytest.mark.parametrize("width", [390, 1280])
async def test_the_tenants_of_a_node_have_room(service: Api, tab: Tab, width: int) -> None:
    name = "globex-per-database-long"
    await service.tenant(name)
    await tab.page.set_viewport_size({"width": width, "height": 844})
    table = tab.page.locator("#drawer .on-nodes")
    waiting = entry(name, state=EntryState.CLOSED, waiting=3, longest_wait=12.5)
    async with reporting_node(service.client, waiting):
        await tab.page.goto("/#/nodes/edge")
        await expect(table.locator("tbody td").last).to_contain_text("ms")
        await expect(table.locator("tbody th")).to_contain_text(name)
        assert await table.evaluate("one => one.offsetWidth <= one.parentNode.clientWidth")
        assert await table.locator("tbody th a").evaluate(LINES_OF_DATABASE) == 1


async def test_every_operation_of_a_node(service: Api, tab: Tab) -> None:
    page, drawer, dialog = tab.page, tab.page.locator("#drawer"), tab.page.locator("#action")
    await page.goto("/#/nodes")
    await expect(page.locator(".empty")).to_contain_text("There are no nodes yet.")
    await page.get_by_role("button", name="New node").click()
    await dialog.get_by_label("Name").fill("edge")
    await dialog.get_by_label("Address").fill("pools.example")
    await expect(dialog.locator(".problem")).to_contain_text("Must be a host and a port")
    await dialog.get_by_label("Address").fill("pools.example:6432")
    await dialog.get_by_label("Tenants").fill("plan: gold")
    await dialog.get_by_label("Connections, at most").fill("local: 7")
    await expect(dialog.locator(".plan")).to_be_visible()
    await dialog.get_by_role("button", name="New node").click()
    await expect(drawer).to_contain_text("0 tenants: plan: gold")
    await expect(drawer).to_contain_text("joining")
    made = ok(await service.client.get("/v1/nodes/edge"))
    assert (made["selector"], made["limits"]) == ({"plan": "gold"}, {"local": 7})

    await tab.operate("Pause", "paused false → true", "Pause edge: done.")
    await expect(drawer.locator("dd").first).to_contain_text("paused")
    await tab.operate("Drain", "draining false → true", "Drain edge: done.")
    await tab.operate("Resume", "paused true → false", "Resume edge: done.")
    await expect(drawer.get_by_role("button", name="Resume")).to_have_count(0)
    await drawer.get_by_role("button", name="Edit").click()
    await expect(dialog.get_by_label("Connections, at most")).to_have_value("local: 7")
    await dialog.get_by_label("Address").fill("other.example:6432")
    await dialog.get_by_role("button", name="Edit").click()
    await expect(drawer).to_contain_text("other.example:6432")
    assert ok(await service.client.get("/v1/nodes/edge"))["limits"] == {"local": 7}
    await drawer.get_by_role("button", name="Delete").click()
    await dialog.get_by_label("Type edge to confirm").fill("edge")
    await dialog.get_by_role("button", name="Delete").click()
    await expect(page.locator(".empty")).to_contain_text("There are no nodes yet.")


async def test_a_node_that_needs_somebody_is_a_finding(service: Api, tab: Tab) -> None:
    await service.tenant("acme")
    page, findings = tab.page, tab.page.locator("#to-do .listed")
    async with reporting_node(service.client) as agent:
        agent.problem, agent.version = "its disk is full", "0.9.0"
        ok(await service.client.post("/v1/nodes/edge/pause"))
        await page.goto("/")
        names = ["agent version", "node paused", "node problem", "pooler version"]
        await expect(findings.locator("b")).to_have_text(names)
        await expect(findings.nth(1)).to_contain_text("It is paused: its clients wait.")
        await expect(findings.nth(2)).to_contain_text("its disk is full")
        await expect(findings.nth(2)).to_contain_text("1 tenant on node edge: acme")
        await findings.nth(2).get_by_role("link", name="edge").click()
        await expect(page.locator("#drawer")).to_contain_text("its disk is full")
        await expect(page.locator("#drawer")).to_contain_text("Agentversion 0.9.0")
        await page.goto("/#/findings")
        vulnerable = page.locator(".listed", has_text="pooler version")
        await expect(vulnerable).to_contain_text("one user can log in as another")
        of_another_version = page.locator(".listed", has_text="agent version")
        await expect(of_another_version).to_contain_text("Upgrade the service.")
        await expect(page.locator("#side [aria-current] .count")).to_have_text("4")
