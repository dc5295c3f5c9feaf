"""The commands that talk to a running service."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.cli.client.shell import Shell
from tests.fixtures.postgres import Database
from tests.fixtures.served import Served, served

TENANTS = """
tenants:
  acme: {strategy: per_tenant, weight: 2, labels: {plan: gold}, pool: {max_size: 7}}
  beta: {strategy: shared}
"""


@pytest.fixture
async def service(
    database: Database, catalog_database: Database, scrub_roles: None, tmp_path: Path
) -> AsyncIterator[Served]:
    """A service with no tenants."""
    async with served(tmp_path, tenants_in=database, catalog_in=catalog_database) as running:
        yield running


@pytest.fixture
def shell(service: Served) -> Shell:
    """Commands for that service."""
    return Shell(str(service.client.base_url))


async def test_a_file_is_planned_and_applied_until_the_service_matches(shell: Shell) -> None:
    planned = await shell.json("apply", "-f", "-", "--dry-run", "--json", stdin=TENANTS)
    assert [(step["verb"], step["tenant"]) for step in planned["steps"]] == [
        ("create", "acme"),
        ("provision", "acme"),
        ("resize", "acme"),
        ("create", "beta"),
        ("provision", "beta"),
    ]
    assert await shell.json("tenants", "--json") == []

    applied = (await shell.run("apply", "-f", "-", stdin=TENANTS)).stdout
    assert "2 created, 0 changed, 0 unchanged, 0 failed" in applied
    again = await shell.run("apply", "-f", "-", stdin=TENANTS)
    assert "No changes" in again.stdout
    shown = (await shell.run("tenants")).stdout
    assert "acme" in shown
    assert "plan=gold" in shown

    fewer = "tenants: {beta: {strategy: shared}}"
    await shell.run("apply", "-f", "-", "--prune", stdin=fewer, status=1)
    assert len(await shell.json("tenants", "--json")) == 2
    await shell.run("apply", "-f", "-", "--prune", "--yes", stdin=fewer)
    assert [each["id"] for each in await shell.json("tenants", "--json")] == ["beta"]


async def test_a_pool_is_added_to_an_existing_tenant(shell: Shell) -> None:
    await shell.run("tenants", "put", "beta", "--strategy", "per_tenant", "--label", "plan=gold")
    asked = "tenants: {beta: {labels: {plan: gold}, pool: {max_size: 3}}}"
    assert "1 changed" in (await shell.run("apply", "-f", "-", stdin=asked)).stdout
    found = await shell.json("tenants", "--label", "plan=gold", "--json")
    assert [each["id"] for each in found] == ["beta"]


async def test_a_pool_is_resized_paused_and_evicted(shell: Shell, service: Served) -> None:
    await shell.run("tenants", "put", "acme", "--strategy", "per_tenant", "--label", "a=b")
    await shell.run("pools", "resize", "acme", "--max-size", "3", "--min-size", "1")
    [pool] = await shell.json("pools", "--json")
    assert (pool["pool_id"], pool["desired"]["max_size"]) == ("acme", 3)
    assert "paused" in (await shell.run("pools", "do", "pause", "acme")).stdout
    for command in (["pools"], ["pools", "show", "acme"], ["tenants"], ["top", "--once"]):
        assert re.search(r"paused \d+s by api", (await shell.run(*command)).stdout), command
    assert "ready" in (await shell.run("pools", "do", "resume", "acme")).stdout
    await shell.run("tenants", "show", "nobody", status=1)
    assert "tenant-not-found" in (await shell.run("refusals")).stdout
    assert "evict acme" in (await shell.run("pools", "evict", "acme", "--force")).stdout
    assert await service.query("acme", "SELECT 1") == 200
    [numbers] = await shell.json("stats", "--json")
    assert (numbers["tenant"], numbers["connections_acquired"]) == ("acme", 1)
    events = await shell.json("events", "--json", "--tenant", "acme")
    assert [event["action"] for event in events][-1] == "tenant.created"
    screen = (await shell.run("top", "--once")).stdout
    assert "1 tenants" in screen
    assert "acme" in screen
    await shell.run("tenants", "delete", "acme", "--yes")


async def test_an_error_is_one_sentence_with_its_own_exit_status(shell: Shell) -> None:
    missing = await shell.run("pools", "show", "nobody", status=1)
    assert missing.stderr == "poolkeeper: There is no tenant nobody.\n"
    malformed = await shell.run("recommendations", "apply", "no-id", status=1)
    assert "/path/id" in malformed.stderr


@pytest.mark.parametrize(
    ("url", "status"), [("http://127.0.0.1:9", 3), ("ftp://there", 2), ("there", 2)]
)
async def test_unreachable_services_and_invalid_urls_have_their_own_statuses(
    url: str, status: int
) -> None:
    result = await Shell(url).run("tenants", status=status)
    assert result.stderr.startswith("poolkeeper: ")
    assert "Traceback" not in result.output
