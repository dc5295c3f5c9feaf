"""Migrates the catalog's database to this version's schema, or back.

The alembic scripts are in `alembic/` at the top of a checkout, and beside this file in an installed
package. Nothing here configures logging.
"""

import asyncio
from collections.abc import Callable
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.util import CommandError
from sqlalchemy import Connection, func, select, true
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from app.catalog.database import (
    LOCK_CLASS,
    CatalogAddress,
    fence,
    is_outage,
    translate_outages,
)
from app.catalog.database_requirements import (
    ServerFacts,
    check_rights,
    check_server,
    check_tables,
    close_to_public,
    unusable_catalog,
)
from app.domain.errors import CatalogUnusable, LeadershipLost

_CHECK_DEADLINE = 10.0
# While a migration waits for a lock, later statements wait behind it: renewals of leadership, too.
_LOCK_TIMEOUT = "10s"
_MIGRATION_LOCK = 1
_ANOTHER_VERSION = (
    "The catalog's tables were made by another version of Poolkeeper, newer than this one or"
    " damaged: {}. Start that version, or restore a backup of the catalog."
)


async def migrate(
    address: CatalogAddress, *, epoch: int | None = None, deadline: float = 60.0
) -> None:
    """Apply missing migrations, all or none; if several services start at once, one does it.

    Args:
        address: a database whose user can create tables in it.
        epoch: the epoch in which this may run; None if there is none yet, or no instance runs.
        deadline: seconds for everything.

    Raises:
        CatalogUnavailable: the catalog could not be reached, or not within the deadline, or another
            transaction, perhaps another migration, holds a lock for too long.
        LeadershipLost: another epoch has begun.
        CatalogUnusable: the database cannot hold a catalog, or this version does not know its
            schema.
    """
    await run_scripts(address, _upgrade, epoch=epoch, deadline=deadline, is_complete=True)


def _upgrade(config: Config) -> None:
    """Run alembic's upgrade; at most starts nothing is needed, and the scripts are not loaded."""
    if _revision(config.attributes["connection"]) != newest_revision():
        command.upgrade(config, "head")


def check_revision(revision: str | None) -> None:
    """Check that this version knows the catalog's schema, or that there is none yet.

    Raises:
        CatalogUnusable: it does not know the schema.
    """
    if revision is not None and revision not in _revisions():
        raise CatalogUnusable(_ANOTHER_VERSION.format(f"revision {revision} is unknown"))


async def check_database(address: CatalogAddress) -> tuple[ServerFacts, str | None]:
    """Check that a catalog can live there, without changing anything; raises like `migrate`.

    Return the revision of its schema, too; None if it has none yet.
    """

    def check(connection: Connection) -> tuple[ServerFacts, str | None]:
        facts = check_server(connection)
        check_rights(connection, facts)
        try:
            revision = _revision(connection)
            if revision == newest_revision():
                check_tables(connection)
        except DBAPIError as error:
            if is_outage(error):
                raise
            raise unusable_catalog(error, facts) from error
        check_revision(revision)
        return facts, revision

    engine = address.engine(timeout=_CHECK_DEADLINE, poolclass=NullPool)
    with translate_outages():
        async with asyncio.timeout(_CHECK_DEADLINE), engine.connect() as connection:
            return await connection.run_sync(check)


async def run_scripts(
    address: CatalogAddress,
    action: Callable[[Config], None],
    *,
    deadline: float,
    epoch: int | None = None,
    is_complete: bool = False,
) -> None:
    """Run *action* on alembic's scripts; raises like `migrate`."""

    def run(connection: Connection) -> None:
        facts = check_server(connection)
        connection.execute(select(func.set_config("lock_timeout", _LOCK_TIMEOUT, true())))
        # Held until the end of the transaction, in which all the scripts run.
        connection.execute(select(func.pg_advisory_xact_lock(LOCK_CLASS, _MIGRATION_LOCK)))
        if epoch is not None and connection.execute(fence(epoch)).one_or_none() is None:
            raise LeadershipLost
        config = Config()
        config.set_main_option("script_location", str(_scripts()).replace("%", "%%"))
        config.attributes["connection"] = connection
        try:
            action(config)
            if is_complete:
                check_tables(connection)
                close_to_public(connection)
        except CommandError as error:
            raise CatalogUnusable(_ANOTHER_VERSION.format(error)) from error
        except DBAPIError as error:
            if is_outage(error):
                raise
            raise unusable_catalog(error, facts) from error

    engine = address.engine(timeout=deadline, poolclass=NullPool)
    with translate_outages():
        async with asyncio.timeout(deadline), engine.begin() as connection:
            await connection.run_sync(run)


def newest_revision() -> str:
    """The revision of this version's schema."""
    return max(_revisions())


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


@cache
def _revisions() -> frozenset[str]:
    """The revisions of this version; each script's name begins with its revision."""
    scripts = (_scripts() / "versions").glob("*.py")
    return frozenset(each.name.partition("_")[0] for each in scripts)


def _scripts() -> Path:
    packaged = Path(__file__).with_name("migrations")
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "alembic"
