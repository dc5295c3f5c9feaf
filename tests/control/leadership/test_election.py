"""Elections on a real catalog: how leadership passes on, and what its loss means."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from math import inf

import pytest

from app.catalog import leadership_lock
from app.catalog.database import CatalogAddress
from app.catalog.leadership_lock import Leadership
from app.control.leadership.election import Election
from app.control.leadership.trust import Trust
from app.domain.errors import CatalogInUse, CatalogUnavailable, CatalogUnusable
from app.domain.leadership import Instance, InstanceState, LeadershipRecord
from tests.fixtures.clock import Clock
from tests.fixtures.postgres import Database
from tests.fixtures.proxy import FaultProxy
from tests.fixtures.waiting import eventually

FIRST = Instance(id="f1257", version="1", url="http://first", secret_key="k", servers="s")
SECOND = replace(FIRST, id="5ec0d", url="http://second")
ALONE = replace(FIRST, id="a10e", url=None)
SET_BACK = "UPDATE leadership SET renewed_at = renewed_at - interval '11 s'"
SET_FORWARD = "UPDATE leadership SET renewed_at = renewed_at + interval '1 hour'"


@dataclass(slots=True)
class Candidate:
    """An election, its clock, and how often it said that the process must end."""

    election: Election
    clock: Clock
    lost: int = 0
    has_orphans: bool = False


@asynccontextmanager
async def candidate(
    instance: Instance, address: CatalogAddress, *, seconds: float = 6.0
) -> AsyncIterator[Candidate]:
    """An instance that can become active; it resigns at the end."""
    clock = Clock()
    trust = Trust(seconds if instance.has_standbys else inf, clock=clock)

    def count() -> None:
        found.lost += 1

    election = Election(
        address, instance, trust, on_lost=count, has_orphans=lambda: found.has_orphans
    )
    found = Candidate(election, clock)
    try:
        yield found
    finally:
        await found.election.resign()


@asynccontextmanager
async def rivals(address: CatalogAddress) -> AsyncIterator[tuple[Candidate, Candidate]]:
    async with candidate(FIRST, address) as first, candidate(SECOND, address) as second:
        yield first, second


async def leading(address: CatalogAddress) -> Leadership:
    """The leadership of the first instance, whose process stands still."""
    leadership = Leadership(address, FIRST)
    await leadership.lock()
    await leadership.begin_epoch()
    return leadership


async def execute(database: Database, statement: str) -> None:
    """Change the catalog without the instances' knowledge."""
    async with database.connected() as connection:
        await connection.execute(statement)


async def test_a_standby_waits_and_follows_at_once_who_ends_in_order(
    catalog_address: CatalogAddress,
) -> None:
    async with rivals(catalog_address) as (first, second):
        assert second.election.active_instance.startswith("The active instance has ended")
        seen: list[InstanceState] = []
        first.election.notify_change(lambda: seen.append(first.election.state))
        takeover = await first.election.contend()
        assert takeover is not None
        assert (takeover.predecessor, takeover.trust_left) == (None, 0.0)
        epoch = first.election.epoch
        assert takeover.epoch == epoch
        assert repr(first.election) == "<Election: activating>"
        assert not first.election.is_serving
        await first.election.renew_once()
        settled = asyncio.create_task(first.election.settle())
        await asyncio.sleep(0)
        assert not settled.done()
        await first.election.renew_once()
        assert not settled.done()
        first.election.begin_serving()
        assert await settled
        assert first.election.trust.is_valid()
        assert await second.election.contend() is None
        assert second.election.active_instance == "The active instance is http://first."
        assert not await second.election.settle()
        waiting = asyncio.create_task(second.election.wait_to_win())
        await first.election.resign()
        takeover = await waiting
        assert (takeover.predecessor, takeover.trust_left) == (None, 0.0)
        assert not first.election.trust.is_valid()
        assert seen == [InstanceState.ACTIVATING, InstanceState.ACTIVE, InstanceState.STOPPING]
        assert second.election.epoch == takeover.epoch > epoch
        assert second.election.failovers == 0
    assert (first.lost, second.lost) == (0, 0)


