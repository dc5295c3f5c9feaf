"""The commands that call a running service."""

import re
from collections.abc import AsyncIterator

import pytest

from tests.cli.client.shell import Shell
from tests.fixtures.reporting import reporting_node
from tests.fixtures.served import Serve, Served

TENANTS = """
tenants:
  acme: {strategy: per_tenant, weight: 2, labels: {plan: gold}, pool: {max_size: 7}}
  beta: {strategy: shared}
"""


@pytest.fixture
async def service(serve: Serve) -> AsyncIterator[Served]:
    """A service with no tenants."""
    async with serve() as running:
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
    await shell.run("tenants", "create", "beta", "--strategy", "per_tenant", "--label", "plan=gold")
    asked = "tenants: {beta: {labels: {plan: gold}, pool: {max_size: 3}}}"
    assert "1 changed" in (await shell.run("apply", "-f", "-", stdin=asked)).stdout
    await shell.run("tenants", "create", "acme", "--strategy", "per_tenant")
    for filters in (("--selector", "plan=gold"), ("--search", "ET")):
        found = await shell.json("tenants", *filters, "--json")
        assert [each["id"] for each in found] == ["beta"]


async def test_what_is_named_is_deleted_although_versions_are_required(serve: Serve) -> None:
    async with serve(require_if_match=True) as service:
        shell = Shell(str(service.client.base_url))
        await shell.run("tenants", "create", "acme", "--strategy", "per_tenant")
        await shell.run("query", "acme", "select 1")
        await shell.run("credentials", "create", "acme", "web")
        await shell.run("credentials", "revoke", "acme", "web", "--yes")
        await shell.run("pools", "evict", "acme")
        await shell.run("tenants", "delete", "acme", "--yes")
        assert await shell.json("tenants", "--json") == []


async def test_a_pool_is_resized_paused_and_evicted(shell: Shell, service: Served) -> None:
    await shell.run("tenants", "create", "acme", "--strategy", "per_tenant", "--label", "a=b")
    await shell.run("pools", "set", "acme", "--max-size", "3", "--min-size", "1")
    [pool] = await shell.json("pools", "--json")
    assert (pool["pool_id"], pool["desired"]["max_size"]) == ("acme", 3)
    for dry_run in (["--dry-run"], []):
        large = await shell.run("pools", "set", "acme", "--max-size", "900", *dry_run)
        assert "max_size 900 is never reached" in " ".join(large.stderr.split())
    assert (await shell.run("pools", "set", "acme", "--max-size", "3")).stderr == ""
    assert "paused" in (await shell.run("pools", "pause", "acme")).stdout
    for command in (["pools"], ["pools", "show", "acme"], ["tenants"], ["top", "--once"]):
        assert re.search(r"paused \d+s by api", (await shell.run(*command)).stdout), command
    resumed = await shell.run("pools", "resume", "acme")
    assert re.fullmatch(r"acme: resumed, \w+\n", resumed.stdout)
    checked = await shell.run("pools", "check", "acme")
    assert re.fullmatch(r"acme: \d connections? tested, 0 failed\n", checked.stdout)
    await shell.run("tenants", "provision", "nobody", status=6)
    assert "tenant-not-found" in (await shell.run("refusals")).stdout
    await shell.run("pools", "set", "acme", "--min-size", "0")
    evicted = await shell.run("pools", "evict", "acme", "--force")
    assert re.fullmatch(r"acme: evicted, \d connections? closed, 0 leases cut\n", evicted.stdout)
    await shell.run("pools", "pause", "acme")
    resumed = await shell.run("pools", "resume", "acme")
    assert resumed.stdout == "acme: resumed, opens at its next use\n"
    assert await service.query("acme", "SELECT 1") == 200
    [numbers] = await shell.json("stats", "--json")
    assert (numbers["tenant"], numbers["connections_acquired"]) == ("acme", 1)
    events = await shell.json("events", "--json", "--tenant", "acme")
    assert [event["action"] for event in events][-1] == "tenant.created"
    asked = await shell.json("events", "--json", "--origin", "request", "--actor", "api")
    assert len(asked) == len(await shell.json("events", "--json"))
    assert await shell.json("events", "--json", "--origin", "service") == []
    screen = (await shell.run("top", "--once")).stdout
    assert "1 tenant," in screen
    assert "acme" in screen
    await shell.run("tenants", "delete", "acme", "--yes")


