"""The kinds of commands that talk to a service: list, show, change.

Each has the options of its kind, and finds its session in `context.obj`.
"""

import re
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer
from typer.core import TyperOption

from app.cli.client.api_client import ApiError
from app.cli.client.completion import pool_names, server_names, tenant_names
from app.cli.client.exit_status import fail
from app.cli.client.output import OutputFormat
from app.cli.client.session import Session
from app.cli.command import Command, Group, Options, options

_of_all = partial(typer.Option, rich_help_panel="Options of all commands")
_POINTER = re.compile(r"/(?:body|query|path)/(\w+)([^:\s]*)")
_WORD = re.compile(r"\b[a-z_]+\b")

TenantArgument = Annotated[
    str, typer.Argument(metavar="TENANT", help="Tenant id.", autocompletion=tenant_names)
]
StrategyFilter = Annotated[str | None, typer.Option(help="Filter by strategy.")]
ServerFilter = Annotated[
    str | None, typer.Option(help="Filter by server.", autocompletion=server_names)
]
TenantFilter = Annotated[
    str | None, typer.Option(help="Filter by tenant.", autocompletion=tenant_names)
]
PoolFilter = Annotated[str | None, typer.Option(help="Filter by pool.", autocompletion=pool_names)]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
LabelOption = Annotated[
    list[str] | None, typer.Option(metavar="KEY=VALUE", help="A label; repeatable.")
]


def _declaration(
    *,
    yes: YesOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be done and change nothing.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Maximum number of rows.")] = 200,
    watch: Annotated[
        float | None, typer.Option(min=0.2, max=3600, help="Repeat every N seconds until Ctrl-C.")
    ] = None,
    output: Annotated[
        OutputFormat, _of_all("--output", "-o", help="How to print the result.")
    ] = "table",
    as_json: Annotated[bool, _of_all("--json", help="Short for --output json.")] = False,
    url: Annotated[
        str | None,
        _of_all(
            envvar="POOLKEEPER_URL",
            help="Address of the service; default: by POOLKEEPER_HOST and POOLKEEPER_PORT, or by"
            " poolkeeper.toml, else http://127.0.0.1:8080.",
        ),
    ] = None,
    api_key_file: Annotated[
        Path | None,
        _of_all(
            envvar="POOLKEEPER_API_KEY_FILE",
            help="File with the API key; or set POOLKEEPER_API_KEY.",
            dir_okay=False,
        ),
    ] = None,
) -> None:
    """The options that several kinds of commands have."""


_OPTIONS = options(_declaration)
OUTPUT_OPTIONS = (_OPTIONS["output"], _OPTIONS["as_json"])
SERVICE_OPTIONS = (*OUTPUT_OPTIONS, _OPTIONS["url"], _OPTIONS["api_key_file"])


class OutputCommand(Command):
    """A command with a result, printed in any format."""

    shared: ClassVar[Options] = OUTPUT_OPTIONS

    def invoke(self, ctx: Any) -> Any:
        ctx.obj = self.session(ctx)
        return super().invoke(ctx)

    def session(self, ctx: Any) -> Session:
        """The session of a call, from its shared options."""
        shared = {param.name: ctx.params.pop(param.name) for param in self.shared}
        if shared.pop("as_json"):
            shared["output"] = "json"
        return Session(**shared)


class ServiceCommand(OutputCommand):
    """A command that talks to a service."""

    shared: ClassVar[Options] = SERVICE_OPTIONS

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except ApiError as error:
            fail("\n".join([self._in_options(str(error)), *error.excerpt]), error.exit_status)
        except KeyboardInterrupt:
            raise typer.Exit(0) from None

    def _in_options(self, message: str) -> str:
        """Replace the API's field names in *message* by names of options."""
        own = [each for each in self.params if isinstance(each, TyperOption)]
        # A parameter has the name of the API's field, or its option has, such as --from.
        options = {
            name: each.opts[0]
            for each in own
            for name in (each.name, f"{each.name}s", each.opts[0].removeprefix("--"))
        }
        if "shared" in options:
            message = message.replace("scope=pool", "--shared")
        message = _POINTER.sub(
            lambda found: options.get(found[1], found[1]) + found[2].replace("/", " "), message
        )
        fields = {name: option for name, option in options.items() if "_" in name}
        return _WORD.sub(lambda found: fields.get(found[0], found[0]), message)


class ListCommand(ServiceCommand):
    """Lists resources."""

    shared: ClassVar[Options] = (_OPTIONS["limit"], _OPTIONS["watch"], *SERVICE_OPTIONS)


class ShowCommand(ServiceCommand):
    """Shows one resource."""

    shared: ClassVar[Options] = (_OPTIONS["watch"], *SERVICE_OPTIONS)


class ChangeCommand(ServiceCommand):
    """Changes one resource."""

    shared: ClassVar[Options] = (_OPTIONS["dry_run"], *SERVICE_OPTIONS)


class FinalCommand(ChangeCommand):
    """Makes a change that cannot be undone."""

    shared: ClassVar[Options] = (_OPTIONS["yes"], *ChangeCommand.shared)


class Resource(Group):
    """The commands of a resource; without a command, it is listed or shown."""

    shared: ClassVar[Options] = SERVICE_OPTIONS
    default = ("list", "show")


def resource(summary: str, kind: type[Group] = Resource) -> typer.Typer:
    """Create the group of a resource's commands; a group even with one command."""
    app = typer.Typer(cls=kind, help=summary, rich_markup_mode=None, add_completion=False)
    app.callback()(lambda: None)
    return app


def pairs(given: Iterable[str], option: str) -> dict[str, str]:
    """Parse the KEY=VALUE of an option.

    Raises:
        BadParameter: a value has no key, or no equals sign.
    """
    found: dict[str, str] = {}
    for pair in given:
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise typer.BadParameter(f"{pair} is not key=value", param_hint=option)
        found[key] = value
    return found
