"""`poolkeeper apply` against a service: dry runs, order, interruption."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.client.shell import Shell
from tests.fixtures.echo_service import EchoService, echo_service
from tests.fixtures.postgres import Database
from tests.fixtures.served import Serve, Served
from tests.fixtures.waiting import eventually

ROOT = Path(__file__).parents[3]


@pytest.fixture
async def service(serve: Serve) -> AsyncIterator[Served]:
    """A service with no tenants."""
    async with serve() as running:
        yield running


async def test_a_dry_run_finds_what_the_service_would_refuse(service: Served) -> None:
    shell = Shell(str(service.client.base_url))
    await service.tenant("old")
    (await service.client.put("/v1/tenants/old/pool", json={})).raise_for_status()
    asked = """
    tenants:
      fresh: {strategy: per_tenant, pool: {min_size: 5, max_size: 2}}
      good: {strategy: per_tenant, pool: {max_size: 3}}
      nowhere: {server: elsewhere}
      old: {strategy: per_tenant, pool: {min_size: 500}}
    """
    planned = await shell.json("apply", "-f", "-", "--dry-run", "--json", stdin=asked, status=1)
    refused = {
        (step["tenant"], step["verb"]): step["refusal"]
        for step in planned["steps"]
        if step["refusal"]
    }
    assert refused.keys() == {
        ("fresh", "resize"),
        ("nowhere", "create"),
        ("old", "resize"),
    }
    assert "must not exceed max_size" in refused["fresh", "resize"]
    unknown = {
        (step["tenant"], step["verb"]): step["unknown"]
        for step in planned["steps"]
        if step["unknown"]
    }
    assert unknown.keys() == {
        ("fresh", "provision"),
        ("good", "provision"),
        ("good", "resize"),
        ("nowhere", "provision"),
    }
    assert set(unknown.values()) == {"The tenant does not exist yet."}
    made = [each for each in planned["steps"] if each["plan"]]
    assert [(each["tenant"], each["verb"]) for each in made] == [
        ("fresh", "create"),
        ("good", "create"),
    ]
    as_yaml = await shell.run("apply", "-f", "-", "--dry-run", "-o", "yaml", stdin=asked, status=1)
    assert yaml.safe_load(as_yaml.stdout) == planned
    shown = await shell.run("apply", "-f", "-", "--dry-run", stdin=asked, status=1)
    assert "! resize fresh: min_size - → 5, max_size - → 2" in shown.stdout
    assert "? provision good: role, schema or database" in shown.stdout
    assert "? not known before it is applied (4): The tenant does not exist yet." in shown.stdout
    assert "3 would be refused" in shown.stdout
    assert [each["id"] for each in await shell.json("tenants", "--json")] == ["old"]


@pytest.mark.parametrize("options", [[], ["--dry-run"]], ids=["apply", "dry run"])
async def test_a_file_that_changes_a_strategy_is_refused_as_a_whole(
    service: Served, options: list[str]
) -> None:
    shell = Shell(str(service.client.base_url))
    await service.tenant("acme")
    asked = "tenants: {acme: {strategy: shared}, beta: {strategy: per_tenant}}"
    refused = await shell.run("apply", "-f", "-", *options, stdin=asked, status=1)
    assert "! acme: strategy per_tenant → shared: cannot be changed\n" in refused.stdout
    assert "1 to create, 1 to provision; 1 would be refused" in refused.stdout
    assert ("nothing was changed" in refused.stderr) == (not options)
    assert [each["id"] for each in await shell.json("tenants", "--json")] == ["acme"]


async def test_the_plan_is_on_standard_output_whether_or_not_it_is_carried_out(
    service: Served,
) -> None:
    shell = Shell(str(service.client.base_url))
    asked = "tenants: {acme: {strategy: shared, weight: 2}}"
    planned = await shell.run("apply", "-f", "-", "--dry-run", stdin=asked)
    done = await shell.run("apply", "-f", "-", stdin=asked)
    for shown in (planned, done):
        assert "+ create acme: shared on default server\n" in shown.stdout
        assert shown.stderr == ""
    again = await shell.json("apply", "-f", "-", "-o", "json", stdin=asked)
    assert again == {"steps": []}


async def test_objects_that_exist_are_named_with_the_command_that_takes_them_over(
    service: Served,
) -> None:
    shell = Shell(str(service.client.base_url))
    for tenant in ("acme", "beta"):
        await shell.run("tenants", "create", tenant, "--strategy", "per_tenant")
        await shell.run("tenants", "delete", tenant, "--yes")
    both = "tenants: {acme: {strategy: per_tenant}, beta: {strategy: per_tenant}}"
    first = both.partition(",")[0] + "}"
    one = await shell.run("apply", "-f", "-", stdin=first, status=5)
    assert "! provision acme\n    The schema tenant_acme exists already" in one.stdout
    assert "`poolkeeper tenants provision acme --adopt` takes it over." in one.stdout
    two = await shell.run("apply", "-f", "-", stdin=both, status=5)
    assert "! provision acme, beta\n    The schema tenant_… exists already" in two.stdout
    await shell.run("tenants", "provision", "acme", "--adopt")
    refused = await shell.run("apply", "-f", "-", "--dry-run", stdin=both, status=1)
    assert "The schema tenant_beta exists already" in refused.stdout
    planned = await shell.run("apply", "-f", "-", "--adopt", "--dry-run", stdin=both)
    assert "existing ones too" in planned.stdout
    await shell.run("apply", "-f", "-", "--adopt", stdin=both)
    assert (await service.client.get("/v1/tenants/beta")).json()["state"] == "provisioned"


async def test_a_tenant_whose_login_is_disabled_is_provisioned_again(
    serve: Serve, database: Database
) -> None:
    """As after a restore: a catalog knows nothing of a deletion after its backup."""
    async with serve(health_check_interval_seconds=0.5) as service:
        await service.tenant("acme")
        async with database.connected() as connection:
            await connection.execute("ALTER ROLE tenant_acme NOLOGIN")

        async def is_found() -> bool:
            found = (await service.client.get("/v1/tenants?finding=critical")).json()["items"]
            return [each["id"] for each in found] == ["acme"]

        await eventually(is_found)
        shell = Shell(str(service.client.base_url))
        asked = "tenants: {acme: {strategy: per_tenant}}"
        done = await shell.run("apply", "-f", "-", stdin=asked)
        assert "1 to provision" in done.stdout
        assert await service.query("acme", "SELECT 1") == 200
        again = await shell.run("apply", "-f", "-", stdin=asked)
        assert again.stdout == "No changes: the service matches the file.\n"


async def test_connections_are_given_up_before_they_are_taken(service: Served) -> None:
    shell = Shell(str(service.client.base_url))
    [server] = (await service.client.get("/v1/servers")).json()["items"]
    most = server["budget"]["limit"] - 2

    def sizes(alpha: int, beta: int) -> str:
        pool = "{strategy: per_tenant, pool: {min_size: %d, max_size: %d}}"
        return f"tenants: {{alpha: {pool % (alpha, most)}, beta: {pool % (beta, most)}}}"

    await shell.run("apply", "-f", "-", stdin=sizes(1, most))
    await shell.run("apply", "-f", "-", "--dry-run", stdin=sizes(most, 1))
    changed = await shell.run("apply", "-f", "-", stdin=sizes(most, 1))
    assert "2 changed, 0 unchanged, 0 failed" in changed.stdout
    await shell.run("apply", "-f", "-", "--prune", "--yes", stdin="tenants: {}")


@pytest.fixture
def echo() -> Iterator[EchoService]:
    with echo_service() as running:
        yield running


def test_ctrl_c_leaves_a_true_summary(echo: EchoService, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that was sent is waited for; no other is sent."""
    interrupted, sent = threading.Event(), threading.Event()
    answer = EchoService.answer

    def wait(
        self: EchoService, method: str, path: str, body: object
    ) -> tuple[int, Mapping[str, Any]]:
        if method == "PUT" and path.endswith("/b"):
            sent.set()
            assert interrupted.wait(60)
        return answer(self, method, path, body)

    monkeypatch.setattr(EchoService, "answer", wait)
    # A command in the background, as these tests may be, ignores Ctrl-C, and so do its children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [sys.executable, "-m", "app", "apply", "-f", "-", "--parallel", "1", "--json"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "POOLKEEPER_URL": echo.url},
    )
    assert process.stdin is not None
    process.stdin.write(b"tenants: {a: {}, b: {}, c: {}}")
    process.stdin.close()
    process.stdin = None
    assert sent.wait(60)
    process.send_signal(signal.SIGINT)
    deadline = time.monotonic() + 60
    while _has_pending_signals(process.pid):
        assert time.monotonic() < deadline, "the command did not take the signal"
        time.sleep(0.01)
    interrupted.set()
    output, errors = process.communicate(timeout=180)
    summary = json.loads(output)
    assert (process.returncode, errors) == (130, b"")
    provisioned = [path.split("/")[3] for method, path, _ in echo.heard if method == "POST"]
    assert summary["created"] == provisioned
    assert summary["unfinished"] == [each for each in "abc" if each not in provisioned]
    assert "c" in summary["unfinished"]


def _has_pending_signals(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    pending = re.findall(r"^(?:SigPnd|ShdPnd):\s+(\w+)$", status, re.MULTILINE)
    return any(int(mask, 16) for mask in pending)
