"""Puts the commands that speak with a running service onto the command line."""

from __future__ import annotations

import typer

from app.cli.client.apply import apply
from app.cli.client.events import events
from app.cli.client.pools import pools
from app.cli.client.recommendations import recommendations
from app.cli.client.stats import stats
from app.cli.client.tenants import tenants
from app.cli.client.top import top

_PANEL = "A running service"


def add_client_commands(cli: typer.Typer) -> None:
    """Add every command to *cli*."""
    cli.command(rich_help_panel=_PANEL)(top)
    cli.add_typer(tenants, name="tenants", rich_help_panel=_PANEL)
    cli.add_typer(pools, name="pools", rich_help_panel=_PANEL)
    cli.command(rich_help_panel=_PANEL)(stats)
    cli.add_typer(recommendations, name="recommendations", rich_help_panel=_PANEL)
    cli.command(rich_help_panel=_PANEL)(events)
    cli.command(rich_help_panel=_PANEL)(apply)


def client_cli() -> typer.Typer:
    """A command line of these commands and no others."""
    cli = typer.Typer(name="poolkeeper", no_args_is_help=True, pretty_exceptions_enable=False)
    add_client_commands(cli)
    return cli


def command_names() -> frozenset[str]:
    """What these commands are called."""
    found = client_cli()
    commands = [command.callback for command in found.registered_commands]
    return frozenset(
        [each.__name__ for each in commands if each is not None]
        + [str(group.name) for group in found.registered_groups]
    )
