"""The formats of every list and every resource, exit statuses, and prefixes of IDs."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from typer.testing import CliRunner, Result

from app.cli.main import cli
from tests.fixtures.echo_service import EchoService

# What is listed and shown, and the name of the one item.
NAMES = {
    "tenants": "acme",
    "pools": "acme",
    "nodes": "edge-1",
    "servers": "local",
    "recommendations": "3f2b8c1e-9d47-4c5e-8a70-6a1f0b2c3d4e",
    "stats": "acme",
    "events": "42",
    "refusals": "42",
}
SHOWN = {**NAMES, "recommendations": "3f2b", "refusals": "5d1c4a"}
VIEWS = [
    *([name, "list"] for name in NAMES),
    *([name, "show", shown] for name, shown in SHOWN.items()),
    ["stats", "history", "acme"],
    ["nodes", "tenants", "edge-1"],
    ["usage", "list", "--by", "label:plan", "--from", "2026-11-19T00:00:00Z"],
    ["leases", "list", "--state", "waiting"],
    ["findings", "list"],
    ["credentials", "list", "acme"],
    ["credentials", "show", "acme", "web"],
    ["advisor", "show"],
]


def call(service: EchoService, *words: str, status: int = 0) -> Result:
    result = CliRunner().invoke(cli, list(words), env={"POOLKEEPER_URL": service.url})
    assert result.exit_code == status, result.output
    return result


@pytest.mark.parametrize("words", VIEWS, ids=" ".join)
def test_every_view_has_every_format(service: EchoService, words: list[str]) -> None:
    document = json.loads(call(service, *words, "-o", "json").stdout)
    assert json.loads(call(service, *words, "--json").stdout) == document
    assert yaml.safe_load(call(service, *words, "-o", "yaml").stdout) == document
    wide = call(service, *words, "-o", "wide").stdout
    assert call(service, *words).stdout == wide  # nothing is left out in a pipe
    if words[0] in NAMES and words[1] in {"list", "show"}:
        assert call(service, *words, "-o", "name").stdout == f"{NAMES[words[0]]}\n"


def test_yaml_has_no_characters_that_act_on_a_terminal(service: EchoService) -> None:
    service.words = "\x1b[2J\u202e Łódź"
    shown = call(service, "tenants", "show", "acme", "-o", "yaml").stdout
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert yaml.safe_load(shown)["id"] == f"acme{service.words}"


def test_a_result_has_every_format(service: EchoService) -> None:
    words = ["pools", "evict", "acme"]
    assert call(service, *words, "-o", "name").stdout == "acme\n"
    document = json.loads(call(service, *words, "--json").stdout)
    assert yaml.safe_load(call(service, *words, "-o", "yaml").stdout) == document
    assert call(service, *words).stdout.startswith("acme: evicted, ")


def test_who_has_no_key_learns_how_to_give_one(service: EchoService) -> None:
    service.refusals = [(401, "unauthenticated")]
    result = call(service, "tenants", "list", status=4)
    assert result.stderr == (
        "poolkeeper: The service needs a valid API key: name its file with --api-key-file or "
        "POOLKEEPER_API_KEY_FILE.\n"
    )


def test_a_time_may_be_how_long_ago(service: EchoService) -> None:
    for words in (
        ["usage", "list", "--from", "2h", "--to", "30m"],
        ["stats", "history", "acme", "--from", "2h", "--to", "30m"],
        ["events", "list", "--since", "2h"],
    ):
        result = call(service, *words)
        query = parse_qs(urlsplit(service.heard[-1][1]).query)
        hours = [
            (datetime.now(UTC) - datetime.fromisoformat(query[name][0])) / timedelta(hours=1)
            for name in ("from", "to", "since")
            if name in query
        ]
        assert hours == [pytest.approx(each, abs=0.2) for each in (2, 0.5)[: len(hours)]]
        assert ("from 20" in result.stderr) == ("group" in result.stderr) == (words[0] == "usage")


def test_a_password_is_printed_alone_and_once(service: EchoService) -> None:
    words = ["credentials", "create", "acme", "web", "--expires", "2w"]
    created = call(service, *words)
    assert created.stdout.startswith("postgresql://acme.web:")
    assert len(created.stdout.splitlines()) == 1
    note, last = created.stderr.splitlines()
    assert "For a driver that takes one, such as node-pg" in note
    assert last == "Credential acme.web; its password is shown only once:"
    document = json.loads(call(service, *words, "--json").stdout)
    assert document["node_connection_string"] == created.stdout.strip()
    assert call(service, *words, "-o", "name").stdout == "web\n"
    _, path, body = service.heard[0]
    assert (path, body["name"]) == ("/v1/tenants/acme/credentials", "web")
    expires = datetime.fromisoformat(body["expires_at"])
    assert timedelta(days=13) < expires - datetime.now(UTC) <= timedelta(days=14)


def test_a_credential_that_no_node_serves_says_so(service: EchoService) -> None:
    service.change = lambda _, example: {
        **example,
        "node_connection_string": None,
        "node_connection_strings": [],
    }
    created = call(service, "credentials", "create", "acme", "web")
    assert created.stdout.startswith("postgresql://acme.web:")
    assert "No ready node serves the tenant yet" in created.stderr
    assert "POST /sql" in created.stderr


def test_a_list_says_when_there_is_more(
    service: EchoService, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [{"name": f"s{number}"} for number in range(3)]
    page = {"items": items, "next_cursor": None}
    monkeypatch.setattr(EchoService, "answer", lambda *_: (200, page))
    result = call(service, "servers", "--limit", "2", "-o", "name")
    assert result.stdout == "s0\ns1\n"
    assert result.stderr == "Only the first 2 are shown; --limit shows more.\n"
    monkeypatch.setattr(EchoService, "answer", lambda *_: (200, page | {"matches": 1234}))
    result = call(service, "tenants", "--limit", "1", "-o", "name")
    assert result.stderr == "Only the first of 1,234 is shown; --limit shows more.\n"
    assert call(service, "servers", "--limit", "3", "-o", "name").stderr == ""


IDS = [
    "3f2b8c1e-9d47-4c5e-8a70-6a1f0b2c3d4e",
    "3f2b8c1e-9d47-4c5e-8a70-7a1f0b2c3d4e",
    "55555555-9d47-4c5e-8a70-6a1f0b2c3d4e",
]


@pytest.mark.parametrize(
    ("beginning", "status", "expected"),
    [
        ("5", 0, f"/v1/recommendations/{IDS[2]}/apply"),
        (IDS[0][:25], 0, f"/v1/recommendations/{IDS[0]}/apply"),
        (IDS[1], 0, f"/v1/recommendations/{IDS[1]}/apply"),
        ("3f2b", 2, "3f2b is the beginning of several ids: "),
        ("f2b", 6, "There is no recommendation f2b."),
        ("", 6, "There is no recommendation ."),
    ],
)
def test_a_unique_beginning_is_an_id(
    service: EchoService,
    monkeypatch: pytest.MonkeyPatch,
    beginning: str,
    status: int,
    expected: str,
) -> None:
    answer = EchoService.answer

    def several(
        self: EchoService, method: str, path: str, body: object
    ) -> tuple[int, Mapping[str, Any]]:
        code, found = answer(self, method, path, body)
        if method == "GET":
            found = {**found, "items": [{**found["items"][0], "id": id_} for id_ in IDS]}
        return code, found

    monkeypatch.setattr(EchoService, "answer", several)
    result = call(service, "recommendations", "apply", beginning, status=status)
    posted = [path for method, path, _ in service.heard if method == "POST"]
    assert expected in [*posted, result.stderr.removeprefix("poolkeeper: ").rstrip()] or (
        result.stderr.startswith(f"poolkeeper: {expected}")
    )
    assert bool(posted) == (status == 0)


@pytest.mark.parametrize(
    ("status", "code", "exit_status"),
    [
        (400, "invalid-input", 2),
        (422, "validation-failed", 2),
        (422, "statement-failed", 1),
        (401, "no-key", 4),
        (403, "missing-scope", 4),
        (403, "read-only", 1),
        (403, "tls-required", 1),
        (404, "tenant-not-found", 6),
        (409, "conflict", 1),
        (412, "stale-version", 1),
        (500, "internal-error", 1),
    ],
)
@pytest.mark.parametrize(
    "words",
    [
        ["tenants", "show", "acme"],
        ["pools", "pause", "acme"],
        ["query", "acme", "SELECT 1"],
        ["events", "list"],
        ["advisor", "set", "--mode", "off"],
        ["top", "--once"],
    ],
    ids=" ".join,
)
def test_like_refusals_have_like_statuses(
    service: EchoService, words: list[str], status: int, code: str, exit_status: int
) -> None:
    service.refusals = [(status, code)] * 5
    result = call(service, *words, status=exit_status)
    assert result.stderr.startswith("poolkeeper: Refused")


@pytest.mark.parametrize(
    "line",
    [
        "tenants show ../x",
        "pools set x/y --max-size 3",
        "tenants create acme --label gold",
        "tenants list --selector gold",
        "advisor set --config gold",
        "credentials list",
        "credentials list x/y",
        "credentials create acme web --expires soon",
        "tenants list --limit 0",
        "tenants list --state lost",
        "servers --url there",
        "servers --url ftp://there",
        "servers --api-key-file /nowhere",
        "keys create new --scope admin --expires soon --file {}/keys",
        "keys create NEW --scope admin --file {}/keys",
        "rls-sql a.b.c",
        "simulate",
        "apply -f /nowhere",
    ],
)
def test_an_invalid_argument_has_one_status_wherever_it_is_found(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, line.format(tmp_path).split())
    assert result.exit_code == 2, result.output
    assert result.stderr


def test_a_change_of_others_in_between_is_kept(
    service: EchoService, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = EchoService.answer
    weights = iter([1, 4])

    def changing(
        self: EchoService, method: str, path: str, body: object
    ) -> tuple[int, Mapping[str, Any]]:
        code, found = answer(self, method, path, body)
        if method == "GET":
            return code, {**found, "weight": next(weights)}
        is_first = len(self.heard) == 2
        return (412, {"detail": "Stale.", "code": "stale-version"}) if is_first else (code, found)

    monkeypatch.setattr(EchoService, "answer", changing)
    call(service, "tenants", "set", "acme", "--max-leases", "9")
    bodies = [body for method, _, body in service.heard if method == "PUT"]
    assert [(body["weight"], body["max_leases"]) for body in bodies] == [(1, 9), (4, 9)]


def test_a_server_that_takes_no_writes_says_so_in_any_width(
    service: EchoService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")

    def change(_: str, example: Any) -> Any:  # noqa: ANN401 - JSON
        items = [{**each, "read_only": True} for each in example["items"]]
        return {**example, "items": items}

    service.change = change
    assert "available, read-only" in call(service, "servers", "list").stdout


def test_trouble_of_a_server_or_a_node_is_in_its_state_in_any_width(
    service: EchoService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")

    def change(_: str, example: Any) -> Any:  # noqa: ANN401 - JSON
        trouble = {"state": "available", "read_only": False, "last_error": "It has no room."}
        if "silent_seconds" in example["items"][0]:
            trouble = {"state": "ready", "vulnerable": False, "problem": "Its disk is full."}
        return {**example, "items": [{**each, **trouble} for each in example["items"]]}

    service.change = change
    assert "available, opens no connection" in call(service, "servers", "list").stdout
    assert "ready, problem" in call(service, "nodes", "list").stdout


def test_statistics_begin_with_the_most_waiting_callers(service: EchoService) -> None:
    call(service, "stats", "list")
    call(service, "stats", "list", "--sort", "tenant")
    assert [parse_qs(urlsplit(path).query)["sort"] for _, path, _ in service.heard[-2:]] == [
        ["-waiting_requests"],
        ["tenant"],
    ]
