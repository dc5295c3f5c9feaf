"""What all commands share: the service's address, and how to print its responses.

A command defines what to fetch and how it looks as a table. Whether the result is printed as a
table or as JSON, once or repeatedly, is decided here.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from app.cli.client.api_client import ApiClient, ApiError, ExitStatus
from app.cli.client.table import TableColumn, table
from app.runtime.printable import print_error, printable, printable_json

UrlOption = Annotated[
    str, typer.Option("--url", envvar="POOLKEEPER_URL", help="Address of the service.")
]
KeyFileOption = Annotated[
    Path | None,
    typer.Option(
        "--api-key-file",
        envvar="POOLKEEPER_API_KEY_FILE",
        help="File with the API key; or set POOLKEEPER_API_KEY.",
        dir_okay=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
WatchOption = Annotated[
    float | None,
    typer.Option("--watch", min=0.2, max=3600, help="Repeat every N seconds until Ctrl-C."),
]
LimitOption = Annotated[
    int, typer.Option("--limit", min=1, max=100_000, help="Maximum number of rows.")
]
StrategyFilter = Annotated[str | None, typer.Option("--strategy", help="Filter by strategy.")]
ServerFilter = Annotated[str | None, typer.Option("--server", help="Filter by server.")]
TenantFilter = Annotated[str | None, typer.Option("--tenant", help="Filter by tenant.")]
TenantArgument = Annotated[str, typer.Argument(help="Tenant id.", show_default=False)]

DEFAULT_URL = "http://127.0.0.1:8080"
_PIPE_WIDTH = 1000
# Never an option: every user of a machine can see its command lines.
_KEY_VARIABLE = "POOLKEEPER_API_KEY"


@dataclass(frozen=True, slots=True)
class Session:
    """The service's address, and how its responses are printed."""

    url: str
    key_file: Path | None
    as_json: bool = False
    watch: float | None = None

    @contextmanager
    def client(self) -> Iterator[ApiClient]:
        """Connect for a block; an error in it ends the command with a sentence."""
        try:
            with ApiClient(self.url, _read_key(self.key_file)) as client:
                yield client
        except ApiError as error:
            print_error(str(error))
            raise typer.Exit(error.exit_status) from error
        except KeyboardInterrupt:
            raise typer.Exit(0) from None

    def show(
        self, fetch: Callable[[ApiClient], Any], render: Callable[[Any], RenderableType]
    ) -> None:
        """Print what *fetch* returns, as JSON or rendered; with `--watch`, until Ctrl-C."""
        with self.client() as client:
            if self.watch is None:
                self.print(fetch(client), render)
                return
            if self.as_json:
                while True:
                    # One document per line, so that programs can read line by line.
                    _print_json(fetch(client), indent=None)
                    time.sleep(self.watch)
            with Live(console=_console(), auto_refresh=False) as live:
                while True:
                    live.update(_escaped(render(fetch(client))), refresh=True)
                    time.sleep(self.watch)

    def show_list(
        self, path: str, columns: Sequence[TableColumn], *, limit: int, **filters: object
    ) -> None:
        """Print at most *limit* items of a list that pass the filters."""
        self.show(
            lambda client: list(client.items(path, limit=limit, **filters)),
            partial(table, columns),
        )

    def print(self, document: object, render: Callable[[Any], RenderableType]) -> None:
        """Print *document*, as JSON or rendered."""
        if self.as_json:
            _print_json(document, indent=2)
        else:
            _console().print(_escaped(render(document)))


def _console() -> Console:
    # A pipe has no width: nothing is cut off there.
    return Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH)


def _print_json(document: object, *, indent: int | None) -> None:
    is_unicode = sys.stdout.encoding.lower().startswith("utf")
    text = json.dumps(document, indent=indent, ensure_ascii=not is_unicode)
    typer.echo(printable_json(text))


def _escaped(rendered: RenderableType) -> RenderableType:
    """A string is text, never markup; other renderables escape their own text."""
    return Text(printable(rendered)) if isinstance(rendered, str) else rendered


def _read_key(file: Path | None) -> str | None:
    """The API key, if there is one.

    Raises:
        ApiError: the file or variable does not contain a key; its content is not shown.
    """
    try:
        found = os.environ.get(_KEY_VARIABLE, "") if file is None else file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ApiError(f"Cannot read {file}: {reason}.", ExitStatus.USAGE) from error
    key = found.strip()
    if not (key.isascii() and key.isprintable()):
        raise ApiError(
            f"{file or _KEY_VARIABLE} does not contain a valid API key.", ExitStatus.USAGE
        )
    return key or None