async def test_an_error_is_one_sentence_with_its_own_exit_status(shell: Shell) -> None:
    missing = await shell.run("pools", "show", "nobody", status=6)
    assert missing.stderr == "poolkeeper: There is no tenant nobody.\n"
    unknown = await shell.run("recommendations", "apply", "no-id", status=6)
    assert unknown.stderr == "poolkeeper: There is no recommendation no-id.\n"


@pytest.mark.parametrize(
    ("url", "status"), [("http://127.0.0.1:9", 3), ("ftp://there", 2), ("there", 2)]
)
async def test_unreachable_services_and_invalid_urls_have_their_own_statuses(
    url: str, status: int
) -> None:
    result = await Shell(url).run("tenants", status=status)
    assert result.stderr.startswith("poolkeeper: ")
    assert "Traceback" not in result.output


async def test_a_change_keeps_what_it_does_not_name(shell: Shell) -> None:
    acme = ["tenants", "create", "acme", "--strategy", "per_tenant", "--no-provision"]
    await shell.run(*acme, "--weight", "3", "--max-leases", "7", "--label", "plan=gold")
    existing = await shell.run(*acme, status=1)
    assert existing.stderr == "poolkeeper: /v1/tenants/acme already exists.\n"
    await shell.run("tenants", "set", "acme", "--label", "region=eu")
    found = await shell.json("tenants", "show", "acme", "--json")
    assert (found["weight"], found["max_leases"], found["state"]) == (3, 7, "declared")
    assert found["labels"] == {"plan": "gold", "region": "eu"}

    change = ["tenants", "set", "acme", "--weight", "5", "--max-leases", "0"]
    planned = await shell.run(*change, "--remove-label", "plan", "--dry-run")
    assert re.search(r"record +tenant acme +weight 3 → 5", planned.stdout)
    assert await shell.json("tenants", "show", "acme", "--json") == found
    changed = await shell.json(*change, "--remove-label", "plan", "--json")
    assert (changed["weight"], changed["max_leases"]) == (5, None)
    assert changed["labels"] == {"region": "eu"}
    await shell.run("tenants", "set", "nobody", "--weight", "2", status=6)


async def test_a_shared_pool_is_named_or_changed_on_purpose(shell: Shell) -> None:
    for tenant in ("one", "two"):
        await shell.run("tenants", "create", tenant, "--strategy", "shared")
    refused = await shell.run("pools", "set", "one", "--max-size", "4", status=1)
    assert "Use --shared to change it for all of them." in refused.stderr
    await shell.run("pools", "set", "one", "--max-size", "4", "--shared")
    assert "paused" in (await shell.run("pools", "pause", "shared@local")).stdout
    assert (await shell.run("pools", "-o", "name")).stdout == "shared@local\n"
    assert "paused" in (await shell.run("pools", "show", "shared@local")).stdout
    missing = await shell.run("pools", "pause", "shared@elsewhere", status=6)
    assert missing.stderr == "poolkeeper: There is no pool shared@elsewhere.\n"


async def test_errors_speak_of_options(shell: Shell) -> None:
    await shell.run("tenants", "create", "acme", "--strategy", "per_tenant", "--no-provision")
    sizes = ["pools", "set", "acme", "--min-size", "5", "--max-size", "2"]
    for words, option in (
        (sizes, "must not exceed --max-size"),
        (["tenants", "set", "acme", "--label", f"{'k' * 200}=v"], "--label"),
        (["events", "--since", "yesterday"], "--since"),
        (["usage", "--from", "yesterday"], "--from: Must be a time"),
        (["usage", "--from", "0h"], "--from: A timestamp looks like"),
        (["usage", "--by", "strategy"], "--by: Must be tenant, pool, server, or label:"),
        (["tenants", "set", "acme", "--weight", "0"], "'--weight': Must be 1 or more."),
        (["tenants", "create", "b", "--strategy", "own"], "'--strategy': 'own' is not one of"),
    ):
        refused = await shell.run(*words, status=2)
        assert option in refused.stderr
        assert "min_size" not in refused.stderr
        assert "/body" not in refused.stderr


