"""This process cannot open another descriptor: open ones work, and Postgres is not blamed."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from app.domain.errors import ConnectFailed
from tests.fixtures.load import load_on
from tests.fixtures.pools import login_to, provisioned, use
from tests.fixtures.postgres import Database
from tests.fixtures.waiting import eventually
from tests.fixtures.watch import watched_manager_on


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Take all descriptors that this process may have, for a block."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.open(os.devnull, os.O_RDONLY)]
    # Few enough to be taken soon; open ones stay open.
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, taken[0] + 64), hard))
    try:
        while True:
            try:
                taken.append(os.dup(taken[0]))
            except OSError:
                break
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_open_connections_serve_and_opening_one_fails_with_the_reason(
    host: str, database: Database, scrub_roles: None
) -> None:
    login = replace(login_to(database), host=host)
    async with watched_manager_on(database, login=login) as manager:
        for name in ("working", "new"):
            await provisioned(manager, name)
        server = manager.servers["local"]
        async with load_on(manager, "working", clients=1) as load:
            await load.goes_on()
            [pool] = manager.pools()
            connections = set(pool.connections.idle) | pool.connections.leased
            with no_descriptor_left():
                with pytest.raises(ConnectFailed) as raised:
                    await use(manager, "new")
                await eventually(lambda: server.last_error)
                await load.goes_on(100)
            assert server.is_available
            assert set(pool.connections.idle) | pool.connections.leased == connections
            await eventually(lambda: server.last_error is None)
            await use(manager, "new")
        assert load.failures == []
        if host == "127.0.0.1":
            assert "Too many open files" in raised.value.detail
