"""A tenant that connects without end keeps no other tenant out."""

from __future__ import annotations

from contextlib import AsyncExitStack

import psycopg
import pytest

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
