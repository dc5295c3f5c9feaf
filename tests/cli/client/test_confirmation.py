"""Changes that cannot be undone ask on a terminal; without one, they need `--yes`."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.cli.main import ENTRIES, cli
from tests.fixtures.echo_service import EchoService
from tests.fixtures.pseudo_terminal import terminal

COMMANDS = [
    ["tenants", "delete", "acme"],
    ["nodes", "delete", "edge"],
    ["credentials", "revoke", "acme", "web"],
    ["apply", "--prune", "-f", "{}/tenants.yaml"],
    ["keys", "revoke", "ci", "--file", "{}/keys.json"],
]
FINAL = frozenset({"delete", "revoke"})


@pytest.fixture(params=COMMANDS, ids=" ".join)
def words(request: pytest.FixtureRequest, tmp_path: Path) -> Sequence[str]:
    (tmp_path / "tenants.yaml").write_text("tenants: {}")
    keys = ["keys", "create", "ci", "--scope", "read", "--file", str(tmp_path / "keys.json")]
    assert CliRunner().invoke(cli, keys).exit_code == 0
    return [word.format(tmp_path) for word in request.param]


def changes(service: EchoService, directory: Path) -> int:
    """The number of changes, of the service and of the file of keys."""
    sent = [method for method, _, _ in service.heard if method != "GET"]
    is_revoked = '"ci"' not in (directory / "keys.json").read_text()
    return len(sent) + is_revoked


def call(service: EchoService, words: Sequence[str], stdin: str = "") -> Result:
    return CliRunner().invoke(cli, words, input=stdin, env={"POOLKEEPER_URL": service.url})


@pytest.mark.parametrize("stdin", ["", "y\n"], ids=["nothing", "yes"])
def test_without_a_terminal_nothing_is_asked_or_changed(
    service: EchoService, tmp_path: Path, words: Sequence[str], stdin: str
) -> None:
    result = call(service, words, stdin)
    assert result.exit_code == 1
    assert "add --yes." in result.stderr
    assert "[y/N]" not in result.stderr
    assert changes(service, tmp_path) == 0


@pytest.mark.parametrize("option", ["--yes", "-y"])
def test_the_option_needs_no_terminal(
    service: EchoService, tmp_path: Path, words: Sequence[str], option: str
) -> None:
    result = call(service, [*words, option])
    assert result.exit_code == 0, result.output
    assert changes(service, tmp_path) == 1


def test_a_dry_run_asks_nothing(service: EchoService) -> None:
    assert call(service, ["nodes", "delete", "edge", "--dry-run"]).exit_code == 0


@pytest.mark.parametrize(("answer", "changed"), [("y\n", 1), ("n\n", 0), ("\n", 0), ("\x04", 0)])
def test_a_terminal_is_asked(
    service: EchoService, tmp_path: Path, words: Sequence[str], answer: str, changed: int
) -> None:
    with terminal(words, service.url) as running:
        running.press(answer)
        assert running.end() == 1 - changed
        assert running.process.stderr is not None
        said = running.process.stderr.read().decode()
    assert "[y/N]" in said
    assert ("Nothing was changed" in said) == (not changed)
    assert "Aborted" not in said
    assert changes(service, tmp_path) == changed


def test_every_command_that_deletes_or_revokes_is_among_them() -> None:
    found = {
        (name, verb)
        for name, entry in ENTRIES.items()
        if not entry.is_bare
        for verb in getattr(entry.load(name), "commands", ())
        if verb in FINAL
    }
    assert found == {(name, verb) for name, verb, *_ in COMMANDS if verb in FINAL}
