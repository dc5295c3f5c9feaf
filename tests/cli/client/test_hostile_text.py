"""Hostile text from a service, and terminals with few characters: commands print plain text."""

import json
import os
import pty
import select
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli.main import cli
from app.text.printable import is_printable
from tests.fixtures.echo_service import EchoService, echo_service

HOSTILE = "\x1b]0;PWNED\x07\x1b[2J\r\n\x9b1A\x7f\u202egpj\u2066\u2028[bold]x[/bold] Łódź"
ROOT = Path(__file__).parents[3]
COMMANDS = [
    ["tenants"],
    ["tenants", "show", "acme"],
    ["tenants", "create", "acme", "--label", "a=b"],
    ["tenants", "set", "acme", "--weight", "2"],
    ["tenants", "provision", "acme"],
    ["tenants", "delete", "acme", "--yes"],
    ["credentials", "list", "acme"],
    ["credentials", "show", "acme", "web"],
    ["credentials", "create", "acme", "web"],
    ["credentials", "revoke", "acme", "web", "--yes"],
    ["pools"],
    ["pools", "show", "acme"],
    ["pools", "set", "acme", "--max-size", "3"],
    *(
        ["pools", operation, "acme"]
        for operation in ("pause", "resume", "recycle", "check", "drain")
    ),
    ["pools", "evict", "acme"],
    ["pools", "evict-expired"],
    ["stats"],
    ["stats", "show", "acme"],
    ["stats", "history", "acme"],
    ["nodes"],
    ["nodes", "show", "edge"],
    ["nodes", "tenants", "edge"],
    ["servers"],
    ["servers", "show", "local"],
    ["recommendations"],
    ["recommendations", "show", "3f2b8c1e"],
    ["events"],
    ["events", "show", "42"],
    ["findings"],
    ["refusals"],
    ["refusals", "show", "42"],
    ["advisor"],
    ["advisor", "set", "--mode", "apply"],
    ["advisor", "evaluate", "acme"],
    ["query", "acme", "SELECT 1"],
    ["top", "--once"],
]
# Environments in which Python neither knows UTF-8 nor switches to it.
LATIN_1 = {"PYTHONIOENCODING": "latin-1"}
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
POSIX = {"LC_ALL": "POSIX"}


@pytest.fixture
def service() -> Iterator[EchoService]:
    """A service whose strings are all hostile."""
    with echo_service(HOSTILE) as running:
        yield running


def assert_is_text(output: str) -> None:
    """It contains no control characters for a terminal."""
    assert [line for line in output.split("\n") if not is_printable(line)] == []


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_text_from_the_service_is_printed_escaped(service: EchoService, words: list[str]) -> None:
    result = CliRunner().invoke(cli, words, env={"POOLKEEPER_URL": service.url, "COLUMNS": "80"})
    assert result.exit_code == 0, result.output
    assert_is_text(result.output)


@pytest.mark.parametrize("words", [["tenants"], ["events"], ["pools"], ["stats"]], ids=" ".join)
def test_json_is_escaped_and_keeps_its_meaning(service: EchoService, words: list[str]) -> None:
    result = CliRunner().invoke(cli, [*words, "--json"], env={"POOLKEEPER_URL": service.url})
    assert_is_text(result.output)
    assert HOSTILE in texts(json.loads(result.stdout))


def texts(value: object) -> str:
    """All strings of a JSON value."""
    match value:
        case dict():
            return "".join(texts(each) for each in value.values())
        case list():
            return "".join(texts(each) for each in value)
        case _:
            return str(value)


def test_an_error_is_escaped_and_stays_on_one_line(service: EchoService) -> None:
    env = {"POOLKEEPER_URL": service.url}
    service.refusals = [(409, "conflict")]
    refused = CliRunner().invoke(cli, ["pools", "evict-expired"], env=env)
    assert refused.exit_code == 1
    assert_is_text(refused.output)
    assert len(refused.stderr.splitlines()) == 1