async def test_a_statement_is_run_as_a_tenant(shell: Shell) -> None:
    await shell.run("tenants", "create", "acme", "--strategy", "per_tenant")
    await shell.run("query", "acme", "CREATE TABLE t (id int, word text)", "--write")
    await shell.run(
        "query", "acme", "INSERT INTO t VALUES ($1, $2)", *["-p", "1", "-p", "hi", "--write"]
    )
    rows = await shell.run("query", "acme", "-", stdin="SELECT word, id FROM t")
    assert rows.stdout == "word  id\nhi    1\n"
    assert (await shell.run("query", "acme", "SELECT 7", "-o", "name")).stdout == "7\n"
    failed = await shell.run("query", "acme", "SELECT nothing", status=1)
    assert failed.stderr == (
        'poolkeeper: column "nothing" does not exist\nLine 1: SELECT nothing\n               ^\n'
    )
    written = await shell.run("query", "acme", "INSERT INTO t VALUES (2, 'no')", status=1)
    assert written.stderr.endswith("Hint: To write, add --write.\n")
    await shell.run("query", "acme", "CREATE UNIQUE INDEX ON t (word)", "--write")
    twice = await shell.run("query", "acme", "INSERT INTO t VALUES (2, 'hi')", "--write", status=1)
    assert twice.stderr.endswith("\nDetail: Key (word)=(hi) already exists.\n")
    several = await shell.run("query", "acme", "SELECT 1; SELECT 2", status=1)
    assert several.stderr.endswith("Hint: Run them one at a time.\n")
    rotated = await shell.run("tenants", "rotate", "acme")
    assert re.match(r"tenant_acme: new password \(version \d+\), 1 connection to", rotated.stdout)
    assert (await shell.run("query", "acme", "SELECT count(*) FROM t")).stdout == "count\n1\n"


async def test_who_is_refused_by_a_pause_learns_how_to_end_it(serve: Serve) -> None:
    async with serve(callers_of_paused_pools="refuse") as service:
        shell = Shell(str(service.client.base_url))
        await shell.run("tenants", "create", "acme", "--strategy", "per_tenant")
        await shell.run("pools", "pause", "acme")
        refused = await shell.run("query", "acme", "SELECT 1", status=1)
        assert refused.stderr.endswith("\nHint: `poolkeeper pools resume acme` resumes it.\n")


async def test_a_shared_pool_is_evaluated_by_one_of_its_tenants(shell: Shell) -> None:
    refused = await shell.run("advisor", "evaluate", "shared@local", status=2)
    assert refused.stderr == "poolkeeper: Name a tenant; for a shared pool, any of its tenants.\n"


async def test_a_tenant_whose_objects_exist_is_created_and_the_hint_names_it(shell: Shell) -> None:
    create = ("tenants", "create", "acme", "--strategy", "per_tenant")
    await shell.run(*create)
    await shell.run("tenants", "delete", "acme", "--yes")
    created = await shell.run(*create, status=1)
    assert (
        "Tenant acme was created, but not provisioned. The schema tenant_acme exists already and "
        "was created for an earlier tenant of the same id" in created.stderr
    )
    assert "`poolkeeper tenants provision acme --adopt` takes it over." in created.stderr
    await shell.run("tenants", "provision", "acme", "--adopt")
    for wrong in ("", ".."):
        refused = await shell.run("tenants", "create", wrong, status=2)
        assert "is not a valid id: it needs a letter or digit" in refused.stderr


