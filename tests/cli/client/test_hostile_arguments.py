"""Hostile arguments: taken literally, or refused in one sentence."""

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest
from typer.testing import CliRunner, Result

from app.cli.main import cli
from tests.fixtures.echo_service import EchoService
from tests.fixtures.preloaded import preloaded_program

ROOT = Path(__file__).parents[3]
COMMAND = f"'{sys.executable}' -m app"
# Without quoting in a path, each would address another resource.
IDS = [
    "",
    ".",
    "..",
    "../servers",
    "acme/pool",
    "acme?force=true",
    "acme#x",
    "%61cme",
    "acme%2Fpool",
    "acme\npool",
    "Łódź",
    "\udcff",
]
COMMANDS = [
    ["tenants", "show", "{}"],
    ["tenants", "create", "{}"],
    ["tenants", "set", "{}", "--weight", "2"],
    ["tenants", "provision", "{}"],
    ["tenants", "delete", "{}", "--yes"],
    ["credentials", "list", "{}"],
    ["nodes", "show", "{}"],
    ["nodes", "tenants", "{}"],
    ["nodes", "pause", "{}"],
    ["credentials", "create", "{}", "web"],
    ["pools", "show", "{}"],
    ["pools", "set", "{}", "--max-size", "3"],
    ["pools", "drain", "{}"],
    ["pools", "evict", "{}"],
    ["servers", "show", "{}"],
    ["stats", "show", "{}"],
    ["stats", "history", "{}"],
    ["query", "{}", "SELECT 1"],
]


def call(service: EchoService, *words: str, **environment: str) -> Result:
    """Run a command; it must not end with a traceback."""
    env = {"POOLKEEPER_URL": service.url, **environment}
    result = CliRunner().invoke(cli, list(words), env=env)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_an_id_never_addresses_another_resource(service: EchoService, words: list[str]) -> None:
    for id_ in IDS:
        service.heard.clear()
        result = call(service, *(word.replace("{}", id_) for word in words))
        if result.exit_code == 2:
            assert service.heard == []
            assert len(result.stderr.splitlines()) == 1
        for _, path, _ in service.heard:
            kind, name = path.partition("?")[0].split("/")[2:4]
            # The service names the server of a pool.
            if kind != "servers" or words[0] == kind:
                assert unquote(name) == id_
            assert "force=true" not in path


@pytest.mark.parametrize("verb", ["show", "revoke"])
def test_a_name_of_a_credential_never_addresses_another_resource(
    service: EchoService, verb: str
) -> None:
    for name in IDS:
        service.heard.clear()
        call(service, "credentials", verb, "acme", name)
        for _, path, _ in service.heard:
            assert unquote(path.partition("?")[0].split("/")[5]) == name


def test_an_id_of_a_file_never_addresses_another_resource(service: EchoService) -> None:
    manifest = 'tenants: {"acme/pool": {provision: false}, "a?b": {provision: false}}'
    result = CliRunner().invoke(
        cli, ["apply", "-f", "-"], input=manifest, env={"POOLKEEPER_URL": service.url}
    )
    assert (result.exit_code, service.heard) == (2, [])


@pytest.mark.parametrize(
    "words",
    [
        ["tenants", "--server", "\udcff"],
        ["tenants", "create", "acme", "--label", "a=\udcff"],
        ["events", "--since", "\udcff"],
        ["recommendations", "--tenant", "\udcff"],
    ],
    ids=lambda words: " ".join(words[:-1]),
)
def test_arguments_that_are_not_utf_8_are_refused(service: EchoService, words: list[str]) -> None:
    result = call(service, *words)
    assert (result.exit_code, service.heard) == (2, [])
    assert result.stderr == "poolkeeper: An argument is not valid UTF-8.\n"


@pytest.mark.parametrize("key", ["geheimschlüssel", "geheim\nX: y", "geheim\udcff", "geheim\0"])
def test_an_invalid_key_is_refused_and_not_printed(
    service: EchoService, tmp_path: Path, key: str
) -> None:
    (tmp_path / "key").write_bytes(key.encode("utf-8", "surrogateescape"))
    sources = [{"POOLKEEPER_API_KEY_FILE": str(tmp_path / "key")}]
    if "\0" not in key:
        sources.append({"POOLKEEPER_API_KEY": key})
    for environment in sources:
        result = call(service, "tenants", **environment)
        assert (result.exit_code, service.heard) == (2, [])
        assert "key" in result.stderr.lower()
        assert "geheim" not in result.stderr
        assert "address" not in result.stderr


def test_line_ends_and_byte_order_marks_around_a_key_are_ignored(
    service: EchoService, tmp_path: Path
) -> None:
    (tmp_path / "key").write_bytes(b"\xef\xbb\xbfkey\r\n")
    for environment in (
        {"POOLKEEPER_API_KEY_FILE": str(tmp_path / "key")},
        {"POOLKEEPER_API_KEY": "key\n"},
    ):
        assert call(service, "tenants", **environment).exit_code == 0


@pytest.mark.parametrize(
    ("variable", "scheme"), [("HTTP_PROXY", "http"), ("SSL_CERT_FILE", "https")]
)
def test_an_unusable_environment_is_reported(
    service: EchoService, variable: str, scheme: str
) -> None:
    url = service.url.replace("http", scheme)
    result = call(service, "tenants", POOLKEEPER_URL=url, **{variable: "nowhere:pem"})
    assert result.exit_code == 2
    assert "set in the environment" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("words", [["tenants"], ["events"], ["pools"], ["top", "--once"]])
def test_a_service_of_another_kind_is_detected(service: EchoService, words: list[str]) -> None:
    service.refusals = [(200, "another")] * 2
    result = call(service, *words)
    assert result.exit_code == 3
    assert result.stderr == f"poolkeeper: {service.url} does not respond like Poolkeeper.\n"


def shell(
    service: EchoService, line: str, command: str = COMMAND
) -> subprocess.CompletedProcess[str]:
    """Run a line in a shell; `pk` stands for the command."""
    return subprocess.run(
        ["/bin/sh", "-c", line.replace("pk", command)],
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
        cwd=ROOT,
        env={**os.environ, "POOLKEEPER_URL": service.url},
    )


@pytest.mark.parametrize(
    "line", ["pk tenants >&-", "pk tenants --json >&-", "pk top --once <&-", "pk events 2>&-"]
)
def test_a_closed_stream_is_treated_as_the_null_device(service: EchoService, line: str) -> None:
    ended = shell(service, line)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("words", ["tenants", "tenants --json", "openapi"])
def test_a_full_disk_is_reported_in_one_sentence(
    service: EchoService, words: str, tmp_path: Path
) -> None:
    # Only the last one imports the service, which takes seconds.
    command = f"'{preloaded_program(tmp_path)}'" if words == "openapi" else COMMAND
    ended = shell(service, f"pk {words} > /dev/full", command)
    assert ended.returncode == 1
    assert ended.stderr == "poolkeeper: Cannot write the output: no space is left.\n"


@pytest.mark.parametrize("line", ["pk apply -f - --prune --yes <&-", "false | pk apply -f - --yes"])
def test_empty_standard_input_is_not_an_empty_manifest(service: EchoService, line: str) -> None:
    ended = shell(service, line)
    assert (ended.returncode, service.heard) == (2, [])
    assert ended.stderr.startswith("poolkeeper: Standard input is empty.")
