"""What a client may not take: all clients of a node, or a connection for ever."""

from contextlib import AsyncExitStack, suppress

import psycopg
import pytest

from tests.fixtures.waiting import eventually
from tests.node.site import Site

CLIENTS, OF_A_TENANT = 12, 4


async def test_a_flood_of_one_tenants_clients_leaves_room_for_others(site: Site) -> None:
    await site.make_roles("acme", "bravo")
    engine = site.engine(max_clients=CLIENTS, max_tenant_clients=OF_A_TENANT)
    if engine.version < (1, 24):
        pytest.skip("PgBouncer limits the clients of a tenant since 1.24.")
    await engine.start(site.configuration(site.entry("acme"), site.entry("bravo")))
    try:
        await engine.open("acme", "bravo")
        async with AsyncExitStack() as flood:
            for _ in range(OF_A_TENANT):
                await flood.enter_async_context(site.client("acme"))
            for _ in range(CLIENTS):
                with pytest.raises(psycopg.OperationalError, match="max_db_client_connections"):
                    await flood.enter_async_context(site.client("acme"))
            assert await site.role_of("bravo") == "tenant_bravo"
    finally:
        await engine.stop(patience=0.0)


@pytest.mark.parametrize("statement", ["SELECT 1", "SELECT 1 / 0"])
async def test_a_client_that_stays_idle_inside_a_transaction_loses_it(
    site: Site, statement: str
) -> None:
    """A statement may run for longer than that."""
    await site.make_roles("acme")
    engine = site.engine(max_idle_transaction=1)
    await engine.start(site.configuration(site.entry("acme", size=1)))
    try:
        await engine.open("acme")
        async with site.client("acme") as idle, site.client("acme") as next_one:
            await next_one.execute("SELECT pg_sleep(2)")
            with suppress(psycopg.errors.DivisionByZero):
                await idle.execute(f"BEGIN; {statement}")
            # It waits for that connection.
            await next_one.execute("SELECT 1")
            with pytest.raises(psycopg.OperationalError, match="idle transaction timeout"):
                await idle.execute("COMMIT")
            await eventually(lambda: site.has_backends(1))
    finally:
        await engine.stop(patience=0.0)
