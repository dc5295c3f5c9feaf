"""The exit statuses of commands, for scripts: similar errors have the same status."""

from enum import IntEnum
from typing import NoReturn

import typer

from app.text.printable import print_error


class ExitStatus(IntEnum):
    """Exit statuses of all commands; 0 is success."""

    REFUSED = 1
    """The service refused, or a check or step failed."""

    USAGE = 2
    """An argument, an option, a setting or a file is invalid; nothing was changed."""

    UNREACHABLE = 3
    """No Poolkeeper responded."""

    FORBIDDEN = 4
    """The API key is missing, unknown, or lacks the scope."""

    PARTIAL = 5
    """Some changes were made, others failed."""

    NOT_FOUND = 6
    """The resource that the command names does not exist."""

    INTERRUPTED = 130
    """Ctrl-C stopped a change, as shells report it."""


def fail(sentence: str, status: int = ExitStatus.REFUSED) -> NoReturn:
    """End the command with *status*; *sentence* on standard error says why.

    Raises:
        typer.Exit: always.
    """
    print_error(sentence)
    raise typer.Exit(status)
