"""A catalog serves one service; a second is refused, and the first survives an outage."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from app.catalog.database import CatalogAddress
from app.catalog.leadership import Leadership
from app.domain.errors import CatalogInUse, CatalogUnavailable
from tests.fixtures.postgres import Database
from tests.fixtures.proxy import FaultProxy
from tests.fixtures.waiting import eventually


@asynccontextmanager
async def service(address: CatalogAddress, *, deadline: float = 5.0) -> AsyncIterator[Leadership]:
    leadership = Leadership(address, deadline=deadline)
    try:
        yield leadership
    finally:
        await leadership.release()


async def terminate(leadership: Leadership, database: Database) -> None:
    """End its back-end, as an administrator or a restart would."""
    async with database.connected() as connection:
        await connection.execute("SELECT pg_terminate_backend($1, 5000)", leadership._backend)


async def test_a_second_service_is_refused_with_the_name_of_the_first(
    catalog_address: CatalogAddress,
) -> None:
    async with service(catalog_address) as first, service(catalog_address) as second:
        assert not first.is_held
        await first.acquire()
        assert first.is_held
        assert repr(first) == "<Leadership holding>"
        with pytest.raises(CatalogInUse, match=f"poolkeeper on .* process .*{first._backend}"):
            await second.acquire(patience=0.0)
        assert not second.is_held
        await first.check()


async def test_a_released_catalog_is_free(catalog_address: CatalogAddress) -> None:
    async with service(catalog_address) as first, service(catalog_address) as second:
        await first.release()
        await first.acquire()
        waiting = asyncio.create_task(second.acquire(patience=20.0), name="second")
        await first.release()
        await first.release()
        await waiting
        assert (first.is_held, second.is_held) == (False, True)


async def test_catalogs_do_not_know_each_other(
    catalog_address: CatalogAddress, postgres_server: Database
) -> None:
    elsewhere = replace(catalog_address, database=postgres_server.database)
    async with service(catalog_address) as first, service(elsewhere) as second:
        await first.acquire()
        await second.acquire(patience=0.0)


async def test_a_lost_lock_is_noticed_and_taken_again(
    catalog_address: CatalogAddress, catalog_database: Database
) -> None:
    async with service(catalog_address) as first, service(catalog_address) as second:
        await first.acquire()
        await terminate(first, catalog_database)
        await eventually(lambda: not first.is_held)
        await first.check()
        assert first.is_held
        with pytest.raises(CatalogInUse):
            await second.acquire(patience=0.0)


async def test_a_service_that_lost_the_catalog_has_to_end(
    catalog_address: CatalogAddress, catalog_database: Database
) -> None:
    async with service(catalog_address) as first, service(catalog_address) as second:
        await first.acquire()
        await terminate(first, catalog_database)
        await second.acquire()
        with pytest.raises(CatalogInUse):
            await first.check()
        assert not first.is_held


async def test_while_the_catalog_is_away_nothing_is_decided(
    catalog_address: CatalogAddress, fault_proxy: FaultProxy
) -> None:
    async with service(replace(catalog_address, port=fault_proxy.port)) as first:
        await first.acquire()
        fault_proxy.refuse()
        await fault_proxy.reset()
        for _ in range(2):
            with pytest.raises(CatalogUnavailable):
                await first.check()
            assert not first.is_held
        await fault_proxy.pass_through()
        await eventually(lambda: recovered(first))


async def test_in_a_silence_the_lock_counts_as_lost_and_its_own_shadow_is_no_rival(
    catalog_address: CatalogAddress, catalog_database: Database, fault_proxy: FaultProxy
) -> None:
    """The server keeps the lock of a connection that it does not know to be dead."""
    proxied = replace(catalog_address, port=fault_proxy.port)
    async with service(proxied, deadline=0.3) as first:
        await first.acquire()
        fault_proxy.black_hole()
        with pytest.raises(CatalogUnavailable):
            await first.check()
        first._address = catalog_address
        with pytest.raises(CatalogUnavailable, match="lost"):
            await first.check()
        await terminate(first, catalog_database)
        await first.check()
        assert first.is_held


async def test_a_catalog_that_is_away_cannot_be_claimed() -> None:
    closed = CatalogAddress(host="127.0.0.1", port=1, user="u", password="p", database="d")
    async with service(closed) as first:
        with pytest.raises(CatalogUnavailable):
            await first.acquire()


async def recovered(leadership: Leadership) -> bool:
    try:
        await leadership.check()
    except CatalogUnavailable:
        return False
    return leadership.is_held
