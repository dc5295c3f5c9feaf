"""A catalog has one active instance; an epoch fences the late writes of an earlier one."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

import app
from app.catalog.catalog import Catalog
from app.catalog.database import CatalogAddress
from app.catalog.database import Database as CatalogDatabase
from app.catalog.leadership_lock import Leadership
from app.catalog.migrate import migrate
from app.catalog.tables import tenants
from app.domain.errors import CatalogInUse, CatalogUnavailable, CatalogUnusable, LeadershipLost
from app.domain.leadership import Instance, Takeover, client_name
from tests.catalog.values import event
from tests.fixtures.catalog import downgrade
from tests.fixtures.postgres import Database
from tests.fixtures.proxy import FaultProxy
from tests.fixtures.waiting import eventually

FIRST = Instance(id="f1257", version="1", url="http://first", secret_key="k", servers="s")
SECOND = replace(FIRST, id="5ec0d", url="http://second")


@asynccontextmanager
async def part_of(
    instance: Instance, address: CatalogAddress, *, deadline: float = 5.0
) -> AsyncIterator[Leadership]:
    """An instance's part in the leadership, released at the end."""
    leadership = Leadership(address, instance, deadline=deadline)
    try:
        yield leadership
    finally:
        await leadership.release()


async def begun(leadership: Leadership) -> Takeover:
    """The beginning of an epoch, by the holder of the lock."""
    await leadership.lock()
    takeover = await leadership.begin_epoch()
    assert takeover is not None
    return takeover


async def terminate(instance: Instance, database: Database) -> None:
    """End the connection with its lock, as an administrator or a crash would."""
    async with database.connected() as connection:
        await connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE starts_with(application_name, $1)",
            f"{client_name(instance.id)}, process",
        )


async def test_a_second_service_is_refused_with_the_name_of_the_first(
    catalog_address: CatalogAddress,
) -> None:
    async with part_of(FIRST, catalog_address) as first, part_of(SECOND, catalog_address) as second:
        assert not first.is_held
        await first.lock()
        assert first.is_held
        assert repr(first) == "<Leadership holding>"
        assert not await second.try_lock()
        with pytest.raises(CatalogInUse, match=r"by poolkeeper f1257, process .* on .*back-end"):
            await second.lock()
        assert not second.is_held
        assert await first.try_lock()


async def test_each_takeover_begins_an_epoch_that_was_never_used(
    catalog_address: CatalogAddress,
) -> None:
    async with part_of(FIRST, catalog_address) as first, part_of(SECOND, catalog_address) as second:
        one = await begun(first)
        assert replace(one, epoch=0) == Takeover(epoch=0, predecessor=None, trust_left=0.0)
        await first.release()
        await first.release()
        two = await begun(second)
        assert replace(two, epoch=0) == Takeover(epoch=0, predecessor=None, trust_left=0.0)
        await second.release()
        three = await begun(first)
        assert 0 < one.epoch < two.epoch < three.epoch


async def test_a_restored_catalog_begins_no_epoch_of_the_time_after_its_backup(
    catalog_address: CatalogAddress, catalog_database: Database
) -> None:
    async with part_of(FIRST, catalog_address) as first, catalog_database.connected() as admin:
        backup = await admin.fetchval("SELECT epoch FROM leadership")
        used = [await begun_and_ended(first) for _ in range(3)]
        # An epoch may begin each second.
        at = await admin.fetchval("SELECT clock_timestamp()")
        later = "SELECT clock_timestamp() > $1::timestamptz + interval '3 s'"
        await eventually(lambda: admin.fetchval(later, at))
        await admin.execute("UPDATE leadership SET epoch = $1", backup)
        assert await begun_and_ended(first) > max(used)


async def begun_and_ended(leadership: Leadership) -> int:
    epoch = (await begun(leadership)).epoch
    await leadership.release()
    return epoch


async def test_epochs_grow_even_if_the_clock_was_set_back(
    catalog_address: CatalogAddress, catalog_database: Database
) -> None:
    async with part_of(FIRST, catalog_address) as first, catalog_database.connected() as admin:
        later = await begun_and_ended(first) + 1_000_000
        await admin.execute("UPDATE leadership SET epoch = $1", later)
        assert await begun_and_ended(first) == later + 1


