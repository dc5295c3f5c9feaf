"""A tenant's code changes the encoding of its messages, even while a lease ends."""

from contextlib import suppress

import pytest

from app.domain.errors import LeaseLost, StatementFailed
from app.pools.manager import TenantPoolManager
from tests.fixtures.pools import provisioned
from tests.fixtures.queries import run_query

CHANGES = "perform set_config('client_encoding', 'LATIN1', true)"


@pytest.mark.parametrize("level", ["exception", "notice"])
async def test_a_message_that_is_no_utf_8_is_an_error_of_ours(
    manager: TenantPoolManager, level: str
) -> None:
    await provisioned(manager, "acme")
    body = f"$$ begin {CHANGES}; raise {level} 'ä'; return null; end $$"
    async with manager.lease("acme") as connection:
        await connection.execute(
            "create table checked (id int);"
            f"create function no() returns trigger language plpgsql as {body};"
            "create constraint trigger no after insert on checked"
            " deferrable initially deferred for each row execute function no()"
        )

    async def insert() -> None:
        async with manager.lease("acme") as connection:
            await run_query(
                connection, "insert into checked values (1)", [], max_rows=1, timeout=10
            )

    # If it cannot be read, it is unknown whether it was an error or a notice, unless the end of the
    # commit has come with it.
    with pytest.raises(LeaseLost) if level == "exception" else suppress(LeaseLost):
        await insert()
    async with manager.lease("acme") as connection:
        stored = await connection.fetchval("select count(*) from checked")
    assert stored == (level == "notice")


async def test_a_message_in_another_encoding_is_shown_as_far_as_possible(
    manager: TenantPoolManager,
) -> None:
    await provisioned(manager, "acme")
    with pytest.raises(StatementFailed, match="no \N{REPLACEMENT CHARACTER}"):
        async with manager.lease("acme") as connection:
            await run_query(
                connection,
                f"do $$ begin {CHANGES}; raise exception 'no ä'; end $$",
                [],
                max_rows=1,
                timeout=10,
            )
    async with manager.lease("acme") as connection:
        assert await connection.fetchval("select 'ä'") == "ä"
