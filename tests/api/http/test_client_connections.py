"""HTTP clients that are silent, slow, too many, or send something that is not HTTP."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tests.fixtures.listening import Address, Client, connected, listening
from tests.fixtures.waiting import eventually

LARGE = 16 * 1024 * 1024
TCP_CLOSE = 7
HALF = b"GET / HTTP/1.1\r\nHost: x\r\nX-"


@dataclass
class Application:
    """Answers at once, /wait when the test allows it; /large is large, /stream has no end."""

    under_way: int = 0
    abandoned: int = 0
    go: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if scope["path"] == "/stream":
            response = StreamingResponse(self._for_ever(), media_type="text/event-stream")
            await response(scope, receive, send)
            return
        try:
            body = await request.body()
        except ClientDisconnect:
            return
        if scope["path"] == "/wait":
            await self._wait(receive)
        text = "x" * LARGE if scope["path"] == "/large" else ""
        content = {"path": scope["path"], "body": body.decode(), "text": text}
        await JSONResponse(content)(scope, receive, send)

    async def _for_ever(self) -> AsyncIterator[bytes]:
        self.under_way += 1
        try:
            while True:
                yield b"data: %s\n\n" % (b"x" * 100_000)
                await asyncio.sleep(0.01)
        finally:
            self.under_way -= 1

    async def _wait(self, receive: Receive) -> None:
        self.under_way += 1
        going = asyncio.create_task(self.go.wait())
        leaving = asyncio.ensure_future(receive())
        await asyncio.wait({going, leaving}, return_when=asyncio.FIRST_COMPLETED)
        self.abandoned += leaving.done() and not going.done()
        going.cancel()
        leaving.cancel()
        self.under_way -= 1


@pytest.fixture
def app() -> Application:
    """The application that is served."""
    return Application()


@asynccontextmanager
async def many(address: Address, count: int, first: bytes = b"") -> AsyncIterator[list[Client]]:
    """That many clients that have sent *first*."""
    async with AsyncExitStack() as stack:
        clients = []
        for _ in range(count):
            clients.append(await stack.enter_async_context(connected(address)))
            clients[-1].writer.write(first)
        yield clients


async def is_closed(client: Client) -> None:
    """Wait until the service has closed the connection."""
    async with asyncio.timeout(180):
        try:
            while await client.reader.read(65_536):
                pass
        except ConnectionResetError:
            pass


async def answers(client: Client, path: str = "/livez") -> None:
    client.ask("GET", path)
    async with asyncio.timeout(180):
        status, body = await client.answer()
    assert (status, body["path"]) == (200, path)


async def test_the_silent_are_closed_and_half_a_header_is_answered(app: Application) -> None:
    async with (
        listening(app, header_timeout=0.2) as address,
        connected(address) as silent,
        connected(address) as half,
    ):
        half.writer.write(HALF)
        status, body = await half.answer()
        assert (status, body["code"]) == (408, "request-timeout")
        await is_closed(half)
        assert await silent.reader.read() == b""


async def test_no_drop_of_a_header_prolongs_its_time(app: Application) -> None:
    async with listening(app, header_timeout=0.5) as address, connected(address) as client:
        client.writer.write(HALF)
        dripping = asyncio.create_task(drip(client))
        await is_closed(client)
        await dripping


async def drip(client: Client) -> None:
    while not client.writer.is_closing():
        client.writer.write(b"x")
        await asyncio.sleep(0.02)


async def test_an_unused_connection_is_closed_and_a_used_one_is_not(app: Application) -> None:
    async with (
        listening(app, keep_alive=1, header_timeout=30) as address,
        connected(address) as client,
        connected(address) as waiting,
    ):
        waiting.ask("GET", "/wait")
        await answers(client, "/a")
        await answers(client, "/b")
        await is_closed(client)
        app.go.set()
        assert (await waiting.answer())[0] == 200


async def test_headers_of_a_later_request_have_a_time_too(app: Application) -> None:
    async with (
        listening(app, header_timeout=0.3, keep_alive=60) as address,
        connected(address) as client,
    ):
        await answers(client)
        client.writer.write(HALF)
        assert (await client.answer())[0] == 408
        await is_closed(client)


@pytest.mark.parametrize(
    "first", [b"", HALF, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1"]
)
async def test_who_is_longest_without_a_request_makes_room(app: Application, first: bytes) -> None:
    async with (
        listening(app, most=20, header_timeout=60) as address,
        connected(address) as stream,
        connected(address) as working,
    ):
        stream.ask("GET", "/stream")
        working.ask("GET", "/wait")
        await eventually(lambda: app.under_way == 2)
        async with many(address, 60, first) as unfinished:
            async with connected(address) as newcomer:
                await answers(newcomer)
            await is_closed(unfinished[0])
            unfinished[-1].writer.write(b"23456789" if b"POST" in first else b"")
            if b"POST" in first:
                assert (await unfinished[-1].answer())[1]["body"] == "123456789"
        assert app.under_way == 2
        app.go.set()
        assert (await working.answer())[0] == 200


async def test_when_all_are_at_work_others_are_refused_and_probes_are_answered(
    app: Application,
) -> None:
    async with listening(app, most=10) as address, many(address, 11) as working:
        for client in working:
            client.ask("GET", "/wait")
        await eventually(lambda: app.under_way >= 10)
        async with many(address, 30):
            async with connected(address) as client:
                client.ask("GET", "/v1/tenants")
                status, body = await client.answer()
                assert (status, body["code"]) == (503, "overloaded")
                await is_closed(client)
            async with connected(address) as probe:
                await answers(probe)


async def test_an_answer_that_is_not_read_is_given_up(app: Application) -> None:
    for path in ("/large", "/stream"):
        async with (
            listening(app, send_timeout=0.5, header_timeout=0.2) as address,
            connected(address) as client,
        ):
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            client.ask("GET", path)
            await eventually(lambda: _is_reset(client))


def _is_reset(client: Client) -> bool:
    """Whether the other end has dropped the connection with its unread data."""
    connection = client.writer.get_extra_info("socket")
    return bool(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == TCP_CLOSE)


async def test_answers_that_nobody_reads_take_bounded_memory(app: Application) -> None:
    async with (
        listening(app, send_timeout=600, max_unsent=2 * LARGE) as address,
        many(address, 4) as clients,
    ):
        for client in clients[:3]:
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            client.ask("GET", "/large")
        await eventually(lambda: any(map(_is_reset, clients)))
        await answers(clients[3])
        assert sum(map(_is_reset, clients)) == 1


async def test_an_answer_that_is_read_slowly_arrives_whole(app: Application) -> None:
    async with (
        listening(app, send_timeout=1, header_timeout=0.2) as address,
        connected(address) as client,
    ):
        client.ask("GET", "/large")
        await client.reader.readuntil(b"\r\n\r\n")
        left = LARGE
        while left > 0:
            left -= len(await client.reader.read(1024 * 1024))
            await asyncio.sleep(0.05)


async def test_requests_sent_ahead_are_answered_in_order(app: Application) -> None:
    async with listening(app) as address, connected(address) as client:
        client.ask("POST", "/wait", {"n": 0})
        await eventually(lambda: app.under_way == 1)
        whole = b"".join(
            b"POST /%d HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody" % n for n in range(50)
        )
        for each in range(0, len(whole), 33):
            client.writer.write(whole[each : each + 33])
            await asyncio.sleep(0)
        app.go.set()
        assert (await client.answer())[1]["path"] == "/wait"
        for n in range(50):
            assert (await client.answer())[1] == {"path": f"/{n}", "body": "body", "text": ""}


@pytest.mark.parametrize("ahead", [b"\r\n", HALF, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 9])
async def test_who_sends_ahead_and_leaves_is_missed(app: Application, ahead: bytes) -> None:
    async with listening(app) as address, connected(address) as client:
        client.ask("GET", "/wait")
        await eventually(lambda: app.under_way == 1)
        for _ in range(3):
            client.writer.write(ahead)
            await asyncio.sleep(0.01)
        client.writer.close()
        await eventually(lambda: app.abandoned == 1)


START = b"POST / HTTP/1.1\r\nHost: x\r\n"
CHUNKED = START + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (START + b"Content-Length: 1, 2\r\n\r\n12", 400),
        (START + b"Content-Length: +1\r\n\r\n1", 400),
        (START + b"Content-Length: -1\r\n\r\n1", 400),
        (START + b"Content-Length: 0x1\r\n\r\n1", 400),
        (START + b"Content-Length : 1\r\n\r\n1", 400),
        (START + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        (START + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
        (CHUNKED + b"xyz\r\n1\r\n", 400),
        (CHUNKED + b"-1\r\n1\r\n", 400),
        (CHUNKED + b"1\r\n12\r\n", 400),
        (CHUNKED + b"f" * 30 + b"\r\n", 400),
        (START + b"X: a\0b\r\n\r\n", 400),
        (START + b"X: a\rb\r\n\r\n", 400),
        (START + b"no colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n X: 1\r\n\r\n", 400),
        (START + b"X: 1\r\n 2\r\n\r\n", 400),
        (START + b"Upgrade: x\r\n 2\r\n\r\n", 400),
        (START + b"Host: y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: x\n\n", 400),
        (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (START + b"Content-Length: 99999999999999999999\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET http://other/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET http://x:80?a HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET http://user:password@x/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20, 400),
        (START + b"X: " + b"x" * 20_000, 431),
    ],
)
async def test_what_is_no_http_is_refused_with_a_problem_and_the_end(
    app: Application, request_: bytes, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with listening(app) as address, connected(address) as client:
        client.writer.write(request_)
        answered, body = await client.answer()
        code = {431: "headers-too-large", 501: "unknown-transfer-encoding"}.get(
            status, "malformed-request"
        )
        assert (answered, body["code"], body["retryable"]) == (status, code, False)
        await is_closed(client)
    assert not [each for each in caplog.records if each.levelname == "ERROR"]


@pytest.mark.parametrize(
    "request_", [b"HELO mail.example\r\n\r\n", b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n"]
)
async def test_a_method_that_is_not_known_is_refused(app: Application, request_: bytes) -> None:
    async with listening(app) as address, connected(address) as client:
        client.writer.write(request_)
        status, told = await client.answer()
        assert (status, told["code"], told["title"]) == (501, "unknown-method", "Not implemented")
        await is_closed(client)


async def test_rubbish_after_an_early_answer_ends_the_connection_quietly(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        await JSONResponse({}, 401)(scope, receive, send)

    async with listening(refuse) as address, connected(address) as client:
        client.writer.write(CHUNKED)
        assert (await client.answer())[0] == 401
        client.writer.write(b"xyz\r\n")
        assert await client.reader.read() == b""
    assert not [each for each in caplog.records if each.levelname == "ERROR"]


async def test_tiny_chunks_that_come_at_once_are_parsed_in_many_turns(app: Application) -> None:
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    flood = CHUNKED + b"1\r\nx\r\n" * 40_000 + b"0\r\n\r\n"
    async with listening(app) as address, connected(address) as client:
        client.writer.write(flood)
        turning = asyncio.create_task(turn())
        assert (await client.answer())[0] == 200
        turning.cancel()
    assert turns > len(flood) // 8192


@pytest.mark.parametrize(
    ("flood", "status"),
    [
        (b"GET /" + b"x" * 50_000, 414),
        (START + b"a:b\r\n" * 50_000 + b"\r\n", 431),
        (START + b"a:b\r\n" + b" x\r\n" * 60_000 + b"\r\n", 431),
        (CHUNKED + b"1;" + b"x" * 50_000, 431),
        (CHUNKED + b"1;x\r\nx\r\n0\r\n" + b"a:b\r\n" * 50_000, 431),
    ],
    ids=["path", "headers", "folded headers", "chunk extension", "trailers"],
)
async def test_no_head_and_no_framing_is_parsed_without_end(
    flood: bytes, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = 0
    on_header = HttpToolsProtocol.on_header

    def count(protocol: HttpToolsProtocol, name: bytes, value: bytes) -> None:
        nonlocal headers
        headers += 1
        on_header(protocol, name, value)

    monkeypatch.setattr(HttpToolsProtocol, "on_header", count)

    async def read(scope: Scope, receive: Receive, send: Send) -> None:
        await Request(scope, receive).body()

    async with listening(read) as address, connected(address) as client:
        client.writer.write(flood)
        assert (await client.answer())[0] == status
        await is_closed(client)
    assert headers <= 2


async def test_trailers_change_no_header(app: Application) -> None:
    seen: list[list[tuple[bytes, bytes]]] = []

    async def show(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "path": "/"}, receive, send)
        seen.append(scope["headers"])

    async with listening(show) as address, connected(address) as client:
        for _ in range(2):
            client.writer.write(CHUNKED + b"4\r\nbody\r\n0\r\nHost: evil\r\nX: 1\r\n\r\n")
            assert (await client.answer())[1]["body"] == "body"
    expected = [(b"host", b"x"), (b"transfer-encoding", b"chunked")]
    assert seen == [expected, expected]


async def test_a_request_that_offers_another_protocol_is_taken_as_http_with_its_body(
    app: Application,
) -> None:
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    async with listening(app) as address, connected(address) as client:
        client.writer.write(START + offer + b"Content-Length: 4\r\n\r\nbody")
        assert (await client.answer())[1]["body"] == "body"
        client.writer.write(START + b"UPGRADE: websocket\r\n" + offer + b"\r\n")
        assert (await client.answer())[1]["body"] == ""


async def test_a_target_may_name_the_host_of_the_header(app: Application) -> None:
    async with listening(app) as address, connected(address) as client:
        client.writer.write(b"GET HTTP://X:80/a?b=http://y HTTP/1.1\r\nHost: x:80\r\n\r\n")
        status, body = await client.answer()
        assert (status, body["path"]) == (200, "/a")


@pytest.mark.parametrize("size", [1, 7, 4095])
async def test_requests_that_come_in_pieces_are_whole_again(app: Application, size: int) -> None:
    body = b"{}\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n" * 200
    chunks = b"".join(b"%x;x=y\r\n%s\r\n" % (len(each), each) for each in (body, b"\n", body))
    requests = (
        b"\r\n\r\n"
        + START
        + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        + CHUNKED
        + chunks
        + b"0\r\nX: y\r\n\r\n"
        + START
        + b"\r\n"
    )
    async with listening(app) as address, connected(address) as client:
        for at in range(0, len(requests), size):
            client.writer.write(requests[at : at + size])
            if at % 64 == 0:
                await asyncio.sleep(0)
        for expected in (body, body + b"\n" + body, b""):
            assert (await client.answer())[1]["body"].encode() == expected


async def test_a_client_that_waits_before_it_sends_a_body_is_asked_for_it(
    app: Application,
) -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-Continue\r\n\r\n"
    async with (
        listening(app) as address,
        connected(address) as client,
        asyncio.timeout(180),
    ):
        client.writer.write(head)
        assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.writer.write(b"hi")
        status, body = await client.answer()
        assert (status, body["body"]) == (200, "hi")


@pytest.mark.parametrize(
    "forged", [(b"x-name", b"a\r\nx-forged: 1"), (b"x-name: a\r\nx-forged", b"1")]
)
async def test_no_header_of_a_response_brings_another(forged: tuple[bytes, bytes]) -> None:
    async def app(_: Scope, __: Receive, send: Send) -> None:
        headers = [(b"content-length", b"0"), forged]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body"})

    async with listening(app) as address, connected(address) as client, asyncio.timeout(180):
        client.ask("GET", "/")
        head = await client.reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 500 ")
    assert b"forged" not in head


async def test_a_response_that_begins_as_its_client_disconnects_is_dropped(
    app: Application,
) -> None:
    failures: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, failure: failures.append(failure))

    async def respond_too_late(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["connection"].transport.abort()  # its loss is noted in the next turn
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await Request(scope, receive).body()
        await receive()
        app.under_way += 1

    async with listening(respond_too_late) as address, connected(address) as client:
        client.ask("GET", "/")
        await eventually(lambda: app.under_way == 1)
        await is_closed(client)
    assert failures == []
