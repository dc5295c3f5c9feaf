"""What every command shares: where the service is, how to print, and how to end.

A command fetches documents and says how they look as a table; whether they are printed as a
table or as JSON, once or again and again, is decided here.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from app.cli.client.api_client import ApiClient, ApiError, ExitStatus
from app.runtime.printable import print_error, printable, printable_json

UrlOption = Annotated[
    str,
    typer.Option("--url", envvar="POOLKEEPER_URL", help="Where the service listens."),
]
KeyFileOption = Annotated[
    Path | None,
    typer.Option(
        "--api-key-file",
        envvar="POOLKEEPER_API_KEY_FILE",
        help="File with the API key; the key itself may be in POOLKEEPER_API_KEY.",
        dir_okay=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
WatchOption = Annotated[
    float | None,
    typer.Option("--watch", min=0.2, max=3600, help="Again every so many seconds; Ctrl-C ends."),
]
LimitOption = Annotated[int, typer.Option("--limit", min=1, max=100_000, help="Most to show.")]
TenantArgument = Annotated[str, typer.Argument(help="The tenant's id.", show_default=False)]

DEFAULT_URL = "http://127.0.0.1:8080"
_WIDE = 1000
# Never an option: command lines are seen by every user of a machine.
_KEY_VARIABLE = "POOLKEEPER_API_KEY"


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """Where the service is, and how its answers are to be printed."""

    url: str
    key_file: Path | None
    as_json: bool
    watch: float | None = None

    @contextmanager
    def client(self) -> Iterator[ApiClient]:
        """The service, for a block; what goes wrong in it ends the command with a sentence."""
        try:
            with ApiClient(self.url, _key(self.key_file)) as service:
                yield service
        except ApiError as error:
            print_error(str(error))
            raise typer.Exit(error.exit_status) from error
        except KeyboardInterrupt:
            raise typer.Exit(0) from None

    def show(self, fetch: Callable[[], Any], draw: Callable[[Any], RenderableType]) -> None:
        """Print what *fetch* gives, as JSON or as *draw* draws it; if watching, until Ctrl-C."""
        if self.as_json:
            self._print_json(fetch())
            while self.watch:
                time.sleep(self.watch)
                self._print_json(fetch())
            return
        # What is piped is read by programs or by no terminal: nothing is cut off there.
        console = Console(width=None if sys.stdout.isatty() else _WIDE)
        if self.watch is None:
            console.print(_drawn(draw(fetch())))
            return
        with Live(_drawn(draw(fetch())), console=console, auto_refresh=False) as live:
            while True:
                time.sleep(self.watch)
                live.update(_drawn(draw(fetch())), refresh=True)

    def _print_json(self, document: object) -> None:
        # One document a line while watching, so that programs can read line by line.
        indent = None if self.watch else 2
        is_unicode = sys.stdout.encoding.lower().startswith("utf")
        text = json.dumps(document, indent=indent, ensure_ascii=not is_unicode)
        typer.echo(printable_json(text))


def session_of(context: typer.Context) -> Session:
    """The session that the group's callback began."""
    found: Session = context.obj
    return found


def _drawn(drawn: RenderableType) -> RenderableType:
    """A sentence is text and never markup; whatever is no sentence has seen to that itself."""
    return Text(printable(drawn)) if isinstance(drawn, str) else drawn


def _key(file: Path | None) -> str | None:
    """The API key; None if there is none.

    Raises:
        RemoteError: what is there cannot be one; it is not shown.
    """
    try:
        found = os.environ.get(_KEY_VARIABLE, "") if file is None else file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ApiError(f"Cannot read {file}: {why}.", ExitStatus.USAGE) from error
    key = found.strip()
    if not (key.isascii() and key.isprintable()):
        raise ApiError(f"{file or _KEY_VARIABLE} holds no API key.", ExitStatus.USAGE)
    return key or None