async def test_who_stops_hands_over_and_knows_its_successor(
    catalog_address: CatalogAddress,
) -> None:
    async with rivals(catalog_address) as (first, second):
        assert await first.election.contend() is not None
        first.election.begin_serving()
        assert not await first.election.has_others()
        assert await second.election.contend() is None
        assert await first.election.has_others()
        first.election.begin_stopping()
        assert not first.election.is_serving
        assert first.election.trust.is_valid()
        await first.election.resign()
        following = asyncio.create_task(first.election.follow())
        assert first.election.active_url is None
        assert await second.election.contend() is not None
        await eventually(lambda: first.election.active_url == "http://second")
        assert first.election.state is InstanceState.STOPPING
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def test_who_follows_goes_on_after_the_catalog_was_restored(
    catalog_address: CatalogAddress, catalog_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    read = Leadership.read

    async def counted(leadership: Leadership) -> LeadershipRecord | None:
        nonlocal looks
        looks += 1
        return await read(leadership)

    async with rivals(catalog_address) as (first, second):
        assert await second.election.contend() is not None
        await execute(catalog_database, "CREATE TABLE dump AS SELECT * FROM leadership")
        await execute(catalog_database, "DELETE FROM leadership")
        monkeypatch.setattr(Leadership, "read", counted)
        following = asyncio.create_task(first.election.follow())
        await eventually(lambda: looks > 1)
        await execute(catalog_database, "INSERT INTO leadership SELECT * FROM dump")
        await eventually(lambda: first.election.active_url == "http://second")
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def test_a_standby_ends_when_the_schema_is_newer_and_before_it_touches_anything(
    catalog_address: CatalogAddress, catalog_database: Database
) -> None:
    async with rivals(catalog_address) as (first, second):
        assert await first.election.contend() is not None
        assert await second.election.contend() is None
        await execute(catalog_database, "UPDATE alembic_version SET version_num = '9999'")
        epoch = first.election.epoch
        await first.election.resign()
        with pytest.raises(CatalogUnusable, match=r"newer than this one .* 9999"):
            await second.election.wait_to_win()
        assert second.election.record is not None
        assert (second.election.record.epoch, second.election.record.released) == (epoch, True)


@pytest.mark.parametrize("renewed", [SET_BACK, SET_FORWARD], ids=["past", "future"])
async def test_who_stops_renewing_is_cut_off_and_told_so_when_it_comes_back(
    catalog_address: CatalogAddress,
    catalog_database: Database,
    monkeypatch: pytest.MonkeyPatch,
    renewed: str,
) -> None:
    """As after SIGSTOP: a process that does nothing holds the lock.

    A renewal is in the future if the catalog's clock was set back since then.
    """
    monkeypatch.setattr("app.control.leadership.election.RENEWS_WITHIN", 0.1)
    stopped = await leading(catalog_address)
    earlier = stopped.epoch
    assert earlier is not None
    await stopped.register()
    connection = stopped._connection
    async with candidate(SECOND, catalog_address) as second:
        assert await second.election.contend() is None
        for _ in range(2):  # an instance that renews between two looks was only late
            await execute(catalog_database, renewed)
            assert await second.election.contend() is None
            await stopped.renew()
            assert await second.election.contend() is None
        assert stopped._connection is connection
        await execute(catalog_database, renewed)
        takeover = await second.election.wait_to_win()
        assert takeover.epoch > earlier
        assert takeover.predecessor == FIRST.id
        assert second.election.failovers == 1
        await eventually(lambda: not stopped.is_held)
        with pytest.raises(CatalogInUse):
            await stopped.renew()
    await stopped.release()


async def test_a_clock_that_jumps_or_an_outage_does_not_cost_leadership(
    catalog_address: CatalogAddress,
    catalog_database: Database,
    fault_proxy: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The record looks old at once, and its holder renews within seconds."""
    monkeypatch.setattr("app.control.leadership.election.RENEWS_WITHIN", 180.0)
    active = await leading(catalog_address)
    connection = active._connection
    proxied = replace(catalog_address, port=fault_proxy.port)
    async with candidate(SECOND, proxied) as second:
        election = second.election
        await execute(catalog_database, SET_BACK)
        for _ in range(3):
            assert await election.contend() is None
        first_seen = election._seen
        await active.renew()
        assert await election.contend() is None
        renewed = election._seen
        assert renewed is not None
        assert first_seen is not None
        assert renewed[1] > first_seen[1]
        # What was seen before an outage does not count after it.
        assert await election.contend() is None
        assert election._seen == renewed
        await fault_proxy.cut()
        with pytest.raises(CatalogUnavailable):
            await election.contend()
        await fault_proxy.pass_through()
        assert await election.contend() is None
        assert election._seen is not None
        assert election._seen[1] > renewed[1]
        assert active._connection is connection
        assert not connection.is_closed()  # type: ignore[union-attr]
    await active.release()


async def test_the_predecessors_trust_is_waited_out(catalog_address: CatalogAddress) -> None:
    killed = await leading(catalog_address)
    killed._connection.terminate()  # type: ignore[union-attr]
    async with candidate(SECOND, catalog_address) as second:
        takeover = await second.election.wait_to_win()
        assert takeover.predecessor == FIRST.id
        assert takeover.trust_left > 0
        assert not second.election.trust.is_valid()
        second.clock.now += takeover.trust_left
        await second.election.renew_once()
        assert second.election.trust.is_valid()


async def test_a_catalog_whose_clock_jumps_forward_does_not_shorten_the_predecessors_trust(
    catalog_address: CatalogAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when it fails over to another machine, which also ends all connections."""
    cut_off = await leading(catalog_address)
    async with candidate(SECOND, catalog_address) as second:
        assert await second.election.contend() is None
        an_hour_later = "(clock_timestamp() + interval '1 hour')"
        monkeypatch.setattr(
            leadership_lock,
            "_READ",
            leadership_lock._READ.replace("clock_timestamp()", an_hour_later),
        )
        cut_off._connection.terminate()  # type: ignore[union-attr]
        takeover = await second.election.wait_to_win()
        assert takeover.trust_left > 0
        await second.election.renew_once()
        assert not second.election.trust.is_valid()
        second.clock.now += takeover.trust_left
        await second.election.renew_once()
        assert second.election.trust.is_valid()


async def test_who_may_have_left_something_on_a_server_does_not_end_in_order(
    catalog_address: CatalogAddress,
) -> None:
    async with rivals(catalog_address) as (first, second):
        assert await first.election.contend() is not None
        first.has_orphans = True
        await first.election.resign()
        takeover = await second.election.wait_to_win()
        assert takeover.predecessor == FIRST.id
        assert takeover.trust_left > 0
        # It may have left something there, but it did not fail.
        assert second.election.failovers == 0


async def test_who_ends_before_it_has_cleaned_up_leaves_that_to_its_successor(
    catalog_address: CatalogAddress,
) -> None:
    killed = await leading(catalog_address)
    killed._connection.terminate()  # type: ignore[union-attr]
    ids = [SECOND.id, "7412d", "f0412"]
    predecessors = []
    for number, each in enumerate(ids):
        async with candidate(replace(SECOND, id=each), catalog_address) as next_one:
            predecessors.append((await next_one.election.wait_to_win()).predecessor)
            if number:
                next_one.election.has_succeeded()
    assert predecessors == [FIRST.id, SECOND.id, None]


async def test_who_cannot_renew_trusts_itself_no_longer_but_goes_on_serving(
    catalog_address: CatalogAddress, fault_proxy: FaultProxy
) -> None:
    proxied = replace(catalog_address, port=fault_proxy.port)
    async with candidate(FIRST, proxied) as first, candidate(ALONE, proxied) as alone:
        election, clock = first.election, first.clock
        assert await election.contend() is not None
        election.begin_serving()
        await fault_proxy.cut()
        clock.now += 5.0
        assert not await election.renew_once()
        clock.now += 2.0
        assert election.trouble is not None
        assert not election.trust.is_valid()
        # It asked in vain, so it did not merely sleep.
        assert election.is_serving
        with pytest.raises(CatalogUnavailable):
            await alone.election.contend()
        await fault_proxy.pass_through()
        await eventually(election.trust.is_valid)
        assert election.trouble is None
    assert first.lost == 0


async def test_after_a_pause_it_asks_before_it_answers(catalog_address: CatalogAddress) -> None:
    async with candidate(FIRST, catalog_address) as first:
        election, clock = first.election, first.clock
        assert await election.contend() is not None
        election.begin_serving()
        clock.now += 7.0
        assert not election.is_serving
        settled = asyncio.create_task(election.settle())
        await asyncio.sleep(0)
        assert not settled.done()
        assert await election.renew_once()
        assert await settled
        assert election.is_serving


async def test_a_renewal_that_was_paused_meanwhile_says_nothing(
    catalog_address: CatalogAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with candidate(FIRST, catalog_address) as first:
        election, clock = first.election, first.clock
        assert await election.contend() is not None
        election.begin_serving()
        renew = Leadership.renew

        async def pause(leadership: Leadership) -> None:
            clock.now += 7.0
            await renew(leadership)

        async def pause_and_fail(_: Leadership) -> None:
            clock.now += 7.0
            raise CatalogUnavailable("It does not answer in time.")

        async def fail(_: Leadership) -> None:
            raise CatalogUnavailable("The connection was ended.")

        for paused in (pause, pause_and_fail, fail):
            monkeypatch.setattr(Leadership, "renew", paused)
            await election.renew_once()
            assert not election.is_serving
        monkeypatch.setattr(Leadership, "renew", renew)
        assert await election.renew_once()
        assert election.is_serving
        # Without a pause a failure is an outage, in which it goes on serving.
        monkeypatch.setattr(Leadership, "renew", fail)
        clock.now += 5.0
        assert not await election.renew_once()
        clock.now += 5.0
        assert election.is_serving


async def test_who_lost_it_trusts_nothing_and_serves_nobody(
    catalog_address: CatalogAddress, catalog_database: Database
) -> None:
    async with rivals(catalog_address) as (first, second):
        assert await first.election.contend() is not None
        first.election.begin_serving()
        await execute(catalog_database, "UPDATE leadership SET epoch = 7, holder = 'another'")
        first.clock.now += 7.0
        settled = asyncio.create_task(first.election.settle())
        await eventually(lambda: first.lost == 1)
        assert not await settled
        assert first.election.state is InstanceState.STOPPING
        assert not first.election.trust.is_valid()
        assert "taken over" in str(first.election.lost)
        first.election.begin_serving()
        assert not first.election.is_serving
        assert await second.election.contend() is None
        await first.election.resign()
        takeover = await second.election.wait_to_win()
        assert takeover.epoch > 7
        assert takeover.predecessor == "another"
    assert first.lost == 1


async def test_an_instance_with_other_settings_refuses_to_wait(
    catalog_address: CatalogAddress,
) -> None:
    other = replace(SECOND, secret_key="x")
    async with candidate(FIRST, catalog_address) as first, candidate(other, catalog_address) as o:
        assert await first.election.contend() is not None
        await first.election.renew_once()
        with pytest.raises(CatalogInUse, match=r"http://first, have different .* secret key"):
            await o.election.contend()


async def test_an_instance_with_other_settings_does_not_stand_by_beside_those_that_wait(
    catalog_address: CatalogAddress,
) -> None:
    other = replace(SECOND, id="07e12", url="http://other", secret_key="x")
    async with (
        candidate(FIRST, catalog_address) as first,
        candidate(SECOND, catalog_address) as second,
        candidate(other, catalog_address) as stranger,
    ):
        assert await first.election.contend() is not None
        assert await second.election.contend() is None
        await first.election.resign()
        with pytest.raises(CatalogInUse, match=r"another one, http://second, .* secret key"):
            await stranger.election.contend()
        assert await second.election.contend() is not None
        assert not await second.election.has_others()


async def test_an_instance_does_not_stand_by_with_the_url_of_one_that_runs(
    catalog_address: CatalogAddress,
) -> None:
    async with (
        candidate(FIRST, catalog_address) as first,
        candidate(replace(FIRST, id="c0b1e"), catalog_address) as copy,
    ):
        assert await first.election.contend() is not None
        await first.election.renew_once()
        # The first may have crashed, because it was not seen since.
        assert await copy.election.contend() is None
        await first.election.renew_once()
        with pytest.raises(CatalogInUse, match="same POOLKEEPER_ADVERTISE_URL, http://first"):
            await copy.election.wait_to_win()
        await first.election.renew_once()
        assert first.lost == 0


async def test_a_service_without_a_url_has_no_standbys(
    catalog_address: CatalogAddress, catalog_database: Database
) -> None:
    another = replace(ALONE, id="a20e")
    async with (
        candidate(ALONE, catalog_address) as alone,
        candidate(another, catalog_address) as second,
        candidate(SECOND, catalog_address) as standby,
    ):
        await alone.election.win(patience=0)
        for refused in (second, standby):
            with pytest.raises(CatalogInUse, match="in use by poolkeeper a10e"):
                await refused.election.win(patience=0)
        await execute(catalog_database, SET_BACK)
        with pytest.raises(CatalogInUse, match="in use by poolkeeper a10e"):
            await standby.election.contend()
        alone.clock.now += 1000
        assert alone.election.trust.is_valid()


async def test_who_cannot_become_active_leaves_it_to_others(
    catalog_address: CatalogAddress, catalog_database: Database
) -> None:
    async with candidate(FIRST, catalog_address) as first, catalog_database.connected() as admin:
        head = await admin.fetchval("SELECT version_num FROM alembic_version")
        await execute(catalog_database, "UPDATE alembic_version SET version_num = '9999'")
        with pytest.raises(CatalogUnusable, match="9999"):
            await first.election.contend()
        assert first.election.state is InstanceState.STANDBY
        # Without a table that the migration needs.
        await execute(catalog_database, f"UPDATE alembic_version SET version_num = '{head}'")
        await execute(catalog_database, "ALTER TABLE samples RENAME TO lost")
        with pytest.raises(CatalogUnusable, match="samples"):
            await first.election.contend()
        assert first.election.state is InstanceState.STANDBY
        await execute(catalog_database, "ALTER TABLE lost RENAME TO samples")
        async with candidate(SECOND, catalog_address) as second:
            # The one that failed began an epoch; it did not change a schema that it does not know.
            failed = await admin.fetchval("SELECT epoch FROM leadership")
            takeover = await second.election.contend()
            assert takeover is not None
            assert takeover.epoch > failed > 0
            assert takeover.predecessor is None


async def test_an_instance_that_cannot_register_stays_active(
    catalog_address: CatalogAddress, catalog_database: Database
) -> None:
    async with (
        candidate(FIRST, catalog_address) as first,
        candidate(SECOND, catalog_address) as second,
        catalog_database.connected() as other,
    ):
        assert await first.election.contend() is not None
        epoch = first.election.epoch
        first.election.begin_serving()
        async with other.transaction():
            await other.execute("LOCK TABLE instances IN SHARE MODE")
            for _ in range(2):
                first.clock.now += 5.0
                assert await first.election.renew_once()
                assert first.election.trust.is_valid()
                with pytest.raises(CatalogUnavailable):
                    await second.election.contend()
        # Its connection has not ended, so it still has the lock.
        assert await second.election.contend() is None
        assert first.election.trouble is None
        assert first.election.epoch == epoch
    assert first.lost == 0
