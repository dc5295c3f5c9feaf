"""The server's name cannot be resolved for a while: open connections work."""

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from threading import Event

import pytest

from app.domain.errors import ConnectFailed, ServerUnavailable
from app.pools.manager import TenantPoolManager
from app.wire.resolver import Address, Resolver
from tests.fixtures.load import load_on
from tests.fixtures.network import in_a_hurry
from tests.fixtures.pools import login_to, pids, provisioned, started_server, use
from tests.fixtures.postgres import Database
from tests.fixtures.waiting import eventually
from tests.fixtures.watch import watched_manager_on


class NameServer:
    """Knows one address, until it fails or hangs."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.error: OSError | None = None
        self.answers = Event()
        self.answers.set()

    def look_up(self, host: str, port: int) -> list[Address]:
        self.answers.wait(300)
        if self.error is not None:
            raise self.error
        return [self.address]

    @contextmanager
    def hanging(self) -> Iterator[None]:
        self.answers.clear()
        try:
            yield
        finally:
            self.answers.set()

    @contextmanager
    def failing(self, error: OSError) -> Iterator[None]:
        self.error = error
        try:
            yield
        finally:
            self.error = None


@pytest.fixture
def names(database: Database) -> NameServer:
    return NameServer(Address(socket.AF_INET, database.host, database.port))


@pytest.fixture
async def named(
    database: Database, names: NameServer, scrub_roles: None
) -> AsyncIterator[TenantPoolManager]:
    """A manager of a server with a name; its tenant `working` has a connection."""
    login = replace(login_to(database), host="db.invalid", resolver=Resolver(names.look_up))
    async with watched_manager_on(database, login=login) as manager:
        for name in ("working", "new"):
            await provisioned(manager, name)
        await use(manager, "working")
        yield manager


@pytest.mark.parametrize(
    "error",
    [
        socket.gaierror(socket.EAI_AGAIN, "Temporary failure"),
        # With Python 3.13, if this process has used up its descriptors.
        OSError(errno.EBUSY, "Device or resource busy"),
    ],
)
async def test_open_connections_serve_and_opening_one_fails_with_the_reason(
    named: TenantPoolManager, names: NameServer, database: Database, error: OSError
) -> None:
    server = named.servers["local"]
    async with load_on(named, "working", clients=1) as load:
        before = await pids(database)
        with names.failing(error):
            with pytest.raises(ConnectFailed, match="host name cannot be resolved"):
                await use(named, "new")
            await eventually(lambda: "cannot be resolved" in (server.last_error or ""))
            await load.goes_on(100)
            assert server.is_available
            assert await pids(database) == before
        await eventually(lambda: server.last_error is None)
        await use(named, "new")
    assert load.failures == []
    assert server.generation == 0


async def test_a_name_server_that_hangs_holds_up_only_who_needs_a_connection(
    named: TenantPoolManager, names: NameServer
) -> None:
    async with load_on(named, "working", clients=1) as load:
        with names.hanging(), in_a_hurry(named, 1.0):
            with pytest.raises(ConnectFailed, match="was not resolved within 1 s"):
                await use(named, "new")
            await asyncio.get_running_loop().run_in_executor(None, lambda: None)
            await load.goes_on(100)
        await use(named, "new", timeout=10)
    assert load.failures == []
    assert named.servers["local"].is_available


async def test_without_any_connection_the_server_is_lost_until_its_name_is_back(
    database: Database, names: NameServer
) -> None:
    login = replace(login_to(database), host="db.invalid", resolver=Resolver(names.look_up))
    with names.failing(socket.gaierror(socket.EAI_NONAME, "Name or service not known")):
        async with started_server(database, login=login) as server:
            with pytest.raises(ServerUnavailable, match="Name or service not known"):
                await server.connect(login)
            names.error = None
            await eventually(lambda: server.is_available)
            names.error = socket.gaierror(socket.EAI_AGAIN, "Temporary failure")
            with pytest.raises(ConnectFailed):
                await server.connect(login)
            await eventually(lambda: not server.is_available)
            names.error = None
            await eventually(lambda: server.is_available)