async def test_what_did_not_end_in_order_is_named_and_may_act_for_a_while(
    catalog_address: CatalogAddress, catalog_database: Database
) -> None:
    async with part_of(FIRST, catalog_address) as first, part_of(SECOND, catalog_address) as second:
        epoch = (await begun(first)).epoch
        await first.register("x")
        record = await second.read()
        assert record is not None
        assert (record.epoch, record.holder, record.url) == (epoch, FIRST.id, FIRST.url)
        assert (record.secret_key, record.servers, record.is_held) == ("k", "s", True)
        assert record.keys == "x"
        await first.register("y")
        record = await second.read()
        assert record is not None
        assert record.keys == "y"
        assert 0 <= record.age < 180
        await terminate(FIRST, catalog_database)
        takeover = await begun(second)
        assert takeover.epoch > epoch
        assert takeover.predecessor == FIRST.id
        assert takeover.trust_left > 0
        assert takeover.is_failover


async def test_who_does_not_end_in_order_is_succeeded_as_after_a_crash(
    catalog_address: CatalogAddress,
) -> None:
    async with part_of(FIRST, catalog_address) as first, part_of(SECOND, catalog_address) as second:
        await begun(first)
        await first.register()
        assert await second.others(within=180.0) == (FIRST,)
        await first.release(in_order=False)
        takeover = await begun(second)
        assert takeover.predecessor == FIRST.id
        assert takeover.trust_left > 0
        assert not takeover.is_failover
        await second.register()
        assert await first.others(within=180.0) == (SECOND,)
        await second.release()
        assert await first.others(within=180.0) == ()


async def test_who_begins_again_says_again_which_keys_it_has(
    catalog_address: CatalogAddress,
) -> None:
    async with part_of(FIRST, catalog_address) as first:
        for _ in range(2):
            await begun(first)
            await first.register("x")
            record = await first.read()
            assert record is not None
            assert record.keys == "x"
            await first.release()


async def test_no_epoch_begins_without_the_lock(
    catalog_address: CatalogAddress, catalog_database: Database
) -> None:
    async with part_of(FIRST, catalog_address) as first, part_of(SECOND, catalog_address) as second:
        await first.lock()
        await terminate(FIRST, catalog_database)
        await eventually(first.disconnected.is_set)
        await begun(second)
        with pytest.raises(CatalogUnavailable):
            await first.begin_epoch()
        assert second.is_held
        await second.renew()


async def test_an_earlier_epoch_neither_migrates_nor_counts_failovers(
    catalog_address: CatalogAddress, catalog_database: Database
) -> None:
    async with part_of(FIRST, catalog_address) as first, part_of(SECOND, catalog_address) as second:
        epoch = (await begun(first)).epoch
        await migrate(catalog_address, epoch=epoch)
        await terminate(FIRST, catalog_database)
        later = (await begun(second)).epoch
        with pytest.raises(LeadershipLost):
            await migrate(catalog_address, epoch=epoch)
        with pytest.raises(LeadershipLost):
            await first.count_failovers(1)
        await migrate(catalog_address, epoch=later)
        assert await second.count_failovers(0) == 0


async def test_an_earlier_epoch_writes_nothing_more(
    catalog_address: CatalogAddress, catalog_database: Database
) -> None:
    async with part_of(FIRST, catalog_address) as first, part_of(SECOND, catalog_address) as second:
        old = Catalog(catalog_address, epoch=(await begun(first)).epoch, deadline=10.0)
        await old.audit_log.append([event("before")])
        await terminate(FIRST, catalog_database)
        new = Catalog(catalog_address, epoch=(await begun(second)).epoch, deadline=10.0)
        try:
            with pytest.raises(LeadershipLost):
                await old.audit_log.append([event("too late")])
            assert not old.available
            await new.audit_log.append([event("after")])
            # It may still read.
            assert [each.action for each in await old.audit_log.page()] == ["after", "before"]
        finally:
            await old.close()
            await new.close()


