"""The proxy that fault tests stand on does what its modes say, on a real connection."""

import asyncio
from dataclasses import replace

import asyncpg
import pytest

from tests.fixtures.postgres import Database
from tests.fixtures.proxy import FaultProxy
from tests.fixtures.waiting import eventually


@pytest.fixture
def proxied(database: Database, fault_proxy: FaultProxy) -> Database:
    return replace(database, host=fault_proxy.host, port=fault_proxy.port)


async def test_it_passes_and_counts(proxied: Database, fault_proxy: FaultProxy) -> None:
    async with proxied.connected() as connection:
        assert await connection.fetchval("SELECT repeat('x', 1000000)") == "x" * 1_000_000
        assert fault_proxy.live == fault_proxy.accepted == 1
    assert fault_proxy.bytes_down > 1_000_000 > fault_proxy.bytes_up > 0
    await eventually(lambda: fault_proxy.live == 0)


async def test_a_black_hole_swallows_live_and_new_connections_until_it_ends(
    proxied: Database, fault_proxy: FaultProxy
) -> None:
    async with proxied.connected() as connection:
        fault_proxy.black_hole()
        answer = asyncio.create_task(connection.fetchval("SELECT 42"), name="answer")
        newcomer = asyncio.create_task(proxied.connect(), name="newcomer")
        await eventually(lambda: fault_proxy.accepted == 2)
        assert not answer.done()
        assert not newcomer.done()
        await fault_proxy.pass_through()
        assert await answer == 42
        await (await newcomer).close()


async def test_stranded_connections_stay_so_while_new_ones_work(
    proxied: Database, fault_proxy: FaultProxy
) -> None:
    connection = await proxied.connect()
    fault_proxy.strand()
    async with proxied.connected() as newcomer:
        assert await newcomer.fetchval("SELECT 42") == 42
        with pytest.raises(TimeoutError):
            await connection.fetchval("SELECT 42", timeout=0.1)
    connection.terminate()


async def test_refusing_spares_live_connections_and_keeps_the_port(
    proxied: Database, fault_proxy: FaultProxy
) -> None:
    async with proxied.connected() as connection:
        fault_proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            await proxied.connect()
        assert await connection.fetchval("SELECT 42") == 42
        await fault_proxy.pass_through()
        assert fault_proxy.port == proxied.port
        await (await proxied.connect()).close()


async def test_a_reset_cuts_live_connections_only(
    proxied: Database, fault_proxy: FaultProxy
) -> None:
    connection = await proxied.connect()
    sleeping = asyncio.create_task(connection.fetchval("SELECT pg_sleep(30)"), name="sleeping")
    await eventually(lambda: not sleeping.done() and fault_proxy.live == 1)
    await fault_proxy.reset()
    with pytest.raises((asyncpg.PostgresConnectionError, ConnectionError)):
        await sleeping
    assert fault_proxy.live == 0
    await (await proxied.connect()).close()


async def test_latency_delays_each_answer(proxied: Database, fault_proxy: FaultProxy) -> None:
    connection = await proxied.connect()
    fault_proxy.latency_seconds = 30
    with pytest.raises(TimeoutError):
        await connection.fetchval("SELECT 42", timeout=0.1)
    connection.terminate()


async def test_a_target_that_is_away_ends_the_client() -> None:
    async with FaultProxy("127.0.0.1", 1) as proxy:
        reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


async def test_eventually_says_what_it_waited_for() -> None:
    with pytest.raises(AssertionError, match=r"not within 0\.05 seconds: the moon"):
        await eventually(lambda: False, deadline=0.05, because="the moon")
