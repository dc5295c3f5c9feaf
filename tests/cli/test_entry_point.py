"""The entry point: which commands load the service, full disks, closed streams."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable

import pytest

from app import __main__ as entry_point
from app.cli.client.commands import COMMAND_NAMES
from app.cli.main import cli


@pytest.mark.parametrize("name", sorted(COMMAND_NAMES))
def test_client_commands_have_a_command_line_of_their_own(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["poolkeeper", name])
    assert entry_point._command_line() is not cli


@pytest.mark.parametrize("words", [[], ["--help"], ["serve"], ["no-command"]])
def test_all_others_share_the_services(monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["poolkeeper", *words])
    assert entry_point._command_line() is cli


def failing(number: int) -> Callable[[], Callable[[], None]]:
    def run() -> None:
        raise OSError(number, "said by the system")

    return lambda: run


def test_a_full_disk_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(entry_point, "_command_line", failing(errno.ENOSPC))
    with pytest.raises(SystemExit, match="1"):
        entry_point.main()
    assert capsys.readouterr().err == ("poolkeeper: Cannot write the output: no space is left.\n")


def test_other_errors_of_the_system_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry_point, "_command_line", failing(errno.EIO))
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
