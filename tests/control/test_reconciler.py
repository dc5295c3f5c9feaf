"""The reconciler: what a crash or an outage interrupted is finished."""

from __future__ import annotations

import pytest

from app.catalog.sole import SoleService
from app.control.keeper import PoolChange
from app.domain.errors import CatalogInUse
from app.domain.pool import PoolSize, PoolState
from tests.fixtures.catalog import address_of
from tests.fixtures.control import PERSON, Control
from tests.fixtures.postgres import Database
from tests.fixtures.waiting import eventually


async def test_only_pools_that_keep_connections_are_opened_by_it(control: Control) -> None:
    await control.tenant("kept")
    await control.tenant("lazy")
    for name, minimum in (("kept", 1), ("lazy", 0)):
        await control.catalog.pools.save(
            name,
            PoolSize(min_size=minimum, max_size=3),
            paused=False,
            event=(await control.catalog.events.page())[0],
        )
    await control.keeper.load()
    report = await control.reconciler.run_once()
    assert report.steps == 1
    assert control.manager.find("lazy") is None
    pool = control.manager.find("kept")
    assert pool is not None
    await eventually(lambda: pool.metrics.idle_connections == 1)
    assert (await control.reconciler.run_once()).steps == 0


async def test_an_open_pool_follows_what_was_stored(control: Control) -> None:
    await control.tenant("acme")
    outcome = await control.keeper.put_pool("acme", PoolChange(max_size=3), PERSON)
    event = (await control.catalog.events.page())[0]
    await control.catalog.pools.save("acme", PoolSize(max_size=7), paused=True, event=event)
    await control.keeper.load()
    assert (await control.reconciler.run_once()).steps == 2
    assert outcome.pool is not None
    assert (outcome.pool.size.max_size, outcome.pool.state) == (7, PoolState.PAUSED)


async def test_an_interrupted_deletion_is_finished(control: Control) -> None:
    await control.tenant("acme")
    event = (await control.catalog.events.page())[0]
    account = control.manager.account("acme")
    await control.catalog.tenants.mark_deleting(account.tenant.spec.id, event=event)
    await control.keeper.load()
    report = await control.reconciler.run_once()
    assert report.deletions_finished == 1
    assert await control.catalog.tenants.load() == ()
    async with control.manager.servers["local"].admin() as admin:
        assert not await admin.fetchval(
            "select rolcanlogin from pg_roles where rolname = 'tenant_acme'"
        )


async def test_it_ends_the_service_when_another_one_took_the_catalog(
    control: Control, catalog_database: Database
) -> None:
    other = SoleService(address_of(catalog_database))
    await other.acquire()
    try:
        with pytest.raises(CatalogInUse):
            await control.reconciler.run_once()
    finally:
        await other.release()
