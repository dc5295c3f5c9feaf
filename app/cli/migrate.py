"""`poolkeeper migrate`: upgrades the catalog's schema without serving."""

import asyncio
from contextlib import AsyncExitStack

import typer

from app.catalog.migrate import migrate as migrate_catalog
from app.cli.serve import exit_on_error, settings_or_exit
from app.runtime.logs import configure_logging
from app.runtime.topology import start_topology


def migrate() -> None:
    """Upgrade the catalog's schema and exit."""
    settings = settings_or_exit()
    configure_logging(settings.log_format, settings.log_level)

    async def run() -> None:
        async with AsyncExitStack() as stack:
            topology = await start_topology(settings, stack)
            await migrate_catalog(topology.catalog)

    with exit_on_error():
        asyncio.run(run())
    typer.echo("The catalog is up to date.")
