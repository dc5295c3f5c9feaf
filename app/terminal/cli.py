"""Puts the commands that speak with a running service onto the command line."""

from __future__ import annotations

import typer

from app.terminal.apply import apply
from app.terminal.events import events
from app.terminal.pools import pools
from app.terminal.recommendations import recommendations
from app.terminal.stats import stats
from app.terminal.tenants import tenants
from app.terminal.top import top

_PANEL = "A running service"


def add_to(cli: typer.Typer) -> None:
    """Add every command to *cli*."""
    cli.command(rich_help_panel=_PANEL)(top)
    cli.add_typer(tenants, name="tenants", rich_help_panel=_PANEL)
    cli.add_typer(pools, name="pools", rich_help_panel=_PANEL)
    cli.command(rich_help_panel=_PANEL)(stats)
    cli.add_typer(recommendations, name="recommendations", rich_help_panel=_PANEL)
    cli.command(rich_help_panel=_PANEL)(events)
    cli.command(rich_help_panel=_PANEL)(apply)


def alone() -> typer.Typer:
    """A command line of these commands and no others."""
    cli = typer.Typer(name="poolkeeper", no_args_is_help=True, pretty_exceptions_enable=False)
    add_to(cli)
    return cli


def names() -> frozenset[str]:
    """What these commands are called."""
    found = alone()
    commands = [command.callback for command in found.registered_commands]
    return frozenset(
        [each.__name__ for each in commands if each is not None]
        + [str(group.name) for group in found.registered_groups]
    )
