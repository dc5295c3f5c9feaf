"""A client's settings stay its own, although clients take turns with connections."""

import psycopg
import pytest

from app.node import rendering
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


async def test_a_server_that_cannot_check_whether_clients_have_gone_serves_them(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Windows, Postgres refuses every interval as it refuses a negative one everywhere."""
    asked = rendering._CONNECT_QUERY
    monkeypatch.setattr(rendering, "_CONNECT_QUERY", asked.replace("= 50", "= -1"))
    await site.make_roles("acme")
    async with site.started(site.configuration(site.entry("acme"))) as engine:
        await engine.open("acme")
        assert await site.role_of("acme") == "tenant_acme"


async def test_each_connection_checks_often_whether_its_client_has_gone(site: Site) -> None:
    await site.make_roles("acme")
    async with site.started(site.configuration(site.entry("acme"))) as engine:
        await engine.open("acme")
        async with site.client("acme") as client:
            row = await (await client.execute("SHOW client_connection_check_interval")).fetchone()
            assert row == ("50ms",)


async def shown(client: psycopg.AsyncConnection) -> str:
    row = await (await client.execute(PATH)).fetchone()
    return str(row[0]) if row else ""
