"""Events, refusals and findings in a browser, and requests copied as curl."""

import re
from dataclasses import replace

import pytest
from playwright.async_api import expect

from app.control import audit_events
from app.domain.isolation_checks import AuditCheck, Finding, Severity
from tests.fixtures.app import Api, ok, problem
from tests.fixtures.browser import Tab
from tests.fixtures.postgres import Database
from tests.fixtures.processes import completed

pytestmark = pytest.mark.asyncio(loop_scope="session")

SQL = "Run: REVOKE a FROM b;"


async def test_who_changed_what_and_why_a_request_was_refused(service: Api, tab: Tab) -> None:
    await service.tenant("acme")
    url = "/v1/tenants/acme/pool"
    for size in (3, 4):
        await service.client.put(url, json={"max_size": size})
    refused = await service.client.put(url, json={"min_size": 99})
    page, lines = tab.page, tab.page.locator(".lines li")
    await page.goto("/#/events")
    await expect(lines).to_have_count(4)
    await page.get_by_label("Action").fill("pool.resized")
    await expect(lines).to_have_count(1)
    await expect(lines.first).to_contain_text("max_size 3 → 4")
    await expect(lines.first).to_contain_text("by api")
    await page.goto("/#/refusals")
    await page.get_by_label("Request ID").fill(refused.json()["request_id"])
    await expect(lines).to_have_count(1)
    await expect(lines).to_contain_text("PUT /v1/tenants/acme/pool, by api")
    await lines.get_by_role("link", name="acme").click()
    await expect(page.locator("#drawer #refusals")).to_contain_text(refused.json()["code"])


async def test_a_flood_of_the_same_refusal_is_one_line(service: Api, tab: Tab) -> None:
    await service.tenant("acme")
    for _ in range(3):
        await service.client.put("/v1/tenants/acme/pool", json={"min_size": 99})
    await service.client.put("/v1/tenants/acme", json={"weight": 0})
    await tab.page.goto("/#/refusals")
    lines = tab.page.locator(".lines li")
    await expect(lines).to_have_count(2)
    await expect(lines.last).to_contain_text("3 like this since")
    await expect(lines.first).not_to_contain_text("like this")


async def test_events_name_the_credential_and_the_node(service: Api, tab: Tab) -> None:
    url = await service.tenant("acme")
    ok(await service.client.post(f"{url}/credentials", json={"name": "web"}), 201)
    ok(await service.client.delete(f"{url}/credentials/web"))
    ok(await service.client.put("/v1/nodes/edge", json={}), 201)
    ok(await service.client.delete("/v1/nodes/edge"))
    page, lines = tab.page, tab.page.locator(".lines li")
    await page.goto("/#/events")
    for action, name in {
        "credential.created": "acme.web",
        "credential.revoked": "acme.web",
        "node.created": "edge",
        "node.deleted": "edge",
    }.items():
        await expect(lines.filter(has_text=f"{action} {name} by api")).to_have_count(1)
    await lines.get_by_role("link", name="acme.web").first.click()
    await expect(page.locator("#timeline")).to_contain_text("credential.revoked acme.web")


async def test_an_event_shows_what_changed_inside_of_objects(service: Api, tab: Tab) -> None:
    url = await service.tenant("acme", labels={"plan": "gold", "team": "a"})
    body = {"strategy": "per_tenant", "labels": {"plan": "free", "team": "a"}}
    ok(await service.client.put(url, json=body))
    service.service.audit_outbox.enqueue(audit_events.server_lost("local", "It is away."))
    await service.service.audit_outbox.flush()
    page, lines = tab.page, tab.page.locator(".lines li")
    await page.goto("/#/events")
    await expect(lines.nth(1).locator(".change")).to_have_text("labels.plan gold → free")
    await lines.first.get_by_role("link", name="local").click()
    await expect(page).to_have_url(re.compile("#/servers/local"))


async def test_a_tenant_with_many_events_says_that_there_are_more(service: Api, tab: Tab) -> None:
    url = await service.tenant("acme")
    lines = tab.page.locator("#timeline li")
    await tab.page.goto("/#/tenants/acme")
    await expect(lines).to_have_count(2)
    for _ in range(50):
        ok(await service.client.post(f"{url}/pool/pause"))
        ok(await service.client.post(f"{url}/pool/resume"))
    await tab.page.reload()
    await expect(lines).to_have_count(101)
    await expect(lines.last).to_contain_text("The newest are shown.")


