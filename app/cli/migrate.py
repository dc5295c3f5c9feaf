"""`poolkeeper migrate`: upgrades the catalog's schema without serving."""

import asyncio
from contextlib import AsyncExitStack

import typer

from app.catalog.database import CatalogAddress
from app.catalog.leadership_lock import Leadership
from app.catalog.migrate import check_database, newest_revision
from app.catalog.migrate import migrate as migrate_catalog
from app.cli.serve import exit_on_error, settings_or_exit
from app.domain.errors import CatalogInUse
from app.runtime import configuration
from app.runtime.logs import configure_logging
from app.runtime.topology import start_topology


def migrate() -> None:
    settings = settings_or_exit()
    configure_logging(settings.log_format, settings.log_level)

    async def run() -> str:
        async with AsyncExitStack() as stack:
            topology = await start_topology(settings, stack)
            leadership = Leadership(topology.catalog, configuration.instance(settings))
            stack.push_async_callback(leadership.release)
            return await upgrade(topology.catalog, leadership)

    with exit_on_error(settings.log_format, "cannot migrate"):
        said = asyncio.run(run())
    typer.echo(said)


async def upgrade(address: CatalogAddress, leadership: Leadership) -> str:
    """Upgrade the schema, and return a sentence about it.

    Raises:
        CatalogInUse: an instance of an earlier version is active.
    """
    _, before = await check_database(address)
    newest = newest_revision()
    if before == newest:
        await migrate_catalog(address)  # this also closes the database to everyone else
        return f"The catalog has revision {newest} of its schema already: nothing to upgrade."
    if not await leadership.try_lock():
        raise CatalogInUse(
            f"An instance works on this catalog, with revision {before} of its schema: its version"
            " could not start again. Replace it: an instance of this version upgrades the schema"
            " itself when it becomes active. Or stop all instances first."
        )
    await migrate_catalog(address)
    if before is None:
        return f"The catalog's schema was created, in revision {newest}."
    return (
        f"The catalog's schema was upgraded from revision {before} to {newest}. Earlier versions"
        " cannot start with it."
    )
