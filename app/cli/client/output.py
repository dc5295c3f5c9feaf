"""Prints documents: as a table, wide, as JSON, as YAML, or names only."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import typer

from app.cli.client.table import Details, Table
from app.text.printable import is_printable, printable, printable_json
from app.text.wrapping import terminal_width, wrapped

if TYPE_CHECKING:
    from rich.console import RenderableType

    View = Table | Details | RenderableType

OutputFormat = Literal["table", "wide", "json", "yaml", "name"]
Render = Callable[[Any], "View"]
# The field that names a result that is not in a list.
_NAMES = ("id", "pool_id", "tenant", "name")


def print_document(document: Any, render: Render, output: OutputFormat) -> None:
    """Print *document*: its data, or the view that *render* makes."""
    match output:
        case "json":
            typer.echo(_json(document, indent=2))
        case "yaml":
            typer.echo(_yaml(document), nl=False)
        case "name":
            _print_names(document, render)
        case _:
            _print_view(render(document), None if output == "wide" else terminal_width(sys.stdout))


def print_note(sentence: str) -> None:
    """Print a note beside the result, on standard error."""
    for line in wrapped(printable(sentence), terminal_width(sys.stderr)):
        typer.echo(line, err=True)


@contextmanager
def screen(output: OutputFormat) -> Iterator[Callable[[Any, Render], None]]:
    """A function that prints one document after another; tables replace each other."""
    if output not in {"table", "wide"}:
        yield lambda document, render: (
            # One document per line, so that programs can read line by line.
            typer.echo(_json(document, indent=None))
            if output == "json"
            else print_document(document, render, output)
        )
        return
    from rich.live import Live

    with Live(auto_refresh=False) as live:
        yield lambda document, render: live.update(_escaped(render(document)), refresh=True)


def _print_view(view: View, width: int | None) -> None:
    if isinstance(view, Table | Details):
        for number, line in enumerate(view.lines(width)):
            is_title = isinstance(view, Table) and number == 0
            typer.echo(typer.style(line, bold=True) if is_title else line)
    elif isinstance(view, str):
        typer.echo(printable(view))
    else:
        from rich.console import Console

        Console(soft_wrap=width is None).print(view)


def _print_names(document: Any, render: Render) -> None:
    named = [key for key in _NAMES if isinstance(document, Mapping) and key in document]
    view = render(document)
    if named:
        typer.echo(printable(str(document[named[0]])))
    elif isinstance(view, Table | Details):
        for name in view.names():
            typer.echo(name)
    else:
        _print_view(view, None)


def _json(document: object, *, indent: int | None) -> str:
    # A Decimal, which a float cannot hold, becomes a string.
    ensure_ascii = not _is_unicode()
    text = json.dumps(document, indent=indent, ensure_ascii=ensure_ascii, default=str)
    return printable_json(text)


def _yaml(document: object) -> str:
    import yaml

    # What JSON has no value for becomes the same string in both.
    plain = json.loads(json.dumps(document, default=str))
    text = yaml.safe_dump(plain, allow_unicode=_is_unicode(), sort_keys=False, width=1000)
    if all(is_printable(line) for line in text.split("\n")):
        return text
    return yaml.safe_dump(plain, sort_keys=False, width=1000)


def _is_unicode() -> bool:
    return sys.stdout.encoding.lower().startswith("utf")


def _escaped(view: View) -> RenderableType:
    """A string is text, never markup; other views escape their own text."""
    from rich.text import Text

    return Text(printable(view)) if isinstance(view, str) else view
