"""A hostile server in place of ours gets no password, and little memory and time of ours.

Twice each: as a tenant's server, and as the catalog.
"""

import asyncio
import hashlib
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

import pytest

from app import wire
from app.catalog.database import CatalogAddress, Database
from app.domain.errors import CatalogUnavailable, ServerUnavailable, TenantLoginFailed
from app.pools import driver
from app.wire.handshake import MAX_BYTES
from tests.fixtures.hostile import (
    CLEARTEXT,
    MD5,
    OK,
    PASSWORD,
    SASL_CONTINUE,
    Caller,
    HostileServer,
    Script,
    hostile_server,
    login_to,
)
from tests.fixtures.waiting import eventually

# Socket buffers on both sides of a connection within one machine hold a few megabytes.
MOST_TAKEN = 16 * 1024 * 1024

TOO_MUCH = "too much|too many|impossible length"
ITERATIONS = "SCRAM iterations"
NOT_OFFERED = "not offered"
NO_PROTOCOL = "does not speak"


def challenge(nonce: bytes, iterations: object) -> bytes:
    return b"r=%s0123,s=c2FsdA==,i=%s" % (nonce, str(iterations).encode())


def hashing(iterations: object) -> Script:
    async def script(caller: Caller) -> None:
        await caller.ask(SASL_CONTINUE, challenge(await caller.nonce(), iterations))

    return script


async def hashing_split_in_bytes(caller: Caller) -> None:
    body = challenge(await caller.nonce(), 20_000_000)
    for byte in b"R" + struct.pack("!ii", len(body) + 8, SASL_CONTINUE) + body:
        await caller.send(bytes([byte]))
        await asyncio.sleep(0)


async def hashing_again_and_again(caller: Caller) -> None:
    body = challenge(await caller.nonce(), 1)
    for _ in range(100):
        await caller.ask(SASL_CONTINUE, body)


async def announcing_two_gigabytes(caller: Caller) -> None:
    await caller.send(b"N" + struct.pack("!i", 2**31 - 1))
    await flooding(caller)


async def announcing_less_than_nothing(caller: Caller) -> None:
    await caller.send(b"N" + struct.pack("!i", -1))


async def flooding(caller: Caller) -> None:
    while True:
        await caller.send(b"\0" * 65_536)


async def noticing_for_ever(caller: Caller) -> None:
    while True:
        await caller.say(b"N", b"SNOTICE\0Mhello\0\0")


async def noticing_tinily_for_ever(caller: Caller) -> None:
    while True:
        await caller.send((b"N" + struct.pack("!i", 5) + b"\0") * 5_000)


async def garbage(caller: Caller) -> None:
    await caller.send(bytes(range(32, 256)) * 10)


async def http(caller: Caller) -> None:
    await caller.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")


async def hanging_up(caller: Caller) -> None:
    caller.writer.transport.abort()


async def hanging_up_in_a_message(caller: Caller) -> None:
    await caller.send(b"R\0\0\0")
    caller.writer.close()


async def asking_in_clear(caller: Caller) -> None:
    await caller.ask(CLEARTEXT)


async def asking_for_md5(caller: Caller) -> None:
    await caller.ask(MD5, b"salt")


async def asking_for_kerberos(caller: Caller) -> None:
    await caller.ask(7)


async def asking_half_a_question(caller: Caller) -> None:
    await caller.say(b"R", b"\0")


async def welcoming_without_proof(caller: Caller) -> None:
    await caller.ask(SASL_CONTINUE, challenge(await caller.nonce(), 4096))
    await caller.hear()
    await caller.ask(OK)
    await caller.say(b"Z", b"I")


async def ready_without_a_login(caller: Caller) -> None:
    await caller.say(b"Z", b"I")


async def unending_settings(caller: Caller) -> None:
    await caller.ask(OK)
    await caller.say(b"S", b"server_version")
    await caller.say(b"Z", b"I")


async def garbled_settings(caller: Caller) -> None:
    await caller.ask(OK)
    await caller.say(b"S", b"client_encoding\0no such encoding\0")
    await caller.say(b"S", b"\xff\xfe\0\xff\0")
    await caller.say(b"Z", b"I")


