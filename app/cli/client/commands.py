"""Registers the commands that talk to a running service."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import typer

from app.cli.client.apply import apply
from app.cli.client.events import events
from app.cli.client.pools import pools
from app.cli.client.recommendations import recommendations
from app.cli.client.refusals import refusals
from app.cli.client.stats import stats
from app.cli.client.tenants import tenants
from app.cli.client.top import top

_PANEL = "Running service"
_GROUPS = {"tenants": tenants, "pools": pools, "recommendations": recommendations}
_COMMANDS: Mapping[str, Callable[..., None]] = {
    "top": top,
    "stats": stats,
    "events": events,
    "refusals": refusals,
    "apply": apply,
}
COMMAND_NAMES = frozenset(_GROUPS) | frozenset(_COMMANDS)


def add_client_commands(cli: typer.Typer) -> None:
    for name, command in _COMMANDS.items():
        cli.command(name, rich_help_panel=_PANEL)(command)
    for name, group in _GROUPS.items():
        cli.add_typer(group, name=name, rich_help_panel=_PANEL)


def client_cli() -> typer.Typer:
    """A command line of these commands only."""
    cli = typer.Typer(name="poolkeeper", no_args_is_help=True, pretty_exceptions_enable=False)
    add_client_commands(cli)
    return cli
