"""The command line: its commands, and where each is implemented.

Nothing else is imported until a command is used, so that help and completion take no time.
"""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import KW_ONLY, dataclass
from functools import partial
from importlib import import_module
from typing import Annotated, Any, ClassVar

import typer
from typer.core import TyperCommand
from typer.main import get_command

from app import __version__
from app.cli.client.service_command import SERVICE_OPTIONS, ServiceCommand
from app.cli.command import Command, Group, Options


@dataclass(frozen=True, slots=True)
class Entry:
    """A command of the command line.

    Attributes:
        module: the module of its function or its commands, whose name is the command's.
        kind: the class of a function's command.
        is_bare: whether it has no options; then its module is imported only when it runs.
        draws: whether it may show tables and colours.
    """

    module: str
    summary: str
    _: KW_ONLY
    section: str
    kind: type[TyperCommand] = Command
    is_bare: bool = False
    draws: bool = True

    def stub(self, name: str) -> TyperCommand:
        """The command as help and completion show it."""
        return Command(
            name,
            help=self.summary,
            callback=partial(self._run, name) if self.is_bare else None,
            rich_markup_mode=None,
            rich_help_panel=self.section,
        )

    def load(self, name: str) -> Any:
        target = self.implementation(name)
        if isinstance(target, typer.Typer):
            return get_command(target)
        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        app.command(name, cls=self.kind)(target)
        return get_command(app)

    def _run(self, name: str) -> None:
        self.implementation(name)()

    def implementation(self, name: str) -> Any:
        """The function, or the commands."""
        with nullcontext() if self.draws else _without_rich():
            module = import_module(f"app.cli.{self.module}")
        return getattr(module, name.replace("-", "_"))


@contextmanager
def _without_rich() -> Iterator[None]:
    """Import modules that use Rich if they can, such as structlog and httpx, without it: 5 MB."""
    was_missing = "rich" not in sys.modules
    if was_missing:
        sys.modules["rich"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if was_missing:
            del sys.modules["rich"]


_resource = partial(Entry, section="Resources of a running service")
_of_service = partial(Entry, section="A running service", kind=ServiceCommand)
_local = partial(Entry, section="Without a running service")
ENTRIES: Mapping[str, Entry] = {
    "tenants": _resource("client.tenants", "list, show, create, set, provision, rotate, delete"),
    "credentials": _resource("client.credentials", "list, show, create, revoke"),
    "nodes": _resource(
        "client.nodes", "list, show, tenants, create, set, pause, resume, drain, delete"
    ),
    "pools": _resource(
        "client.pools",
        "list, show, set, pause, resume, recycle, check, drain, evict, evict-expired",
    ),
    "servers": _resource("client.servers", "list, show"),
    "recommendations": _resource("client.recommendations", "list, show, apply, dismiss"),
    "advisor": _resource("client.advisor", "show, set, evaluate"),
    "stats": _resource("client.stats", "list, show, history"),
    "usage": _resource("client.usage", "list"),
    "leases": _resource("client.leases", "list"),
    "findings": _resource("client.findings", "list"),
    "events": _resource("client.events", "list, show"),
    "refusals": _resource("client.refusals", "list, show"),
    "apply": _of_service("client.apply", "Make the service match a file of tenants."),
    "query": _of_service("client.query", "Run one statement as a tenant and print its rows."),
    "top": _of_service("client.top", "Watch servers and pools live."),
    "serve": _local("serve", "Serve the API until SIGTERM or Ctrl-C.", is_bare=True),
    "demo": _local(
        "serve",
        "Serve with sample tenants and traffic; everything is deleted at the end.",
        is_bare=True,
    ),
    "node": _local(
        "node",
        "Run a PgBouncer node until SIGTERM or Ctrl-C. PgBouncer keeps running after that.",
        draws=False,
    ),
    "doctor": _local(
        "doctor",
        "Check servers, catalog, rights, TLS, budgets and keys, and print the SQL that is missing.",
        is_bare=True,
    ),
    "migrate": _local("migrate", "Upgrade the catalog's schema and exit.", is_bare=True),
    "keys": _local("keys", "Create, list and revoke API keys."),
    "rls-sql": _local("rls_sql", "Print SQL that restricts each shared tenant to its own rows."),
    "simulate": _local(
        "simulate", "Simulate pools with a sizing rule of the advisor, or one to compare it with."
    ),
    "openapi": _local("openapi", "Print the OpenAPI document.", is_bare=True),
}


class CommandLine(Group):
    """All commands; only the one that is used is imported."""

    shared: ClassVar[Options] = SERVICE_OPTIONS

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {name: entry.stub(name) for name, entry in ENTRIES.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, stub, rest = super().resolve_command(ctx, args)
        if name is None or ENTRIES[name].is_bare:
            return name, stub, rest
        return name, ENTRIES[name].load(name), rest


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"poolkeeper {__version__}")
        raise typer.Exit


cli = typer.Typer(
    name="poolkeeper",
    cls=CommandLine,
    help="The control plane for multi-tenant Postgres connection pools.",
    rich_markup_mode=None,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@cli.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version."
        ),
    ] = False,
) -> None:
    """Handle the options of the command line itself."""
