"""Around the TLS handshake: servers that send everything at once, and cancelled logins."""

import asyncio
import gc
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import asyncpg
import pytest
import trustme
import uvloop

from app import wire
from tests.fixtures.hostile import CLEARTEXT, PASSWORD, login_to

IN_CLEAR = b"R" + struct.pack("!ii", 8, CLEARTEXT)
_WRONG = b"SFATAL\0C28P01\0Mwrong password\0\0"
WRONG_PASSWORD = b"E" + struct.pack("!i", len(_WRONG) + 4) + _WRONG


@dataclass(slots=True)
class Eager:
    """A server, and what it received inside TLS."""

    port: int = 0
    heard: bytearray = field(default_factory=bytearray)


@asynccontextmanager
async def eager(before: bytes, inside: bytes) -> AsyncIterator[Eager]:
    """A server that sends *before* with its yes to TLS, and *inside* with the handshake's end."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # There, the server's message is the last of the handshake.
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    server = Eager()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_side=True)
        try:
            await reader.readexactly(8)
            writer.write(b"S" + before)
            while True:
                try:
                    tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    writer.write(outgoing.read())
                    incoming.write(await reader.readexactly(1) + await reader.read(65_536))
            tls.write(inside)
            writer.write(outgoing.read())
            while came := await reader.read(65_536):
                incoming.write(came)
                try:
                    while said := tls.read(65_536):
                        server.heard += said
                except ssl.SSLWantReadError:
                    pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the caller has left, or the test
        finally:
            writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listener:
        server.port = listener.sockets[0].getsockname()[1]
        yield server


async def log_in(server: Eager) -> None:
    unverified = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unverified.check_hostname = False
    unverified.verify_mode = ssl.CERT_NONE
    await wire.connect(login_to(server.port, tls=unverified), timeout=20)


async def refusal(server: Eager) -> str:
    with pytest.raises(wire.ServerRejected) as raised:
        await log_in(server)
    return str(raised.value)


async def test_what_comes_with_the_end_of_the_handshake_passes_the_guard() -> None:
    async with eager(b"", IN_CLEAR) as server:
        assert "asks for the password in clear" in await refusal(server)
        assert PASSWORD.encode() not in server.heard


async def test_clear_text_sent_with_the_consent_to_tls_ends_the_connection() -> None:
    async with eager(IN_CLEAR, IN_CLEAR) as server:
        assert "does not offer TLS" in await refusal(server)
        assert server.heard == b""


@pytest.mark.asyncio_loop
async def test_an_abandoned_login_leaves_no_failure_that_nobody_retrieves() -> None:
    failures: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: failures.append(context["message"]))
    async with eager(b"", IN_CLEAR) as server:
        # Before each of its steps: the name, the connection, the request for TLS, the handshake.
        for moment in range(25):
            login = asyncio.create_task(log_in(server))
            for _ in range(moment):
                await asyncio.sleep(0)
            login.cancel()
            await asyncio.wait({login})
    for _ in range(20):
        await asyncio.sleep(0)
    gc.collect()
    assert failures == []


async def test_a_failed_login_is_over_before_its_loop_closes() -> None:
    def fail_in_a_loop_of_its_own() -> None:
        with (
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
            pytest.raises(asyncpg.InvalidPasswordError),
        ):
            runner.run(log_in(server))

    # This server never answers the end of TLS.
    async with eager(b"", WRONG_PASSWORD) as server:
        await asyncio.to_thread(fail_in_a_loop_of_its_own)
