"""Commands that run until Ctrl-C, and commands that stop half-way."""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from app.cli.main import cli
from tests.fixtures.echo_service import EchoService

_NONE = "tenants: {}"


def call(service: EchoService, *words: str, stdin: str = "") -> Result:
    env = {"POOLKEEPER_URL": service.url, "COLUMNS": "200"}
    return CliRunner().invoke(cli, list(words), input=stdin, env=env)


def changes(service: EchoService) -> Sequence[str]:
    return [f"{method} {path}" for method, path, _ in service.heard if method != "GET"]


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Press Ctrl-C in the third pause; the pauses before it."""
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", sleep)
    return pauses


@pytest.mark.parametrize("words", [["pools"], ["tenants"], ["stats"], ["events"]], ids=" ".join)
def test_a_watched_list_is_fetched_again_until_ctrl_c(
    service: EchoService, interrupted: list[float], words: list[str]
) -> None:
    result = call(service, *words, "--watch", "7")
    assert (result.exit_code, len(service.heard)) == (0, 3)
    assert interrupted == [7.0] * 3


def test_a_watched_list_in_json_is_one_document_a_line(
    service: EchoService, interrupted: list[float]
) -> None:
    result = call(service, "pools", "--watch", "7", "--json")
    documents = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(documents) == len(interrupted) == 3
    assert documents[0] == documents[1]


def test_a_plan_is_applied_and_reported_in_json(service: EchoService) -> None:
    result = call(service, "apply", "-f", "-", "--prune", "--yes", "--json", stdin=_NONE)
    summary = json.loads(result.stdout)
    assert (result.exit_code, summary["deleted"], summary["failed"]) == (0, ["acme"], [])


def test_an_empty_standard_input_is_no_file(service: EchoService) -> None:
    result = call(service, "apply", "-f", "-")
    assert (result.exit_code, service.heard) == (2, [])
    assert "Standard input is empty" in result.stderr


def test_labels_are_pairs(service: EchoService) -> None:
    result = call(service, "tenants", "create", "acme", "--label", "gold")
    assert (result.exit_code, service.heard) == (2, [])
    assert "gold is not key=value" in result.stderr


@pytest.mark.parametrize(
    ("status", "exit_status"), [(401, 4), (403, 4), (500, 1)], ids=["no key", "no scope", "fault"]
)
def test_a_refused_look_at_the_pools_ends_the_plan(
    service: EchoService, status: int, exit_status: int
) -> None:
    manifest = "tenants: {acme: {strategy: per_tenant, pool: {max_size: 3}}}"
    assert call(service, "tenants").exit_code == 0
    service.refusals = [(status, "any")]
    assert call(service, "apply", "-f", "-", stdin=manifest).exit_code == exit_status
    assert changes(service) == []


@pytest.mark.parametrize(
    ("status", "exit_status", "provisioned"), [(409, 5, ["two"]), (403, 4, [])]
)
def test_a_refused_step_skips_its_tenant_and_a_refused_key_everything(
    service: EchoService,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    exit_status: int,
    provisioned: list[str],
) -> None:
    response = EchoService.answer

    def refuse_one(
        self: EchoService, method: str, path: str, body: object
    ) -> tuple[int, Mapping[str, Any]]:
        done = response(self, method, path, body)
        is_refused = method == "PUT" and path.endswith("/one")
        return (status, {"detail": "Refused."}) if is_refused else done

    monkeypatch.setattr(EchoService, "answer", refuse_one)
    manifest = "tenants: {one: {strategy: shared}, two: {strategy: shared}}"
    result = call(service, "apply", "-f", "-", "--parallel", "1", stdin=manifest)
    assert result.exit_code == exit_status, result.output
    expected = [f"POST /v1/tenants/{tenant}/provision" for tenant in provisioned]
    assert [each for each in changes(service) if each.startswith("POST")] == expected


@pytest.mark.parametrize("body", ["[]", "3", "null", "<html>"])
def test_what_is_no_document_is_not_poolkeepers(
    service: EchoService, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    monkeypatch.setattr(httpx.Response, "json", lambda _, **options: json.loads(body, **options))
    result = call(service, "tenants", "show", "acme")
    assert result.exit_code == 3
    assert "does not respond like Poolkeeper" in result.stderr
