"""The command line: which commands there are, and where each is implemented.

Nothing else is imported until a command is used, so that help and completion take no time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Annotated, Any, ClassVar

import typer
from typer.core import TyperCommand
from typer.main import get_command

from app import __version__
from app.cli.client.service_command import ServiceCommand, output_options, service_options
from app.cli.command import Command, Declarations, Group

_RESOURCES = "Resources of a running service"
_SERVICE = "A running service"
_LOCAL = "Without a running service"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A command of the command line.

    Attributes:
        target: module and name of its function, or of its commands.
        kind: of a function.
        is_bare: it takes no options; then its module is imported only when it runs.
    """

    target: str
    summary: str
    section: str
    kind: type[TyperCommand] = Command
    is_bare: bool = False

    def stub(self, name: str) -> TyperCommand:
        """The command as help and completion show it."""
        return Command(
            name,
            help=self.summary,
            callback=self._run if self.is_bare else None,
            rich_markup_mode=None,
            rich_help_panel=self.section,
        )

    def load(self, name: str) -> Any:
        """The command itself."""
        target = self.implementation()
        if isinstance(target, typer.Typer):
            return get_command(target)
        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        app.command(name, cls=self.kind)(target)
        return get_command(app)

    def _run(self) -> None:
        self.implementation()()

    def implementation(self) -> Any:
        """The function, or the commands."""
        module, _, name = self.target.partition(":")
        return getattr(import_module(f"app.cli.{module}"), name)


_resource = partial(Entry, section=_RESOURCES)
_of_service = partial(Entry, section=_SERVICE, kind=ServiceCommand)
_local = partial(Entry, section=_LOCAL)
ENTRIES: Mapping[str, Entry] = {
    "tenants": _resource(
        target="client.tenants:tenants",
        summary="list, show, create, set, provision, rotate, delete",
    ),
    "credentials": _resource(
        target="client.credentials:credentials", summary="list, show, create, revoke"
    ),
    "nodes": _resource(
        target="client.nodes:nodes",
        summary="list, show, tenants, create, set, pause, resume, drain, delete",
    ),
    "pools": _resource(
        target="client.pools:pools",
        summary="list, show, set, pause, resume, recycle, check, drain, evict, evict-expired",
    ),
    "servers": _resource(target="client.servers:servers", summary="list, show"),
    "recommendations": _resource(
        target="client.recommendations:recommendations", summary="list, show, apply, dismiss"
    ),
    "advisor": _resource(target="client.advisor:advisor", summary="show, set, evaluate"),
    "stats": _resource(target="client.stats:stats", summary="list, show, history"),
    "usage": _resource(target="client.usage:usage", summary="list"),
    "leases": _resource(target="client.leases:leases", summary="list"),
    "events": _resource(target="client.events:events", summary="list, show"),
    "refusals": _resource(target="client.refusals:refusals", summary="list, show"),
    "apply": _of_service(
        target="client.apply:apply", summary="Make the service match a file of tenants."
    ),
    "query": _of_service(
        target="client.query:query", summary="Run one statement as a tenant and print its rows."
    ),
    "top": _of_service(target="client.top:top", summary="Watch servers and pools live."),
    "serve": _local(
        target="serve:serve",
        summary="Serve the API until SIGTERM or Ctrl-C.",
        is_bare=True,
    ),
    "demo": _local(
        target="serve:demo",
        summary="Serve with sample tenants and traffic; everything is deleted at the end.",
        is_bare=True,
    ),
    "node": _local(
        target="node:node",
        summary="Run a PgBouncer node until SIGTERM or Ctrl-C. PgBouncer goes on after that.",
    ),
    "doctor": _local(
        target="doctor:doctor",
        summary="Check servers, catalog, rights, TLS, budgets and keys, and print the SQL that is"
        " missing.",
        is_bare=True,
    ),
    "migrate": _local(
        target="migrate:migrate", summary="Upgrade the catalog's schema and exit.", is_bare=True
    ),
    "keys": _local(target="keys:keys", summary="Create, list and revoke API keys."),
    "rls-sql": _local(
        target="rls_sql:rls_sql",
        summary="Print SQL that restricts each shared tenant to its own rows.",
    ),
    "simulate": _local(
        target="simulate:simulate",
        summary="Simulate pools with a rule of the advisor or one of its competitors.",
    ),
    "openapi": _local(
        target="openapi:openapi", summary="Print the OpenAPI document.", is_bare=True
    ),
}


class CommandLine(Group):
    """All commands, of which only the one that is used is imported."""

    declares: ClassVar[Declarations] = (output_options, service_options)

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
    """Take the options of the command line itself."""
