"""A login that must not go on sends nothing more, because that may already be a login."""

import ssl

import asyncpg
import pytest
import trustme

from app import wire
from tests.fixtures.hostile import Caller, hostile_server, login_to
from tests.fixtures.waiting import eventually


@pytest.mark.parametrize("speaks_tls", [False, True])
async def test_nothing_of_a_login_is_sent_once_it_may_not_go_on(*, speaks_tls: bool) -> None:
    """As of a process that was stopped while it connected; if the server trusts it, that is all."""
    begun = 0

    async def count(caller: Caller) -> None:
        nonlocal begun
        begun += 1
        caller.writer.close()

    authority = trustme.CA()
    theirs, ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(theirs)
    authority.configure_trust(ours)
    async with hostile_server(count, tls=theirs) as server:

        async def log_in(*, may_go_on: bool) -> None:
            tls = ours if speaks_tls else False
            login = login_to(server.port, tls=tls, may_go_on=lambda: may_go_on)
            with pytest.raises((OSError, asyncpg.PostgresConnectionError)):
                await wire.connect(login, timeout=180)

        await log_in(may_go_on=False)
        await eventually(lambda: server.left == 1)
        assert begun == 0
        await log_in(may_go_on=True)
        await eventually(lambda: server.left == 2)
        assert begun == 1
