"""Requests whose end or size two readers could understand differently."""

from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from app.api.http.request_checks import MAX_HEADER_BYTES, MAX_HEADERS, MAX_PATH_BYTES
from app.main import create_app
from app.settings import Settings
from tests.fixtures.listening import connected, listening

CHUNKED = b"Transfer-Encoding: chunked\r\n"
LENGTH = b"Content-Length: 5\r\n"
NOTHING = b"0\r\n\r\n"
# What a reader that goes by the length would take for the next request.
SMUGGLED = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    """The application; its service is not needed here."""
    return create_app(Settings.model_construct(data_dir=tmp_path))


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
@pytest.mark.parametrize("path", [b"/livez", b"/v1/tenants/acme/pool/check", b"/nowhere"])
@pytest.mark.parametrize(
    "lengths",
    [
        LENGTH + CHUNKED,
        CHUNKED + LENGTH,
        LENGTH + LENGTH + CHUNKED,
        LENGTH + LENGTH,
        LENGTH + b"Content-Length: 6\r\n",
    ],
)
async def test_two_lengths_are_refused_and_end_the_connection(
    app: FastAPI, lengths: bytes, path: bytes, version: bytes
) -> None:
    async with listening(app) as address, connected(address) as client:
        head = b"POST %s HTTP/%s\r\nHost: localhost\r\n%s\r\n" % (path, version, lengths)
        client.writer.write(head + NOTHING + SMUGGLED)
        status, body = await client.answer()
        assert (status, body["code"]) == (400, "ambiguous-length")
        assert await client.reader.read() == b""


async def test_chunks_before_their_invention_are_refused(app: FastAPI) -> None:
    async with listening(app) as address, connected(address) as client:
        client.writer.write(b"POST /livez HTTP/1.0\r\n" + CHUNKED + b"\r\n" + NOTHING)
        status, body = await client.answer()
        assert (status, body["code"]) == (400, "ambiguous-length")
        assert await client.reader.read() == b""


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/livez", {f"X-{n}": "1" for n in range(MAX_HEADERS - 3)}, 200),
        ("/livez", {f"X-{n}": "1" for n in range(MAX_HEADERS + 1)}, 431),
        ("/livez", {"X": "x" * (MAX_HEADER_BYTES - 100)}, 200),
        ("/livez", {"X": "x" * MAX_HEADER_BYTES}, 431),
        ("/livez", {f"X-{n}": "x" * 1000 for n in range(20)}, 431),
        ("/" + "x" * (MAX_PATH_BYTES + 1), {}, 414),
    ],
)
async def test_headers_and_paths_without_end_are_refused(
    app: FastAPI, path: str, headers: dict[str, str], status: int
) -> None:
    async with listening(app) as address, connected(address) as client:
        client.ask("GET", path, **headers)
        assert (await client.answer())[0] == status


@pytest.mark.parametrize(
    "head",
    [
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFF\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\n" + LENGTH + CHUNKED + b"\r\n",
    ],
)
async def test_who_is_refused_while_it_sends_reads_why_and_is_not_reset(head: bytes) -> None:
    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"2"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 408, "headers": headers})
        await send({"type": "http.response.body", "body": b"{}"})

    async with listening(refuse) as address, connected(address) as client:
        client.writer.write(head + bytes(500_000))
        assert (await client.answer())[0] in {400, 408}
        for _ in range(10):
            client.writer.write(bytes(50_000))
            await client.writer.drain()
        assert await client.reader.read() == b""