async def test_a_credential_is_created_listed_and_revoked(shell: Shell) -> None:
    await shell.run("tenants", "create", "acme", "--strategy", "per_tenant", "--no-provision")
    planned = await shell.run("credentials", "create", "acme", "web", "--dry-run")
    assert re.search(r"record +credential acme\.web", planned.stdout)
    assert planned.stderr == ""
    created = await shell.run("credentials", "create", "acme", "web", "--expires", "90d")
    assert re.fullmatch(r"postgresql://acme\.web:[\w-]{43}@127\.0\.0\.1:\d+/acme\n", created.stdout)
    existing = await shell.run("credentials", "create", "acme", "web", status=1)
    assert existing.stderr == "poolkeeper: Credential acme.web exists. Revoke it first.\n"
    [listed] = await shell.json("credentials", "list", "acme", "--json")
    assert (listed["user"], listed["last_used_at"]) == ("acme.web", None)
    assert re.search(
        r"LAST SEEN +-", (await shell.run("credentials", "show", "acme", "web")).stdout
    )
    wrong = await shell.run("credentials", "create", "acme", "Web", status=2)
    assert "Must be 1 to 48 of a-z" in wrong.stderr
    revoked = await shell.run("credentials", "revoke", "acme", "web", "--yes")
    assert revoked.stdout == "acme.web: revoked\n"
    missing = await shell.run("credentials", "show", "acme", "web", status=6)
    assert missing.stderr == "poolkeeper: Tenant acme has no credential web.\n"


async def test_a_node_is_created_changed_paused_and_deleted(shell: Shell) -> None:
    options = ["--address", "h:6432", "--label", "zone=a", "--selector", "plan=gold"]
    planned = await shell.run("nodes", "create", "edge", *options, "--dry-run")
    assert re.search(r"record +node edge", planned.stdout)
    await shell.run("nodes", "create", "edge", *options, "--server-limit", "local=4")
    await shell.run("nodes", "set", "edge", "--server-limit", "local=7")
    [node] = await shell.json("nodes", "--json")
    assert (node["address"], node["selector"]) == ("h:6432", {"plan": "gold"})
    assert (node["labels"], node["limits"]) == ({"zone": "a"}, {"local": 7})
    for wrong in ("local", "local=x"):
        await shell.run("nodes", "set", "edge", "--server-limit", wrong, status=2)
    assert (await shell.run("nodes", "pause", "edge")).stdout == "edge: joining, paused\n"
    assert (await shell.run("nodes", "resume", "edge")).stdout == "edge: joining\n"
    assert re.search(r"NODE +edge", (await shell.run("nodes", "show", "edge")).stdout)
    assert "EST P99 MS" in (await shell.run("nodes", "tenants", "edge")).stdout
    assert (await shell.run("nodes", "delete", "edge", "--yes")).stdout == "edge: deleted\n"
    await shell.run("nodes", "show", "edge", status=6)


async def test_the_advisor_is_shown_changed_and_asked(shell: Shell) -> None:
    await shell.run("tenants", "create", "acme", "--strategy", "per_tenant")
    await shell.run("pools", "set", "acme", "--max-size", "3")
    changed = await shell.run("advisor", "set", "--mode", "apply", "--config", "late_share=0.05")
    names = [line.partition("  ")[0] for line in changed.stdout.splitlines()]
    assert names == [
        "RULE",
        "MODE",
        "OPEN RECOMMENDATIONS",
        "MADE SINCE START",
        "late_share",
    ]
    shown = (await shell.run("advisor")).stdout
    assert re.search(r"MODE +apply", shown)
    assert re.search(r"late_share +0\.05", shown)
    asked = await shell.json("advisor", "evaluate", "acme", "--late-ms", "50", "--json")
    assert asked["current_size"] == 3
    unknown = await shell.run("advisor", "set", "--config", "lateness=1", status=2)
    assert "lateness" in unknown.stderr


async def test_findings_are_listed_with_their_cause(service: Served, shell: Shell) -> None:
    assert await shell.json("findings", "--json") == []
    await shell.run("tenants", "create", "acme", "--strategy", "per_tenant")
    await shell.run("tenants", "provision", "acme")
    async with reporting_node(service.client):
        listed = (await shell.run("findings")).stdout
        assert re.search(
            r"pooler_version +warning +node edge +1 +PgBouncer 1\.18: .* acme\n", listed
        )
        assert await shell.json("findings", "--json") != []
