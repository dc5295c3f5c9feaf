"""A statement is cancelled where it runs, wherever its host's name leads by then."""

import socket
from dataclasses import replace

import pytest

from app.pools import driver
from app.wire.resolver import Address, Resolver
from tests.fixtures.pools import login_to
from tests.fixtures.postgres import Database
from tests.fixtures.proxy import FaultProxy
from tests.fixtures.waiting import eventually


async def test_a_statement_is_cancelled_at_the_address_it_runs_at(
    database: Database, fault_proxy: FaultProxy
) -> None:
    way = Address(socket.AF_INET, fault_proxy.host, fault_proxy.port)
    login = replace(login_to(database), host="db.invalid", resolver=Resolver(lambda *_: [way]))
    connection = await driver.connect(login, timeout=10)
    with pytest.raises(TimeoutError):
        await connection.execute("SELECT pg_sleep(60)", timeout=0.1)
    assert await connection.fetchval("SELECT 42") == 42
    assert fault_proxy.accepted == 2
    await connection.close()


async def test_a_cancellation_that_arrives_nowhere_ends_the_connection(
    database: Database, fault_proxy: FaultProxy
) -> None:
    way = Address(socket.AF_INET, fault_proxy.host, fault_proxy.port)
    login = replace(login_to(database), host="db.invalid", resolver=Resolver(lambda *_: [way]))
    connection = await driver.connect(login, timeout=10)
    fault_proxy.refuse()
    with pytest.raises(TimeoutError):
        await connection.execute("SELECT pg_sleep(60)", timeout=0.1)
    await eventually(connection.is_closed)
