"""How clients begin, before it is known who they are."""

import asyncio
import struct
from dataclasses import replace

import pytest

from tests.node.site import Site

_DEADLINE = 60.0
_ERROR, _AUTHENTICATION = b"E", b"R"


async def first_answer(site: Site, database: str, user: str, *options: str) -> bytes:
    """The type of the first message to a client that begins like this."""
    fields = ("user", user, "database", database, *options, "")
    startup = "".join(f"{field}\0" for field in fields).encode()
    async with asyncio.timeout(_DEADLINE):
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        try:
            writer.write(struct.pack("!II", len(startup) + 8, 196_608) + startup)
            return await reader.readexactly(1)
        finally:
            writer.close()
            await writer.wait_closed()


async def test_an_option_without_a_name_keeps_no_other_client_out(site: Site) -> None:
    await site.make_roles("acme")
    async with site.started(site.configuration(site.entry("acme"))) as engine:
        await engine.open("acme")
        # Before 1.20 it is an error, later it is ignored.
        answer = await first_answer(site, "acme", "acme.web", "options", "-c=")
        assert answer in {_ERROR, _AUTHENTICATION}
        assert await site.role_of("acme") == "tenant_acme"


async def test_nobody_proves_a_password_where_there_is_nothing_to_enter(site: Site) -> None:
    """PgBouncer before 1.26.1 can change the user in that time: CVE-2026-107350."""
    async with site.started(site.configuration(site.entry("acme"), site.entry("bravo"))):
        assert await first_answer(site, "acme", "acme.web") == _AUTHENTICATION
        for database, user in (
            ("nowhere", "acme.web"),
            ("acme", "nobody"),
            ("acme", "bravo.web"),
            ("pgbouncer", "acme.web"),
        ):
            assert await first_answer(site, database, user) == _ERROR


@pytest.mark.parametrize("is_reported", [True, False])
async def test_a_search_path_that_would_have_no_effect_is_refused(
    site: Site, *, is_reported: bool
) -> None:
    """Silently, statements would find the tables of another schema."""
    await site.make_roles("acme")
    node = site.configuration(site.entry("acme"))
    servers = {
        name: replace(server, reports_search_path=is_reported)
        for name, server in node.servers.items()
    }
    async with site.started(replace(node, servers=servers)) as engine:
        await engine.open("acme")
        follows = is_reported and engine.version >= (1, 20)
        answer = await first_answer(site, "acme", "acme.web", "search_path", "app")
        assert answer == (_AUTHENTICATION if follows else _ERROR)