async def test_findings_name_the_cause_once_with_its_tenants_and_the_sql(
    service: Api, tab: Tab, database: Database
) -> None:
    for name in ("acme", "beta"):
        await service.tenant(name)
    page = tab.page
    await page.goto("/#/findings")
    await expect(page.locator(".empty")).to_contain_text("No findings.")
    async with database.connected() as admin:
        for name in ("acme", "beta"):
            await admin.execute(f"GRANT pg_read_all_data TO tenant_{name}")
            # Provisioning again starts an audit at once.
            await service.client.post(f"/v1/tenants/{name}/provision")

    finding = page.locator(".listed", has_text="memberships")
    await expect(finding).to_contain_text("critical")
    await expect(finding).to_contain_text("2 tenants on local: acme, beta")
    await tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await finding.get_by_role("button", name="Copy SQL").click()
    assert await page.evaluate("navigator.clipboard.readText()") == (
        "REVOKE pg_read_all_data FROM tenant_acme;"
    )
    await finding.get_by_role("link", name="beta").click()
    await expect(page.locator("#drawer .finding.critical")).to_contain_text("memberships")


async def test_causes_of_one_check_and_tenant_stay_apart_when_one_is_gone(
    service: Api, tab: Tab
) -> None:
    await service.tenant("acme")
    state = service.service.manager.tenants.state("acme")
    check, warning = AuditCheck.EXTENSION_SCHEMAS, Severity.WARNING
    first, second = (
        Finding(check=check, severity=warning, detail=f"{name}. Run: DO;", cause=name)
        for name in ("First", "Second")
    )
    assert state.isolation is not None
    state.isolation = replace(state.isolation, findings=(first, second))
    page, listed = tab.page, tab.page.locator("main .listed")
    await page.goto("/#/findings")
    await expect(listed).to_have_count(2)
    button = listed.filter(has_text="Second").get_by_role("button")
    await button.focus()
    state.isolation = replace(state.isolation, findings=(second,))
    await expect(listed).to_have_count(1)
    await expect(button).to_be_focused()


async def test_a_copied_request_is_the_one_that_the_page_sends(service: Api, tab: Tab) -> None:
    page, dialog = tab.page, tab.page.locator("#action")
    await tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await page.goto("/#/tenants")
    await page.get_by_role("button", name="New tenant").click()
    await dialog.get_by_label("ID", exact=True).fill("acme")
    await dialog.get_by_label("Labels").fill("owner: O'Hara; $(touch x) `y`")
    await dialog.get_by_role("button", name="Copy as curl").click()
    await expect(dialog.get_by_role("button", name="Copied")).to_be_visible()
    command = await page.evaluate("navigator.clipboard.readText()")
    curl = await completed("sh", "-c", f"{command} --silent --noproxy '*'")
    assert curl.returncode == 0, curl.stderr
    tenant = (await service.client.get("/v1/tenants/acme")).json()
    assert tenant["labels"] == {"owner": "O'Hara; $(touch x) `y`"}


async def test_the_page_shows_and_counts_the_findings_that_the_service_lists(
    service: Api, tab: Tab, database: Database
) -> None:
    for name in ("acme", "beta", "gamma"):
        await service.tenant(name)
    async with database.connected() as admin:
        await admin.execute("ALTER ROLE tenant_acme PASSWORD 'another'")
    problem(await service.query("/v1/tenants/acme", "SELECT 1"), 503, "tenant-login-failed")
    for name in ("beta", "gamma"):
        ok(await service.client.post(f"/v1/tenants/{name}/pool/pause"))
    page, listed = tab.page, tab.page.locator("main .listed")
    await page.goto("/#/findings")
    await expect(listed.locator("b")).to_have_text(["tenant login", "pool paused"])
    items = ok(await service.client.get("/v1/findings"))["items"]
    assert len(items) == 2
    for number, item in enumerate(items):
        await expect(listed.nth(number)).to_contain_text(item["detail"])
    await expect(listed.nth(1)).to_contain_text("2 tenants on local: beta, gamma")
    await expect(page.locator("#side [aria-current] .count")).to_have_text("2")
