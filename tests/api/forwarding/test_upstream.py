"""Why the active instance cannot be reached."""

import asyncio
import socket
import ssl

import pytest
import trustme
from structlog.testing import capture_logs

from app.api.forwarding.upstream import Upstreams


async def say_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def test_the_certificate_is_named_as_the_reason_and_logged_once() -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0, ssl=context)
    upstreams = Upstreams(keep_alive=1.0)
    async with server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with capture_logs() as logged:
            for _ in range(2):
                assert not await upstreams.answers(url)
    assert upstreams.trouble is not None
    assert upstreams.trouble.startswith("its certificate is not accepted here (")
    [event] = [each for each in logged if each["event"] == "active instance unreachable"]
    assert event["reason"] == upstreams.trouble


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://nowhere.invalid:8080", "its host name cannot be resolved"),
        ("http://127.0.0.1:{}", "Connection refused"),
    ],
)
async def test_other_reasons_are_told_too(url: str, reason: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        upstreams = Upstreams(keep_alive=1.0)
        assert not await upstreams.answers(url.format(unused.getsockname()[1]))
    assert upstreams.trouble == reason
