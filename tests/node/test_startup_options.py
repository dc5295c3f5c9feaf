"""Options with which a client begins, before anybody knows who it is."""

from __future__ import annotations

import asyncio
import struct

from tests.node.site import Site

_DEADLINE = 60.0


async def test_an_option_without_a_name_keeps_no_other_client_out(site: Site) -> None:
    await site.make_roles("acme")
    async with site.started(site.configuration(site.entry("acme"))) as engine:
        await engine.open("acme")
        async with asyncio.timeout(_DEADLINE):
            reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
            try:
                startup = b"user\0acme.web\0database\0acme\0options\0-c=\0\0"
                writer.write(struct.pack("!II", len(startup) + 8, 196_608) + startup)
                # Before 1.20 it is an error, later it is ignored.
                assert await reader.readexactly(1) in {b"E", b"R"}
            finally:
                writer.close()
                await writer.wait_closed()
        assert await site.role_of("acme") == "tenant_acme"