def test_connections_to_the_catalog_are_opened_in_three_places() -> None:
    """All others use `Database`, which fences what they write."""
    opens = re.compile(r"create_async_engine|\.engine\(|wire\.connect\b")
    root = Path(app.__file__).parent
    found = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        if opens.search(path.read_text(encoding="utf-8"))
    }
    catalog = {"catalog/database.py", "catalog/leadership_lock.py", "catalog/migrate.py"}
    of_others = {"embedded/databases.py", "pools/driver.py"}
    assert {path for path in found if not path.startswith("wire/")} == catalog | of_others


async def test_nothing_is_written_past_the_fence(catalog_address: CatalogAddress) -> None:
    database = CatalogDatabase(catalog_address, epoch=0, deadline=10.0)
    try:
        with pytest.raises(CatalogUnavailable):
            await database.load(tenants.delete().returning(tenants.c.id), dict)
        async with database.transaction() as connection:
            await connection.execute(tenants.delete())
    finally:
        await database.close()


async def test_a_takeover_ends_a_transaction_that_its_predecessor_left_open(
    catalog_address: CatalogAddress, catalog_database: Database
) -> None:
    """As of a process that was stopped in the middle of a write."""
    address = replace(catalog_address, client=client_name(FIRST.id))
    async with part_of(FIRST, catalog_address) as first, part_of(SECOND, catalog_address) as second:
        database = CatalogDatabase(address, epoch=(await begun(first)).epoch, deadline=180.0)

        async def write_late() -> None:
            async with database.transaction() as connection:
                await terminate(FIRST, catalog_database)
                await begun(second)
                await connection.execute(tenants.delete())

        try:
            with pytest.raises(CatalogUnavailable):
                await write_late()
        finally:
            await database.close()
        with pytest.raises(CatalogInUse):
            await first.renew()


async def test_a_takeover_waits_for_a_write_under_way(
    catalog_address: CatalogAddress, catalog_database: Database
) -> None:
    async with part_of(FIRST, catalog_address) as first, part_of(SECOND, catalog_address) as second:
        # Its connections have another name, so that the takeover does not end them.
        epoch = (await begun(first)).epoch
        database = CatalogDatabase(catalog_address, epoch=epoch, deadline=180.0)
        async with catalog_database.connected() as admin:
            async with database.transaction():
                await terminate(FIRST, catalog_database)
                taking = asyncio.create_task(begun(second))
                await eventually(
                    lambda: admin.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted")
                )
            assert (await taking).epoch > epoch
        await database.close()


async def test_a_renewal_keeps_the_epoch_and_waits_for_no_write(
    catalog_address: CatalogAddress,
) -> None:
    async with part_of(FIRST, catalog_address) as first, part_of(SECOND, catalog_address) as second:
        epoch = (await begun(first)).epoch
        database = CatalogDatabase(catalog_address, epoch=epoch, deadline=180.0)
        before = await second.read()
        async with database.transaction():
            await first.renew()
        after = await second.read()
        await database.close()
        assert before is not None
        assert after is not None
        assert (before.epoch, after.epoch) == (epoch, epoch)


async def test_a_catalog_that_was_made_read_only_ends_no_leadership_and_begins_none(
    catalog_address: CatalogAddress, catalog_database: Database
) -> None:
    """As hosters do while its disk is full."""
    read_only = "SET default_transaction_read_only = on"
    async with part_of(FIRST, catalog_address) as first:
        await begun(first)
        async with catalog_database.connected() as connection:
            await connection.execute(f"ALTER DATABASE {catalog_database.database} {read_only}")
        await terminate(FIRST, catalog_database)
        await eventually(first.disconnected.is_set)
        await first.renew()
        assert first.is_held
        await first.release()
    async with part_of(SECOND, catalog_address) as second:
        with pytest.raises(CatalogUnavailable, match="takes no writes"):
            await begun(second)


