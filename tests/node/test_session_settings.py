"""A client's settings stay its own, although clients take turns with connections."""

from __future__ import annotations

import psycopg
import pytest

from tests.node.site import Site

PATH = "SHOW search_path"


async def test_a_search_path_follows_its_client(site: Site) -> None:
    if site.engine().version < (1, 20):
        pytest.skip("PgBouncer looks after it since 1.20.")
    await site.make_roles("acme")
    async with site.started(site.configuration(site.entry("acme", size=1))) as engine:
        await engine.open("acme")
        async with site.client("acme") as one, site.client("acme") as other:
            if one.info.server_version < 18_00_00:
                pytest.skip("Postgres tells of it since version 18.")
            usual = await shown(other)
            await one.execute("""SET search_path = "a b", 'it''s', public""")
            assert await shown(other) == usual
            assert await shown(one) == """"a b", "it's", public"""
            await one.execute("RESET search_path")
            await other.execute("SET search_path = ''")
            assert await shown(one) == usual
            assert await shown(other) == '""'
            async with site.client("acme") as another:
                assert await shown(another) == usual


async def shown(client: psycopg.AsyncConnection) -> str:
    row = await (await client.execute(PATH)).fetchone()
    return str(row[0]) if row else ""
