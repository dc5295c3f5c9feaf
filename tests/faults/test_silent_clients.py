"""More silent clients than a service has descriptors: it continues to answer."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.fixtures.listening import Client, connected
from tests.fixtures.served import Serve

DESCRIPTORS = 256
HALF = b"GET /livez HTTP/1.1\r\nHost: x\r\nX-"


@pytest.mark.long
async def test_a_service_with_few_descriptors_answers_its_probe_and_its_tenants(
    serve: Serve, tmp_path: Path
) -> None:
    async with (
        serve(under=("prlimit", f"--nofile={DESCRIPTORS}:{DESCRIPTORS}")) as service,
        AsyncExitStack() as stack,
    ):
        # A kept connection may be closed to make room when the next request begins.
        service.client.headers["Connection"] = "close"
        await service.tenant("acme")
        host, port = service.client.base_url.host, service.client.base_url.port or 0

        async def connect() -> Client:
            return await stack.enter_async_context(connected((host, port)))

        async def come_one_by_one() -> None:
            while True:
                client = await connect()
                client.writer.write(HALF)

        for _ in range(400):
            await connect()
        crowd = asyncio.create_task(come_one_by_one())
        for _ in range(5):
            async with connected((host, port)) as stranger:
                stranger.ask("GET", "/livez")
                assert (await stranger.answer())[0] == 200
            assert await service.query("acme", "select 1") == 200
        crowd.cancel()
        await asyncio.wait({crowd})
        log = (tmp_path / "service.log").read_text()
        assert "out of system resource" not in log
        assert "Traceback" not in log