async def test_a_renewal_and_other_questions_take_turns(catalog_address: CatalogAddress) -> None:
    async with part_of(FIRST, catalog_address, deadline=180.0) as first:
        await begun(first)
        await asyncio.gather(first.renew(), first.others(within=5.0), first.count_failovers(1))
        assert first.is_held
        assert not first.disconnected.is_set()


async def test_catalogs_do_not_know_each_other(
    catalog_address: CatalogAddress, postgres_server: Database
) -> None:
    elsewhere = replace(catalog_address, database=postgres_server.database)
    async with part_of(FIRST, catalog_address) as first, part_of(SECOND, elsewhere) as second:
        assert await first.try_lock()
        assert await second.try_lock()


async def test_a_lost_lock_is_noticed_and_taken_again_in_the_same_epoch(
    catalog_address: CatalogAddress, catalog_database: Database
) -> None:
    async with part_of(FIRST, catalog_address) as first, part_of(SECOND, catalog_address) as second:
        epoch = (await begun(first)).epoch
        await terminate(FIRST, catalog_database)
        await eventually(first.disconnected.is_set)
        assert not first.is_held
        await first.renew()
        assert first.is_held
        assert first.epoch == epoch
        assert not first.disconnected.is_set()
        assert not await second.try_lock()


async def test_a_service_that_lost_the_catalog_has_to_end(
    catalog_address: CatalogAddress, catalog_database: Database
) -> None:
    async with part_of(FIRST, catalog_address) as first, part_of(SECOND, catalog_address) as second:
        await begun(first)
        await terminate(FIRST, catalog_database)
        await begun(second)
        with pytest.raises(CatalogInUse, match="5ec0d"):
            await first.renew()
        await second.release()
        with pytest.raises(CatalogInUse, match="taken over"):
            await first.renew()


async def test_while_the_catalog_is_away_nothing_is_decided(
    catalog_address: CatalogAddress, fault_proxy: FaultProxy
) -> None:
    async with part_of(FIRST, replace(catalog_address, port=fault_proxy.port)) as first:
        await begun(first)
        await fault_proxy.cut()
        for _ in range(2):
            with pytest.raises(CatalogUnavailable):
                await first.renew()
            assert not first.is_held
        await fault_proxy.pass_through()
        await eventually(lambda: recovered(first))


async def test_a_connection_that_broke_off_unnoticed_is_no_rival(
    catalog_address: CatalogAddress, fault_proxy: FaultProxy
) -> None:
    """The server keeps the lock of a connection that it does not know to be dead."""
    proxied = replace(catalog_address, port=fault_proxy.port)
    async with part_of(FIRST, proxied) as first:
        await begun(first)
        fault_proxy.black_hole()
        first._deadline = 0.3
        with pytest.raises(CatalogUnavailable):
            await first.renew()
        first._deadline = 10.0
        first._address = replace(first._address, port=catalog_address.port)
        await first.renew()
        assert first.is_held


async def test_a_catalog_of_a_version_before_has_no_record_yet(
    catalog_address: CatalogAddress,
) -> None:
    await downgrade(catalog_address, revision="0006")
    async with part_of(FIRST, catalog_address) as first:
        assert await first.try_lock()
        await first.register()
        assert await first.others(within=5.0) == ()
        assert await first.read() is None
        assert await first.begin_epoch() is None


async def test_a_missing_record_is_reported_because_epochs_must_not_start_again(
    catalog_address: CatalogAddress, catalog_database: Database
) -> None:
    async with catalog_database.connected() as connection:
        await connection.execute("DELETE FROM leadership")
    async with part_of(FIRST, catalog_address) as first:
        with pytest.raises(CatalogUnusable, match="backup"):
            await first.read()


async def test_a_catalog_that_is_away_cannot_be_claimed() -> None:
    closed = CatalogAddress(host="127.0.0.1", port=1, user="u", password="p", database="d")
    async with part_of(FIRST, closed) as first:
        with pytest.raises(CatalogUnavailable):
            await first.try_lock()


async def recovered(leadership: Leadership) -> bool:
    try:
        await leadership.renew()
    except CatalogUnavailable:
        return False
    return leadership.is_held
