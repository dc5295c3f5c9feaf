"""The instances that the catalog knows."""

from dataclasses import replace

from app.catalog.catalog import Catalog
from app.catalog.database import CatalogAddress
from app.catalog.leadership_lock import Leadership
from app.domain.leadership import Instance
from tests.fixtures.postgres import Database

STANDBY = Instance(id="1", version="1", url="http://1", secret_key="k", servers="s")
ACTIVE = replace(STANDBY, id="2", version="2", url=None)


async def test_the_active_instance_is_first_and_what_is_gone_is_left_out(
    catalog: Catalog, catalog_address: CatalogAddress, catalog_database: Database
) -> None:
    assert await catalog.instances.load() == ()
    standby, active = (Leadership(catalog_address, each) for each in (STANDBY, ACTIVE))
    await standby.register()
    await active.lock()
    takeover = await active.begin_epoch()
    assert takeover is not None
    await active.register()
    first, second = await catalog.instances.load()
    assert (first.id, first.url, first.version) == ("2", None, "2")
    assert first.epoch == takeover.epoch
    assert first.acquired_at is not None
    assert first.started_at <= first.seen_at
    assert (second.id, second.url, second.epoch, second.acquired_at) == (
        "1",
        "http://1",
        None,
        None,
    )
    async with catalog_database.connected() as connection:
        await connection.execute("UPDATE instances SET seen_at = seen_at - interval '11 s'")
    # The active one stays active until another epoch begins.
    assert [each.id for each in await catalog.instances.load()] == ["2"]
    await standby.register()
    assert [each.id for each in await catalog.instances.load()] == ["2", "1"]
    await active.release(in_order=False)
    assert [each.id for each in await catalog.instances.load()] == ["1"]
    await standby.release()
    assert await catalog.instances.load() == ()
