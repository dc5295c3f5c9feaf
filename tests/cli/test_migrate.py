"""`poolkeeper migrate` says what it did, and spoils nothing for instances that run."""

from dataclasses import replace

import pytest

from app.catalog.leadership_lock import Leadership
from app.catalog.migrate import check_database, newest_revision
from app.cli.migrate import upgrade
from app.domain.errors import CatalogInUse
from app.domain.leadership import Instance
from tests.fixtures.catalog import address_of, downgrade
from tests.fixtures.postgres import Database

INSTANCE = Instance(id="f1257", version="1")


async def test_it_says_from_which_revision_to_which(database: Database) -> None:
    address, leadership = address_of(database), Leadership(address_of(database), INSTANCE)
    newest = newest_revision()
    try:
        assert await upgrade(address, leadership) == (
            f"The catalog's schema was created, in revision {newest}."
        )
        assert "nothing to upgrade" in await upgrade(address, leadership)
        await downgrade(address, revision="0009")
        assert f"upgraded from revision 0009 to {newest}." in await upgrade(address, leadership)
    finally:
        await leadership.release()


async def test_it_upgrades_nothing_beneath_an_active_instance(database: Database) -> None:
    address = address_of(database)
    command = Leadership(address, INSTANCE)
    active = Leadership(address, replace(INSTANCE, id="5ec0d"))
    try:
        await upgrade(address, command)
        await command.release()
        await downgrade(address, revision="0009")
        await active.lock()
        with pytest.raises(CatalogInUse, match="An instance works on this catalog"):
            await upgrade(address, command)
        _, revision = await check_database(address)
        assert revision == "0009"
        await active.release()
        await upgrade(address, command)
        await command.release()
        await active.lock()
        assert "nothing to upgrade" in await upgrade(address, command)
    finally:
        await active.release()
        await command.release()
