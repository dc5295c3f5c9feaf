"""How commands end: their exit statuses, for scripts, and what ends them early."""

import sys
from enum import IntEnum
from typing import NoReturn

import typer

from app.text.printable import print_error, printable


class ExitStatus(IntEnum):
    """Exit statuses of all commands; 0 is success. Similar errors have the same status."""

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


def confirm(question: str) -> None:
    """Ask before a change that cannot be undone, and continue only after a yes.

    Without a terminal, nobody is asked: the input may be a list of what else a script deletes.

    Raises:
        typer.Exit: the answer is no, or there is none.
    """
    is_meant = False
    if sys.stdin.isatty():
        try:
            is_meant = typer.confirm(printable(question), err=True)
        except typer.Abort:
            typer.echo(err=True)
    if not is_meant:
        fail("Nothing was changed. To go ahead without a question, add --yes.")