REFUSED = {
    "20 million iterations": (hashing(20_000_000), ITERATIONS),
    "two thousand million iterations": (hashing(2_147_483_647), ITERATIONS),
    "more iterations than a number holds": (hashing("9" * 4_000), ITERATIONS),
    "no iterations": (hashing(0), ITERATIONS),
    "iterations in words": (hashing("many"), ITERATIONS),
    "20 million iterations, byte by byte": (hashing_split_in_bytes, ITERATIONS),
    "hashing again and again": (hashing_again_and_again, NOT_OFFERED),
    "a header of 2 GiB, and all that": (announcing_two_gigabytes, TOO_MUCH),
    "a negative header": (announcing_less_than_nothing, TOO_MUCH),
    "zeros for ever": (flooding, TOO_MUCH),
    "notices for ever": (noticing_for_ever, TOO_MUCH),
    "tiny notices for ever": (noticing_tinily_for_ever, TOO_MUCH),
    "garbage": (garbage, TOO_MUCH),
    "another protocol": (http, TOO_MUCH),
    "the password in clear": (asking_in_clear, "password in clear"),
    "the password as MD5": (asking_for_md5, "password as MD5"),
    "kerberos": (asking_for_kerberos, NOT_OFFERED),
    "half a question": (asking_half_a_question, NO_PROTOCOL),
    "a welcome without a proof": (welcoming_without_proof, NOT_OFFERED),
    "readiness without a login": (ready_without_a_login, NO_PROTOCOL),
    "settings without an end": (unending_settings, NO_PROTOCOL),
    "garbled settings": (garbled_settings, "cannot be read"),
    "the end": (hanging_up, "cannot be reached"),
    "the end within a message": (hanging_up_in_a_message, "cannot be reached"),
}


async def silence(caller: Caller) -> None:
    pass


async def a_byte_now_and_then(caller: Caller) -> None:
    await caller.send(b"N" + struct.pack("!i", 30_000))
    for _ in count():
        await caller.send(b"x")
        await asyncio.sleep(0.01)


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of hashed iterations, for each time."""
    done: list[int] = []
    hash_ = hashlib.pbkdf2_hmac

    def record(name: str, password: bytes, salt: bytes, iterations: int) -> bytes:
        done.append(iterations)
        return hash_(name, password, salt, iterations)

    monkeypatch.setattr(hashlib, "pbkdf2_hmac", record)
    return done


async def as_a_tenants_server(port: int, timeout: float) -> None:
    await driver.connect(login_to(port, primary=False), timeout=timeout)


async def as_the_catalog(port: int, timeout: float) -> None:
    address = CatalogAddress(host="127.0.0.1", port=port, user="u", password=PASSWORD, database="d")
    catalog = Database(address, deadline=timeout)
    try:
        async with catalog.transaction():
            pass
    finally:
        await catalog.close()


DOORS = pytest.mark.parametrize("connect", [as_a_tenants_server, as_the_catalog])


@asynccontextmanager
async def hostile(script: Script) -> AsyncIterator[HostileServer]:
    """A hostile server; at the end nobody may be connected to it."""
    async with hostile_server(script) as server:
        yield server
        await eventually(lambda: server.left, because=repr(server))


@DOORS
@pytest.mark.parametrize("what", REFUSED)
async def test_a_server_that_misbehaves_is_refused_and_gets_nothing(
    connect: object, what: str, hashed: list[int]
) -> None:
    script, said = REFUSED[what]
    async with hostile_server(script) as server:
        with pytest.raises((ServerUnavailable, CatalogUnavailable), match=said) as raised:
            await connect(server.port, 20)  # type: ignore[operator]
        await eventually(lambda: server.left or what.startswith("the end"), because=repr(server))
        assert all(iterations <= 4096 for iterations in hashed)
        assert len(hashed) <= 1
        assert PASSWORD.encode() not in server.heard
        assert b"md5" not in server.heard
        assert PASSWORD not in repr(raised.value.__cause__)


@DOORS
@pytest.mark.parametrize("script", [silence, a_byte_now_and_then])
async def test_a_server_that_takes_its_time_is_left_at_the_deadline(
    connect: object, script: Script
) -> None:
    async with hostile(script) as server:
        with pytest.raises((ServerUnavailable, CatalogUnavailable)):
            await connect(server.port, 0.2)  # type: ignore[operator]
        assert server.heard == b""


async def test_a_server_cannot_put_words_into_our_mouth() -> None:
    async def script(caller: Caller) -> None:
        await caller.say(b"E", b"SFATAL\0C28P01\0Mhunter2 <script>\0\0")

    async with hostile(script) as server:
        with pytest.raises(TenantLoginFailed, match="the password is wrong") as raised:
            await as_a_tenants_server(server.port, 20)
        assert "hunter2" not in str(raised.value)


async def test_what_it_sends_before_it_is_refused_is_bounded() -> None:
    """The rest stays in the sockets' buffers, or with the server."""
    sent = 0

    async def script(caller: Caller) -> None:
        nonlocal sent
        while True:
            await caller.say(b"N", b"x" * 16_384)
            sent += 16_384

    async with hostile(script) as server:
        with pytest.raises(ServerUnavailable):
            await as_a_tenants_server(server.port, 20)
    assert MAX_BYTES <= sent <= MOST_TAKEN


async def test_a_server_that_declines_tls_is_not_spoken_to_without_it() -> None:
    context = wire.connect.__globals__["ssl"].create_default_context()
    async with hostile(silence) as server:
        with pytest.raises(wire.ServerRejected, match="does not offer TLS"):
            await wire.connect(login_to(server.port, tls=context), timeout=20)
        assert server.heard == b""
