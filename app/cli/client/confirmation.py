"""Asks for confirmation before a deletion."""

from __future__ import annotations

import typer

from app.cli.client.exit_status import fail
from app.text.printable import printable


def confirm(question: str) -> None:
    """Continue only after a yes; scripts use `--yes`.

    Raises:
        typer.Exit: the answer is no, or there is none.
    """
    try:
        is_meant = typer.confirm(printable(question), err=True)
    except typer.Abort:
        typer.echo(err=True)
        is_meant = False
    if not is_meant:
        fail("Nothing was deleted. To delete without a question, add --yes.")
