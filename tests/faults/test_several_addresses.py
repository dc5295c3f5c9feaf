"""The server's name has several addresses, and the first of them does not work."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace

import pytest

from app import wire
from app.domain.errors import ConnectFailed, ServerUnavailable, TenantLoginFailed
from app.pools import driver
from app.wire.resolver import Address, Resolver
from tests.fixtures.hostile import OK, Caller, Script, hostile_server
from tests.fixtures.pools import login_to, manager_on, provisioned, use
from tests.fixtures.postgres import Database

Useless = Callable[[], AbstractAsyncContextManager[int]]
"""Begins what is of no use; its port."""


def saying(script: Script) -> Useless:
    @asynccontextmanager
    async def server() -> AsyncIterator[int]:
        async with hostile_server(script) as server:
            yield server.port

    return server


async def nothing(_: Caller) -> None:
    await asyncio.sleep(0)


async def starting(caller: Caller) -> None:
    await caller.say(b"E", b"SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0")


async def not_replicated_yet(caller: Caller) -> None:
    await caller.say(b"E", b"SFATAL\0VFATAL\0C28P01\0Mpassword authentication failed\0\0")


async def standby(caller: Caller) -> None:
    await caller.ask(OK)
    for name, value in (
        (b"server_version", b"18.0"),
        (b"client_encoding", b"UTF8"),
        (b"in_hot_standby", b"on"),
    ):
        await caller.say(b"S", name + b"\0" + value + b"\0")
    await caller.say(b"K", bytes(8))
    await caller.say(b"Z", b"I")


@asynccontextmanager
async def closed_port() -> AsyncIterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        yield probe.getsockname()[1]


@asynccontextmanager
async def full_listener() -> AsyncIterator[int]:
    """A listener with a full queue answers no further SYN, like a machine that is off."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        callers = [socket.socket() for _ in range(3)]
        for caller in callers:
            caller.settimeout(0)
            caller.connect_ex(listener.getsockname())
        try:
            yield listener.getsockname()[1]
        finally:
            for caller in callers:
                caller.close()


USELESS: dict[str, Useless] = {
    "does not answer": full_listener,
    "refuses": closed_port,
    "takes connections and is silent": saying(nothing),
    "starts": saying(starting),
    "is a standby": saying(standby),
    "does not know the role yet": saying(not_replicated_yet),
}


class Table:
    """A name with addresses on this machine that differ in their ports."""

    def __init__(self, *ports: int) -> None:
        self.ports = ports
        self.resolver = Resolver(self.look_up)

    def look_up(self, host: str, port: int) -> list[Address]:
        return [Address(socket.AF_INET, "127.0.0.1", port) for port in self.ports]

    def login(self, database: Database) -> wire.Login:
        return replace(login_to(database), host="db.invalid", port=5432, resolver=self.resolver)


@pytest.mark.parametrize("useless", USELESS.values(), ids=USELESS)
async def test_the_next_one_is_taken_and_remembered(useless: Useless, database: Database) -> None:
    async with useless() as port:
        table = Table(port, database.port)
        login = table.login(database)
        async with asyncio.timeout(30):
            connection = await driver.connect(login, timeout=60)
        assert await connection.fetchval("SELECT 42") == 42
        await connection.close()
        first, second = await table.resolver.addresses(login.host, login.port)
        assert (first.port, second.port) == (database.port, port)


async def test_a_name_that_leads_to_a_useless_server_first_is_no_trouble(
    database: Database, scrub_roles: None
) -> None:
    async with full_listener() as silent, USELESS["is a standby"]() as standby:
        table = Table(silent, standby, database.port)
        async with manager_on(database, login=table.login(database)) as manager:
            await provisioned(manager, "a")
            await use(manager, "a")
            assert manager.servers["local"].last_error is None


@pytest.mark.parametrize(
    ("names", "error", "reason"),
    [
        (["is a standby"], ServerUnavailable, "is a standby"),
        (["is a standby", "is a standby"], ServerUnavailable, "is a standby"),
        (["is a standby", "does not answer"], ServerUnavailable, "No connection"),
        (
            ["is a standby", "takes connections and is silent"],
            ServerUnavailable,
            "did not answer the login",
        ),
        (["does not know the role yet", "does not answer"], TenantLoginFailed, "password"),
    ],
)
async def test_if_none_is_of_use_the_one_that_may_be_the_primary_counts(
    names: list[str], error: type[Exception], reason: str, database: Database
) -> None:
    async with USELESS[names[0]]() as one, USELESS[names[-1]]() as other:
        login = Table(one, other).login(database)
        with pytest.raises(error, match=reason):
            await driver.connect(login, timeout=1)


async def test_a_login_that_has_been_answered_is_not_raced(database: Database) -> None:
    others: list[Caller] = []

    async def slow(caller: Caller) -> None:
        await caller.nonce()

    async def second(caller: Caller) -> None:
        others.append(caller)

    async with hostile_server(slow) as one, hostile_server(second) as other:
        login = Table(one.port, other.port).login(database)
        with pytest.raises(ConnectFailed, match="did not finish the login"):
            await driver.connect(login, timeout=1)
    assert others == []
