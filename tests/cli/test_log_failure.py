"""Commands that write a log say in its format why they end."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli.main import cli
from tests.fixtures.canary import SECRET_KEY

pytestmark = pytest.mark.usefixtures("restored_loggers")

NODE = ["node", "--server=http://127.0.0.1:1", "--key-file=none"]
BAD_PORT = "POOLKEEPER_PORT (port): Must be a whole number."


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def error(words: list[str], environment: Mapping[str, str]) -> str:
    ended = CliRunner().invoke(cli, words, env={"POOLKEEPER_PORT": "none", **environment})
    assert ended.exit_code == 2
    assert ended.stdout == ""
    return ended.stderr


@pytest.mark.parametrize("command", ["serve", "migrate", "demo"])
@pytest.mark.parametrize(
    ("environment", "file"),
    [({}, ""), ({"POOLKEEPER_LOG_FORMAT": "json"}, ""), ({}, 'log_format = "json"')],
    ids=["no terminal", "variable", "file"],
)
def test_invalid_settings_are_one_event_in_a_log_of_json(
    command: str, environment: Mapping[str, str], file: str
) -> None:
    Path("poolkeeper.toml").write_text(file)
    event = json.loads(error([command], environment))
    assert event.keys() == {"event", "level", "logger", "timestamp", "reason"}
    assert (event["event"], event["level"]) == ("cannot start", "critical")
    assert event["reason"] == BAD_PORT


@pytest.mark.parametrize(
    ("environment", "file"),
    [
        ({"Poolkeeper_Log_Format": "console"}, 'log_format = "json"'),
        ({}, 'log_format = "console"'),
        ({}, 'LOG_FORMAT = "console"'),
    ],
    ids=["variable", "file", "key in capitals"],
)
def test_they_are_sentences_in_a_log_for_people(environment: Mapping[str, str], file: str) -> None:
    Path("poolkeeper.toml").write_text(file)
    assert error(["serve"], environment) == f"poolkeeper: {BAD_PORT}\n"


@pytest.mark.parametrize("file", ["port =", 'secret_key = "x"'], ids=["no TOML", "secret"])
def test_a_file_that_cannot_be_used_is_reported_like_any_problem(file: str) -> None:
    Path("poolkeeper.toml").write_text(file)
    assert "poolkeeper.toml" in json.loads(error(["serve"], {}))["reason"]


@pytest.mark.parametrize("log_format", ["json", "console", "xml"])
def test_all_problems_are_in_it_and_no_value(log_format: str) -> None:
    said = error(
        ["serve"],
        {
            "POOLKEEPER_LOG_FORMAT": log_format,
            "POOLKEEPER_SECRET_KEY": SECRET_KEY[:20],
            "POOLKEEPER_SERVERS__ONE__PASWORD": SECRET_KEY,
        },
    )
    assert BAD_PORT in said
    assert "POOLKEEPER_SECRET_KEY" in said
    assert "POOLKEEPER_SERVERS__ONE__PASWORD" in said
    assert SECRET_KEY[:20] not in said
    assert len(said.splitlines()) == 1 or log_format == "console"


def test_a_node_that_cannot_start_says_so_in_its_log() -> None:
    event = json.loads(error(NODE, {}))
    assert (event["event"], event["reason"]) == (
        "cannot start",
        "There is no API key to read in none.",
    )