def test_a_plan_is_printed_escaped(service: EchoService) -> None:
    manifest = "tenants: {acme: {strategy: shared, labels: {plan: gold}}, other: {}}"
    for words in (["--dry-run"], ["--prune", "--yes"], ["--prune"]):
        result = CliRunner().invoke(
            cli, ["apply", "-f", "-", *words], input=manifest, env={"POOLKEEPER_URL": service.url}
        )
        assert_is_text(result.output)
        assert not isinstance(result.exception, ValueError)


@pytest.mark.parametrize("key", [409, 429, 503])
def test_retryable_responses_are_retried(service: EchoService, key: int) -> None:
    service.words = ""
    code = "idempotency-key-in-flight" if key == 409 else "any"
    service.refusals = [(key, code)] * 3
    result = CliRunner().invoke(
        cli, ["pools", "evict-expired"], env={"POOLKEEPER_URL": service.url}
    )
    assert result.exit_code == 0, result.output
    assert len(service.heard) == 4


def test_other_conflicts_are_not_retried(service: EchoService) -> None:
    service.refusals = [(409, "objects-exist")] * 3
    result = CliRunner().invoke(
        cli, ["pools", "evict-expired"], env={"POOLKEEPER_URL": service.url}
    )
    assert result.exit_code == 1
    assert len(service.heard) == 1


def run(
    service: EchoService, words: Sequence[str], environment: dict[str, str], stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Run a command in its own process."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LC_")}
    return subprocess.run(
        [sys.executable, "-m", "app", *words],
        input=stdin,
        capture_output=True,
        check=False,
        timeout=180,
        cwd=ROOT,
        env={**clean, **environment, "POOLKEEPER_URL": service.url},
    )


@pytest.mark.parametrize("environment", [LATIN_1, ASCII, POSIX], ids=["latin-1", "ascii", "posix"])
def test_commands_work_in_every_locale(service: EchoService, environment: dict[str, str]) -> None:
    for words in (["top", "--once"], ["events"], ["tenants"], ["tenants", "--json"]):
        ended = run(service, words, environment)
        assert (ended.returncode, ended.stderr) == (0, b""), words
        assert ended.stdout
    assert json.loads(ended.stdout)[0]["id"].endswith("Łódź")


@pytest.mark.parametrize("environment", [LATIN_1, ASCII], ids=["latin-1", "ascii"])
def test_a_file_from_standard_input_is_utf_8(
    service: EchoService, environment: dict[str, str]
) -> None:
    service.words = ""
    manifest = "tenants: {new: {strategy: shared, provision: false, labels: {city: Köln Łódź}}}"
    ended = run(service, ["apply", "-f", "-"], environment, manifest.encode())
    assert ended.returncode == 0, ended.stderr
    [body] = [body for method, _, body in service.heard if method == "PUT"]
    assert body["labels"] == {"city": "Köln Łódź"}
    refused = run(service, ["apply", "-f", "-"], environment, manifest.encode("utf-16"))
    assert (refused.returncode, refused.stderr.count(b"\n")) == (2, 1)


def test_a_closed_pipe_is_not_an_error(service: EchoService) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    for words in (["tenants"], ["tenants", "--json"], ["events"], ["top", "--once"]):
        ended = subprocess.run(
            [sys.executable, "-m", "app", *words],
            stdout=writing,
            stderr=subprocess.PIPE,
            check=False,
            timeout=180,
            cwd=ROOT,
            env={**os.environ, "POOLKEEPER_URL": service.url},
        )
        assert ended.stderr == b"", words
    os.close(writing)


def test_top_accepts_bytes_that_are_invalid_in_the_locale(service: EchoService) -> None:
    ours, its = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "app", "top", "--interval", "0.2"],
        stdin=its,
        stdout=its,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "POOLKEEPER_URL": service.url, "TERM": "xterm"},
    )
    os.close(its)
    output = b""
    while b"quit" not in output and select.select([ours], [], [], 60)[0]:
        output += os.read(ours, 65536)
    os.write(ours, b"\xe4s\xc3")
    os.write(ours, b"q")
    while select.select([ours], [], [], 60)[0]:
        try:
            os.read(ours, 65536)
        except OSError:  # it has ended
            break
    _, errors = process.communicate(timeout=180)
    os.close(ours)
    assert (process.returncode, errors) == (0, b"")
    assert b"PWNED\x07" not in output
