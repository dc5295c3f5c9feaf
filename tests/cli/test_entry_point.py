"""The entry point: imports, full disks, closed streams; options before a command."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from app import __main__ as entry_point
from app.cli.main import ENTRIES, cli
from tests.fixtures.echo_service import EchoService

ROOT = Path(__file__).parents[2]
# None of these is imported for help or completion. Typer's own imports do not count.
HEAVY = ("fastapi", "httpx", "rich.console", "asyncpg", "sqlalchemy", "yaml", "app.main")
BARE = [
    ["--help"],
    ["--version"],
    ["serve", "--help"],
    ["tenants", "--help"],
    ["pools", "set", "--help"],
    ["apply", "--help"],
    ["keys", "create", "--help"],
    ["rls-sql", "--help"],
]


def imported(words: list[str], **environment: str) -> set[str]:
    """The modules that a command imports."""
    code = (
        "import sys\nsys.argv[0] = 'poolkeeper'\nfrom app.__main__ import main\n"
        "try:\n    main()\nfinally:\n    sys.stderr.write('\\n'.join(sys.modules))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, **environment},
    )
    assert ended.stdout, ended.stderr
    return set(ended.stderr.splitlines())


@pytest.mark.parametrize("words", BARE, ids=" ".join)
def test_help_imports_neither_the_service_nor_a_client(words: list[str]) -> None:
    assert imported(words).isdisjoint({*HEAVY, "pydantic"})


def test_an_agent_takes_no_memory_for_tables_and_colours() -> None:
    assert imported(["node", "--help"]).isdisjoint({"rich", "pygments.lexer"})


def test_the_end_of_a_command_searches_for_no_cycles() -> None:
    code = (
        "import atexit, gc, sys\nfrom app.__main__ import main\n"
        "atexit.register(lambda: print(len(gc.get_objects()), file=sys.stderr))\n"
        "sys.argv[1:] = ['--version']\nmain()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert int(ended.stderr) < 1000


@pytest.mark.parametrize("words", ["poolkeeper ", "poolkeeper tenants list -o "])
def test_completion_imports_neither_the_service_nor_a_client(words: str) -> None:
    number = str(words.count(" "))
    environment = {"_POOLKEEPER_COMPLETE": "complete_bash", "COMP_WORDS": words}
    assert imported([], **environment, COMP_CWORD=number).isdisjoint(HEAVY)


def completed(words: str) -> list[str]:
    """What a TAB after *words* offers."""
    environment = {
        "_POOLKEEPER_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
    }
    return CliRunner().invoke(cli, env=environment, prog_name="poolkeeper").stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("poolkeeper ten", ["tenants"]),
        ("poolkeeper --ou", ["--output"]),
        ("poolkeeper --output js", ["json"]),
        ("poolkeeper --json ten", ["tenants"]),
        ("poolkeeper tenants sh", ["show"]),
        ("poolkeeper tenants --json sh", ["show"]),
        ("poolkeeper --url x tenants -o json li", ["list"]),
        ("poolkeeper tenants list --sel", ["--selector"]),
        ("poolkeeper tenants --sel", ["--selector"]),
        ("poolkeeper tenants show --ou", ["--output"]),
        ("poolkeeper pools list -o ya", ["yaml"]),
        ("poolkeeper keys create --scope op", ["operate"]),
    ],
)
def test_commands_options_and_values_are_completed(words: str, offered: list[str]) -> None:
    assert completed(words) == offered


def every_command() -> Iterator[list[str]]:
    """The words of each command and each group of commands."""
    yield []
    for name, entry in ENTRIES.items():
        yield [name]
        command = None if entry.is_bare else entry.load(name)
        yield from ([name, verb] for verb in getattr(command, "commands", ()))


@pytest.mark.parametrize("words", [*every_command()], ids=" ".join)
def test_every_command_has_help(words: list[str]) -> None:
    result = CliRunner().invoke(cli, [*words, "--help"], env={"COLUMNS": "80"})
    assert result.exit_code == 0, result.output
    assert "--help" in result.stdout
    assert not any(word in result.stdout for word in ("<str>", "<int", "<float", "<path"))
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_the_summary_of_a_resource_names_its_commands() -> None:
    for name, entry in ENTRIES.items():
        verbs = [] if entry.is_bare else getattr(entry.load(name), "commands", ())
        if verbs and name != "keys":
            assert entry.summary == ", ".join(verbs)


def test_names_of_commands_are_unique_to_their_section() -> None:
    assert list(get_command(cli).commands) == list(ENTRIES)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "line",
    [
        "--url {} --json tenants list --limit 3",
        "--json tenants --url {} list --limit 3",
        "tenants --json list --limit 3 --url {}",
        "tenants list --limit 3 --url={} -ojson",
        "-o json tenants --limit 3 --url {}",
        "tenants --url={} --limit 3 --json",
    ],
)
def test_options_of_all_commands_may_stand_anywhere(service: EchoService, line: str) -> None:
    result = CliRunner().invoke(cli, line.format(service.url).split())
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("[\n  {\n")
    assert service.heard == [("GET", "/v1/tenants?limit=4", None)]


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("--json lost", "No such command 'lost'"),
        ("tenants lits", "Did you mean 'list'?"),
        ("--json serve", "No such option: --json"),
        ("tenants -o", "requires an argument"),
        ("tenants -o xml", "-o"),
    ],
)
def test_a_misplaced_word_is_refused(line: str, error: str) -> None:
    result = CliRunner().invoke(cli, line.split())
    assert result.exit_code == 2
    assert error in result.stderr


@pytest.mark.parametrize(
    ("environment", "address"),
    [
        ({"POOLKEEPER_PORT": "1"}, "http://127.0.0.1:1"),
        ({"POOLKEEPER_HOST": "::1", "POOLKEEPER_PORT": "1"}, "http://[::1]:1"),
        ({"POOLKEEPER_HOST": "0.0.0.0", "POOLKEEPER_PORT": "1"}, "http://127.0.0.1:1"),  # noqa: S104
        ({"POOLKEEPER_URL": "http://127.0.0.1:9", "POOLKEEPER_PORT": "1"}, "http://127.0.0.1:9"),
    ],
)
def test_a_service_of_the_same_environment_is_found(
    environment: Mapping[str, str], address: str
) -> None:
    result = CliRunner().invoke(cli, ["servers"], env=environment)
    assert result.exit_code == 3
    assert result.stderr.startswith(f"poolkeeper: Cannot reach {address}: ")
    assert "Errno" not in result.stderr


@pytest.mark.parametrize(
    ("text", "status", "message"),
    [
        ("port = 1", 3, "Cannot reach http://127.0.0.1:1: "),
        ('host = "::1"\nport = 1', 3, "Cannot reach http://[::1]:1: "),
        ("port =", 2, "Cannot read poolkeeper.toml: not valid TOML."),
    ],
)
def test_a_service_of_the_same_settings_file_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, status: int, message: str
) -> None:
    (tmp_path / "poolkeeper.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, ["servers"])
    assert result.exit_code == status
    assert result.stderr.startswith(f"poolkeeper: {message}")


def failing(number: int) -> Callable[..., None]:
    def run(prog_name: str) -> None:
        raise OSError(number, "said by the system")

    return run


def test_other_errors_of_the_system_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry_point, "cli", failing(errno.EIO))
    with pytest.raises(OSError, match="said by the system"):
        entry_point.main()


@pytest.mark.parametrize("name", ["stdin", "stdout", "stderr"])
def test_a_closed_stream_is_opened_on_the_null_device(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(sys, name, None)
    entry_point._open_closed_streams()
    opened = getattr(sys, name)
    assert opened.name == "/dev/null"
    opened.close()
