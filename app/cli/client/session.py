"""The session of commands that talk to a service: its address, and how to print its responses.

A command defines what to fetch and how it looks. The session prints it as a table or as JSON, once
or repeatedly.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.cli.client.api_client import ApiClient, ApiError, Document
from app.cli.client.exit_status import ExitStatus, confirm
from app.cli.client.output import OutputFormat, print_document, print_note, screen
from app.cli.client.table import Details, Table, TableColumn, counted, prose, text
from app.cli.client.table import changes as changes_of

if TYPE_CHECKING:
    from app.cli.client.output import View

_DEFAULT_HOST, _DEFAULT_PORT = "127.0.0.1", "8080"
_ANY_HOST = frozenset({"0.0.0.0", "::", "*"})  # noqa: S104 - where a service listens, not a client
# Never an option: every user of a machine can see its command lines.
_KEY_VARIABLE = "POOLKEEPER_API_KEY"
_PLAN_COLUMNS = (
    text("ACTION", "action"),
    text("TARGET", "target"),
    prose("CHANGE", lambda step: changes_of(step["before"], step["after"])),
)
_EFFECTS = {
    "connections_opened": ("connection", "opened"),
    "connections_closed": ("connection", "closed"),
    "leases_cut": ("lease", "cut"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """The service's address, and how its responses are printed.

    Attributes:
        url: as given; None: where a service with this environment listens.
        watch: seconds between repetitions.
        limit: the most rows of a list.
        yes: whether a change that cannot be undone needs no question.
    """

    url: str | None = None
    api_key_file: Path | None = None
    output: OutputFormat = "table"
    watch: float | None = None
    limit: int = 200
    dry_run: bool = False
    yes: bool = False

    @property
    def address(self) -> str:
        return self.url or _default_address()

    def client(self, **patience: Any) -> ApiClient:
        """A client of the service, for a `with` block."""
        key = _read_key(self.api_key_file)
        return ApiClient(self.address, key, dry_run=self.dry_run, **patience)

    def show(self, fetch: Callable[[ApiClient], Any], render: Callable[[Any], View]) -> None:
        """Print the result of *fetch*; with `--watch`, again until Ctrl-C."""
        with self.client() as client:
            if self.watch is None:
                self.print(fetch(client), render)
                return
            with screen(self.output) as show:
                while True:
                    show(fetch(client), render)
                    time.sleep(self.watch)

    def show_list(self, path: str, columns: Sequence[TableColumn], **filters: object) -> None:
        """Print the items of a list that pass the filters."""
        self.show(
            lambda client: self.fetch_list(client, path, **filters),
            lambda items: Table(columns=columns, items=items),
        )

    def fetch_list(self, client: ApiClient, path: str, **filters: object) -> Sequence[Document]:
        """The items of a list that pass the filters, at most `limit`."""
        found = list(client.items(path, limit=self.limit + 1, **filters))
        items = found[: self.limit]
        if len(found) > len(items):
            # Some lists report the number of matches.
            matches = client.page(path, limit=1, **filters).get("matches")
            first = "first" if len(items) == 1 else f"first {len(items):,}"
            of = f" of {matches:,}" if matches is not None else ""
            verb = "is" if len(items) == 1 else "are"
            print_note(f"Only the {first}{of} {verb} shown; --limit shows more.")
        return items

    def show_one(self, path: str, columns: Sequence[TableColumn]) -> None:
        """Print everything about a resource."""
        self.show(lambda client: client.get(path), partial(Details, columns))

    def show_found(
        self, path: str, start: str, noun: str, columns: Sequence[TableColumn], *, by: str = "id"
    ) -> None:
        """Print everything about the list's item whose id, or field *by*, begins with a name."""
        self.show(lambda client: client.find(path, start, noun, by=by), partial(Details, columns))

    def send(
        self,
        method: str,
        path: str,
        render: Callable[[Document], View],
        body: Mapping[str, object] | None = None,
        **params: object,
    ) -> None:
        """Send a change and print the result; with `--dry-run`, print its plan."""
        self.change(lambda client: client.request(method, path, body, **params), render)

    def confirm(self, question: str) -> None:
        """Ask before a change that cannot be undone; `--yes` and `--dry-run` need no question."""
        if not (self.yes or self.dry_run):
            confirm(question)

    def change(
        self, send: Callable[[ApiClient], Document], render: Callable[[Document], View]
    ) -> None:
        with self.client() as client:
            done = send(client)
        self.print(done, _plan_view if done.get("dry_run") is True else render)

    def print(self, document: Any, render: Callable[[Any], View]) -> None:
        print_document(document, render, self.output)


def given(**values: Any) -> dict[str, Any]:
    """The given options, for the body of a request."""
    return {name: value for name, value in values.items() if value is not None}


def _plan_view(plan: Document) -> View:
    """The steps of a dry run; their effects are printed beside them."""
    effects = plan["effects"]
    found = ", ".join(
        f"{counted(effects[name], noun)} {verb}"
        for name, (noun, verb) in _EFFECTS.items()
        if effects[name]
    )
    for sentence in [found and f"Effects: {found}.", *plan["warnings"]]:
        if sentence:
            print_note(sentence)
    return Table(columns=_PLAN_COLUMNS, items=plan["plan"]) if plan["plan"] else "Nothing to do."


def _default_address() -> str:
    """Where a service with the same environment listens."""
    settings = _settings_file()
    host = os.environ.get("POOLKEEPER_HOST") or str(settings.get("host", _DEFAULT_HOST))
    port = os.environ.get("POOLKEEPER_PORT") or str(settings.get("port", _DEFAULT_PORT))
    host = _DEFAULT_HOST if host in _ANY_HOST else host
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _settings_file() -> Mapping[str, object]:
    """Read the settings file that a service started here would use.

    Raises:
        ApiError: it cannot be read.
    """
    named = os.environ.get("POOLKEEPER_CONFIG_FILE")
    path = Path(named or "poolkeeper.toml")
    if not (named or path.exists()):
        return {}
    from tomllib import TOMLDecodeError, loads

    try:
        return loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, TOMLDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not valid TOML"
        raise ApiError(f"Cannot read {path}: {reason}.", ExitStatus.USAGE) from error


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
