"""A standby between a client and the active instance changes nothing that either of them sees."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import httpx
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.forwarding.forwarded_client import HEADER, ForwardedClient
from app.api.forwarding.forwarder import Forwarder
from app.api.forwarding.upstream import Upstreams
from app.domain.errors import CatalogInUse
from tests.fixtures.listening import connected, listening
from tests.fixtures.proxy import FaultProxy
from tests.fixtures.waiting import eventually

SECRET = b"a secret that all instances share"


@dataclass(slots=True)
class Election:
    """What a forwarder reads: which instance is active, and whether it is this one."""

    active_url: str | None = None
    is_serving: bool = False
    lost: Exception | None = None
    active_instance: str = "The active instance is elsewhere."
    changed: Callable[[], None] = field(default=lambda: None)
    not_served: int = 0
    """Requests that came while this instance was not active."""

    async def settle(self) -> bool:
        self.not_served += 1
        return self.is_serving

    def follow(self, url: str | None) -> None:
        """Another instance is active now."""
        self.active_url = url
        self.changed()

    def notify_change(self, callback: Callable[[], None]) -> None:
        self.changed = callback


@dataclass(slots=True)
class Standby:
    """A standby, its client, and what it serves itself once it is active."""

    election: Election
    client: httpx.AsyncClient
    forwarder: Forwarder
    served: list[Scope] = field(default_factory=list)


class Active:
    """An active instance: an application of the test, and the requests that it got."""

    def __init__(self, respond: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self.respond = respond
        self.asked: list[Scope] = []
        self.election = Election(is_serving=True)
        self.forwarder = Forwarder(
            self.election,  # type: ignore[arg-type]
            ForwardedClient(SECRET),
            keep_alive=2.0,
            longest_wait=180.0,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def respond(scope: Scope, receive: Receive, send: Send) -> None:
            self.asked.append(scope)
            await self.respond(scope, receive, send)

        await self.forwarder(respond, scope, receive, send)


@asynccontextmanager
async def standby(
    *, keep_alive: float = 2.0, longest_wait: float = 180.0
) -> AsyncIterator[Standby]:
    """A standby on a port of its own; no instance is active yet."""
    election = Election()
    client = ForwardedClient(SECRET)
    forwarder = Forwarder(
        election,  # type: ignore[arg-type]
        client,
        keep_alive=keep_alive,
        longest_wait=longest_wait,
    )
    served: list[Scope] = []

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        served.append(scope)
        await echo(scope, receive, send)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await forwarder(serve, scope, receive, send)

    async with (
        listening(app) as (host, port),
        httpx.AsyncClient(base_url=f"http://{host}:{port}", timeout=60, trust_env=False) as http,
    ):
        yield Standby(election, http, forwarder, served)
        forwarder.close()


async def is_there() -> bool:
    return True


async def body_of(receive: Receive) -> bytes:
    """The whole body of a request."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Respond with the request."""
    said = {
        "method": scope["method"],
        "path": scope["raw_path"].decode(),
        "query": scope["query_string"].decode(),
        "headers": [[name.decode(), value.decode("latin-1")] for name, value in scope["headers"]],
        "client": list(scope["client"]),
        "scheme": scope["scheme"],
        "body": (await body_of(receive)).decode("latin-1"),
    }
    body = json.dumps(said).encode()
    headers = [
        (b"content-length", b"%d" % len(body)),
        (b"x-twice", b"one"),
        (b"x-twice", b"two"),
        (b"keep-alive", b"timeout=5"),
        *((b"x-latin", value) for name, value in scope["headers"] if name == b"x-latin"),
    ]
    await send({"type": "http.response.start", "status": 207, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def pair(app: ASGIApp | None = None) -> AsyncIterator[tuple[Standby, Active]]:
    """A standby, and the active instance that it forwards to."""
    active = Active(app or echo)
    async with standby() as waiting, listening(active) as (host, port):
        waiting.election.follow(f"http://{host}:{port}")
        yield waiting, active


@asynccontextmanager
async def pair_through_a_proxy(
    app: ASGIApp, *, longest_wait: float = 180.0
) -> AsyncIterator[tuple[Standby, FaultProxy]]:
    """A standby that reaches the active instance through a proxy."""
    async with (
        standby(longest_wait=longest_wait) as waiting,
        listening(Active(app)) as (host, port),
        FaultProxy(host, port) as proxy,
    ):
        waiting.election.follow(f"http://{proxy.host}:{proxy.port}")
        yield waiting, proxy


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"])
async def test_requests_and_responses_pass_unchanged(method: str) -> None:
    async with pair() as (standby, active):
        url = "/v1/%61cme/a%2Fb?x=1&x=%20&y"
        given = [
            (b"Origin", b"https://o.example"),
            (b"Host", b"pk.example"),
            (b"X-Request-ID", b"mine"),
            (b"X-Latin", b"caf\xe9"),
        ]
        content = b"" if method in {"GET", "HEAD"} else b"\x00\xff body"
        for _ in range(2):  # the second time over the same connection
            response = await standby.client.request(method, url, headers=given, content=content)
            assert response.status_code == 207
            assert response.headers.get_list("x-twice") == ["one", "two"]
            assert response.headers.raw.count((b"x-latin", b"caf\xe9")) == 1
            assert response.headers["poolkeeper-instance"] == standby.election.active_url
            assert len(response.headers.get_list("date")) == 1
            assert "keep-alive" not in response.headers
            [scope] = active.asked
            active.asked.clear()
            assert (scope["method"], scope["raw_path"]) == (method, b"/v1/%61cme/a%2Fb")
            assert scope["query_string"] == b"x=1&x=%20&y"
            headers = dict(scope["headers"])
            assert (headers[b"host"], headers[b"origin"]) == (b"pk.example", b"https://o.example")
            assert headers[b"x-request-id"] == b"mine"
            assert b"connection" not in headers
            if method != "HEAD":
                assert response.json()["body"].encode("latin-1") == content
                assert len(response.content) == int(response.headers["content-length"])


async def test_the_active_instance_sees_the_client_and_not_the_standby() -> None:
    async with pair() as (standby, active):
        address = httpx.URL(standby.client.base_url)
        async with connected((address.host, address.port or 0)) as client:
            client.ask("GET", "/", Connection="close, X-Private", X_Private="1")
            _, said = await client.answer()
            assert tuple(said["client"]) == client.writer.get_extra_info("sockname")
            assert "x-private" not in dict(said["headers"])
            assert HEADER.decode() not in dict(said["headers"])
            [scope] = active.asked
            assert len(dict(scope["headers"])[b"x-request-id"]) == 32


@pytest.mark.parametrize("named", ["content-length", "Host, Content-Length", "transfer-encoding"])
async def test_a_body_is_never_taken_for_another_request(named: str) -> None:
    """Whatever a client calls hop-by-hop: after a head without a length comes another request."""
    smuggled = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    framings = {
        b"Content-Length: %d\r\n" % len(smuggled): smuggled,
        b"Transfer-Encoding: chunked\r\n": b"%x\r\n%s\r\n0\r\n\r\n" % (len(smuggled), smuggled),
    }
    async with pair() as (standby, active):
        address = httpx.URL(standby.client.base_url)
        for framing, body in framings.items():
            async with connected((address.host, address.port or 0)) as client:
                head = b"POST / HTTP/1.1\r\nHost: pk.example\r\nConnection: %s\r\n" % named.encode()
                client.writer.write(head + framing + b"\r\n" + body)
                _, said = await client.answer()
                assert said["body"].encode() == smuggled
                assert dict(said["headers"])["host"] == "pk.example"
        # Nothing is left on the used connection for another client.
        assert (await standby.client.get("/mine")).json()["path"] == "/mine"
        assert [scope["raw_path"] for scope in active.asked] == [b"/", b"/", b"/mine"]


async def test_a_client_of_the_older_version_is_one_there_too() -> None:
    async with pair() as (standby, active):
        address = httpx.URL(standby.client.base_url)
        async with connected((address.host, address.port or 0)) as client:
            client.writer.write(b"GET /old HTTP/1.0\r\n\r\n")
            _, said = await client.answer()
            assert said["path"] == "/old"
            assert "host" not in dict(said["headers"])
            assert await client.reader.read() == b""
        assert [scope["http_version"] for scope in active.asked] == ["1.0"]


async def test_a_body_that_is_late_is_the_active_instance_to_wait_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.api.forwarding.forwarded_body._FIRST_PART", 0.05)
    begun = asyncio.Event()

    async def refuse_or_echo(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        if scope["raw_path"] == b"/patient":
            await echo(scope, receive, send)
            return
        headers = [(b"content-length", b"2"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 408, "headers": headers})
        await send({"type": "http.response.body", "body": b"{}"})

    async with pair(refuse_or_echo) as (standby, _):
        address = httpx.URL(standby.client.base_url)
        for path, status in ((b"/hasty", 408), (b"/patient", 207)):
            begun.clear()
            async with connected((address.host, address.port or 0)) as client:
                head = b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n" % path
                client.writer.write(head)
                await eventually(begun.is_set)
                if status != 408:
                    client.writer.write(b"body")
                found, said = await client.answer()
                assert found == status
                assert said.get("body", "body") == "body"
                if status == 408:
                    async with asyncio.timeout(30):
                        assert await client.reader.read() == b""


async def test_the_kernel_ends_a_connection_to_an_instance_that_vanishes() -> None:
    async with listening(echo) as (host, port):
        upstreams = Upstreams(keep_alive=2.0)
        upstream = await upstreams.connect(f"http://{host}:{port}")
        end = upstream._transport.get_extra_info("socket")  # type: ignore[union-attr]
        assert end.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 15
        assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000
        upstreams.close()


@pytest.mark.parametrize("host", ["2001:db8::1", "a|b|1|http|x", "caf\xe9", ""])
def test_a_client_may_have_any_name(host: str) -> None:
    scope: Scope = {"scheme": "https", "method": "GET", "raw_path": b"/", "query_string": b""}
    scope.update({"client": (host, 80), "headers": []})
    header = ForwardedClient(SECRET).header(scope, b"id")
    received: Scope = {**scope, "client": ("127.0.0.1", 1), "scheme": "http", "headers": [header]}
    assert ForwardedClient(SECRET).restore(received)
    assert received["client"] == ((host, 80) if host else None)
    assert received["scheme"] == "https"


async def test_nobody_else_can_say_who_a_client_is() -> None:
    async with pair() as (standby, _):
        scope: Scope = {"scheme": "https", "method": "GET", "raw_path": b"/", "query_string": b""}
        scope.update({"client": ("6.6.6.6", 1), "headers": []})
        _, forged = ForwardedClient(b"another secret").header(scope, b"id")
        _, valid = ForwardedClient(SECRET).header(scope, b"id")
        url = standby.election.active_url
        for path, value, is_taken in (
            ("/", forged, False),
            ("/", b"nonsense", False),
            ("/", b"6.6.6.6|1|http|id|", False),
            ("/elsewhere", valid, False),
            ("/", valid, True),
        ):
            async with httpx.AsyncClient(trust_env=False) as direct:
                said = (await direct.get(f"{url}{path}", headers=[(HEADER, value)])).json()
            assert HEADER.decode() not in dict(said["headers"])
            assert ((said["client"], said["scheme"]) == (["6.6.6.6", 1], "https")) is is_taken


@pytest.mark.parametrize("name", [b"authorization", b"neon-connection-string"])
async def test_a_secret_belongs_to_the_signature(name: bytes) -> None:
    scope: Scope = {"scheme": "http", "method": "GET", "raw_path": b"/", "query_string": b""}
    scope.update({"client": ("6.6.6.6", 1), "headers": [(name, b"Bearer a")]})
    client = ForwardedClient(SECRET)
    header = client.header(scope, b"id")
    other_secret = [(name, b"Bearer b"), header]
    stolen: Scope = {**scope, "client": ("1.1.1.1", 2), "headers": other_secret}
    assert client.restore(stolen)
    assert stolen["client"] == ("1.1.1.1", 2)
    scope["headers"].append(header)
    assert client.restore(scope)
    assert scope["client"] == ("6.6.6.6", 1)


async def test_a_request_is_never_forwarded_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two standbys that take each other for the active instance, and one that takes itself."""
    monkeypatch.setattr("app.api.forwarding.forwarder._HOLD", 0.2)
    async with standby() as one, standby() as other:
        for active in (other, one):
            one.election.follow(str(active.client.base_url).rstrip("/"))
            other.election.follow(str(one.client.base_url).rstrip("/"))
            refused = await one.client.get("/v1/stats")
            assert (refused.status_code, refused.json()["code"]) == (503, "standby")
            assert "poolkeeper-instance" not in refused.headers
            assert one.served == other.served == []


async def test_a_driver_is_refused_with_postgres_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.api.forwarding.forwarder._HOLD", 0.2)
    async with standby() as one, standby() as other:
        for active in (None, str(other.client.base_url).rstrip("/")):
            if active is not None:
                one.election.follow(active)
            refused = await one.client.post("/sql", content=b"{}")
            assert (refused.status_code, refused.json()["code"]) == (400, "57P03")
            assert refused.headers["retry-after"] == "1"
            assert "poolkeeper-instance" not in refused.headers
            assert one.served == other.served == []


async def test_large_bodies_pass_in_both_directions_whatever_their_framing() -> None:
    large = bytes(range(256)) * 4096

    async def parts() -> AsyncIterator[bytes]:
        for start in range(0, len(large), 100_000):
            yield large[start : start + 100_000]

    async def repeat(scope: Scope, receive: Receive, send: Send) -> None:
        body = await body_of(receive)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async with pair(repeat) as (standby, active):
        for content in (large, parts()):
            response = await standby.client.post("/", content=content)
            assert response.content == large
        assert [b"transfer-encoding" in dict(scope["headers"]) for scope in active.asked] == [
            False,
            True,
        ]


async def test_a_response_before_the_end_of_the_body_is_passed_on() -> None:
    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"2"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 413, "headers": headers})
        await send({"type": "http.response.body", "body": b"{}"})

    async with pair(refuse) as (standby, _):
        address = httpx.URL(standby.client.base_url)
        async with connected((address.host, address.port or 0)) as client:
            head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"
            client.writer.write(head + bytes(200_000))
            status, _ = await client.answer()
            assert status == 413


async def test_a_stream_passes_event_by_event_and_ends_with_its_client() -> None:
    next_one, gone = asyncio.Event(), asyncio.Event()

    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["connection"].notify_disconnect(gone.set)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(3):
            part = b"data: %d\n\n" % number
            await send({"type": "http.response.body", "body": part, "more_body": True})
            await next_one.wait()
            next_one.clear()
        await gone.wait()

    async with pair(stream) as (standby, _):
        async with standby.client.stream("GET", "/v1/stats/stream") as response:
            events = response.aiter_raw()
            for number in range(3):
                assert await anext(events) == b"data: %d\n\n" % number
                next_one.set()
        await eventually(gone.is_set)


async def test_a_client_that_leaves_before_the_response_ends_the_request() -> None:
    begun, gone = asyncio.Event(), asyncio.Event()

    async def hang(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["connection"].notify_disconnect(gone.set)
        begun.set()
        await gone.wait()

    async with pair(hang) as (standby, _):
        address = httpx.URL(standby.client.base_url)
        async with connected((address.host, address.port or 0)) as client:
            client.ask("POST", "/v1/tenants/acme/query", {"sql": "SELECT pg_sleep(60)"})
            await eventually(begun.is_set)
            client.reset()
            await eventually(gone.is_set)


async def test_passwords_are_not_forwarded_in_clear() -> None:
    async with standby() as waiting:
        waiting.election.follow("http://10.0.0.7:8080")
        for method, path in [
            ("GET", "/v1/nodes/self/configuration?wait_seconds=25"),
            ("POST", "/v1/tenants/acme/credentials"),
        ]:
            response = await waiting.client.request(method, path)
            assert response.status_code == 403
            problem = response.json()
            assert (problem["code"], problem["retryable"]) == ("tls-required", False)
            assert "http://10.0.0.7:8080" in problem["detail"]
            assert "POOLKEEPER_ADVERTISE_URL" in problem["detail"]


async def test_a_request_waits_for_an_active_instance() -> None:
    async with AsyncExitStack() as stack:
        waiting = await stack.enter_async_context(standby())
        asked = [asyncio.create_task(waiting.client.post("/", content=b"body")) for _ in range(3)]
        await eventually(lambda: waiting.election.not_served == 3)
        assert not any(each.done() for each in asked)
        host, port = await stack.enter_async_context(listening(Active(echo)))
        waiting.election.follow(f"http://{host}:{port}")
        for each in asked:
            assert (await each).json()["body"] == "body"


async def test_refused_requests_wait_for_a_change_instead_of_asking_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("forwarder._HOLD", "forwarder._FIRST_PAUSE", "upstream._GRACE"):
        monkeypatch.setattr(f"app.api.forwarding.{name}", 180.0)
    stopping = Active(echo)
    stopping.election.is_serving = False
    async with (
        standby() as waiting,
        listening(stopping) as (host, stopping_port),
        listening(Active(echo)) as (_, port),
    ):
        waiting.election.follow(f"http://{host}:{stopping_port}")
        asked = [asyncio.create_task(waiting.client.post("/", content=b"body")) for _ in range(3)]
        await eventually(lambda: stopping.election.not_served == 3)
        waiting.election.follow(f"http://{host}:{port}")
        assert [(await each).json()["body"] for each in asked] == ["body"] * 3
        waiting.election.follow(f"http://{host}:{stopping_port}")
        last = asyncio.create_task(waiting.client.post("/", content=b"body"))
        await eventually(lambda: stopping.election.not_served == 4)
        waiting.election.is_serving = True
        waiting.election.changed()
        assert "poolkeeper-instance" not in (await last).headers
        assert stopping.election.not_served == 4


async def test_a_request_that_waited_is_served_here_if_this_instance_becomes_active() -> None:
    async with standby() as waiting:
        waiting.election.follow("http://127.0.0.1:9")
        asked = asyncio.create_task(waiting.client.post("/", content=b"body"))
        await eventually(lambda: waiting.election.not_served)
        waiting.election.is_serving = True
        response = await asked
        assert response.json()["body"] == "body"
        assert "poolkeeper-instance" not in response.headers


async def test_a_request_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.api.forwarding.forwarder._HOLD", 0.1)
    async with standby() as waiting:
        refused = await waiting.client.get("/v1/stats", headers={"X-Request-ID": "mine"})
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        problem = refused.json()
        assert (problem["code"], problem["request_id"]) == ("standby", "mine")
        assert problem["retryable"]
        waiting.election.lost = CatalogInUse("Another instance has taken over this catalog.")
        assert (await waiting.client.get("/v1/stats")).status_code == 503


@pytest.mark.parametrize(
    ("method", "asked_again", "status"), [("GET", True, 207), ("POST", False, 502)]
)
async def test_what_an_instance_that_died_was_asked_is_repeated_only_if_it_only_reads(
    method: str, status: int, *, asked_again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.api.forwarding.upstream._GRACE", 0.1)
    begun = asyncio.Event()

    async def hang(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with pair(hang) as (standby, dying), listening(Active(echo)) as (host, port):
        asked = asyncio.create_task(standby.client.request(method, "/v1/tenants"))
        await eventually(begun.is_set)
        standby.election.follow(f"http://{host}:{port}")
        response = await asked
        assert response.status_code == status
        assert len(dying.asked) == 1
        if not asked_again:
            assert response.json()["code"] == "active-lost"
            assert not response.json()["retryable"]


async def half(scope: Scope, receive: Receive, send: Send) -> None:
    """Begin a response, and never end it."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"half", "more_body": True})
    await asyncio.Event().wait()


async def test_a_response_that_breaks_off_is_not_taken_for_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.api.forwarding.upstream._GRACE", 0.1)

    async with (
        pair(half) as (standby, _),
        standby.client.stream("GET", "/v1/tenants") as response,
    ):
        parts = response.aiter_raw()
        assert await anext(parts) == b"half"
        standby.election.follow(None)
        with pytest.raises(httpx.RemoteProtocolError):
            await anext(parts)


@pytest.mark.parametrize(("method", "is_safe"), [("GET", True), ("POST", False)])
async def test_nobody_waits_for_ever_for_a_response_that_is_swallowed(
    method: str, monkeypatch: pytest.MonkeyPatch, *, is_safe: bool
) -> None:
    async with pair_through_a_proxy(echo, longest_wait=0.2) as (standby, proxy):
        proxy.black_hole(up=False)
        response = await standby.client.request(method, "/v1/tenants")
        assert response.status_code == 504
        problem = response.json()
        assert (problem["code"], problem["retryable"]) == ("deadline-exceeded", is_safe)
        await eventually(lambda: proxy.bytes_up)
        # And its connection is not used again.
        await proxy.pass_through()
        monkeypatch.setattr(standby.forwarder, "_longest_wait", 180.0)
        accepted = proxy.accepted
        assert (await standby.client.request(method, "/v1/tenants")).status_code == 207
        assert proxy.accepted == accepted + 1


@pytest.mark.parametrize("swallow", [FaultProxy.black_hole, FaultProxy.hold_new])
async def test_an_instance_that_cannot_be_reached_any_more_is_given_up(
    monkeypatch: pytest.MonkeyPatch, swallow: Callable[[FaultProxy], None]
) -> None:
    monkeypatch.setattr("app.api.forwarding.upstream._LOOK_INTERVAL", 0.05)
    monkeypatch.setattr("app.api.forwarding.upstream._LOOK_DEADLINE", 0.05)

    async def hang(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.Event().wait()

    async with pair_through_a_proxy(hang) as (standby, proxy):
        swallow(proxy)
        response = await standby.client.post("/v1/tenants")
        assert (response.status_code, response.json()["code"]) == (504, "deadline-exceeded")


async def test_an_instance_that_takes_its_time_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.api.forwarding.upstream._LOOK_INTERVAL", 0.01)
    looks = 0

    async def respond(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal looks
        if scope["path"] == "/livez":
            looks += 1
        else:
            await eventually(lambda: looks > 3)
        await echo(scope, receive, send)

    async with pair_through_a_proxy(respond) as (standby, proxy):
        response = await standby.client.post("/v1/tenants", content=b"body")
        assert response.json()["body"] == "body"
        await eventually(lambda: proxy.live == 1)


async def test_nobody_waits_for_ever_to_send_a_body_that_is_not_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.api.forwarding.upstream._SILENCE", 0.2)
    async with pair_through_a_proxy(echo) as (standby, proxy):
        proxy.black_hole()
        response = await standby.client.post("/v1/tenants", content=b"x" * (32 << 20))
        assert response.status_code == 504
        assert response.json()["code"] == "deadline-exceeded"


async def test_nobody_waits_for_ever_for_the_rest_of_a_response(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.api.forwarding.upstream._SILENCE", 0.2)

    async with (
        pair_through_a_proxy(half) as (standby, _),
        standby.client.stream("GET", "/v1/tenants") as response,
    ):
        parts = response.aiter_raw()
        assert await anext(parts) == b"half"
        with pytest.raises(httpx.RemoteProtocolError):
            await anext(parts)


async def test_an_instance_that_is_no_longer_active_did_nothing_and_is_asked_again() -> None:
    async with pair() as (standby, active):
        active.election.is_serving = False
        asked = asyncio.create_task(standby.client.post("/", content=b"body"))
        await eventually(lambda: active.election.not_served)
        assert active.asked == []
        active.election.is_serving = True
        assert (await asked).json()["body"] == "body"


async def test_what_an_instance_refuses_late_while_it_hands_over_goes_to_the_next_one() -> None:
    begun, may_refuse = asyncio.Event(), asyncio.Event()

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        await may_refuse.wait()
        headers = [(b"poolkeeper-not-active", b"1"), (b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 503, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    async with pair(refuse) as (standby, _), listening(Active(echo)) as (host, port):
        asked = asyncio.create_task(standby.client.post("/", content=b"body"))
        await eventually(begun.is_set)
        standby.election.follow(None)
        standby.election.follow(f"http://{host}:{port}")
        may_refuse.set()
        assert (await asked).json()["body"] == "body"


async def test_a_body_that_grew_while_it_was_refused_is_not_sent_in_part(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.api.forwarding.forwarded_body._MAX_KEPT", 2000)

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"poolkeeper-not-active", b"1"), (b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 503, "headers": headers})
        received = 0
        while received < 10_000:
            received += len((await receive())["body"])
        await send({"type": "http.response.body", "body": b"{}"})

    async with pair(refuse) as (standby, active), asyncio.timeout(180):
        address = httpx.URL(standby.client.base_url)
        upstreams: Upstreams = standby.election.changed.__self__._upstreams  # type: ignore[attr-defined]
        async with connected((address.host, address.port or 0)) as client:
            head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000\r\n\r\n"
            client.writer.write(head + bytes(1000))
            # From now on the standby only waits for the end of the refusal.
            await eventually(lambda: any(each.has_begun for each in upstreams._open))
            client.writer.write(bytes(9000))
            status, problem = await client.answer()
            assert (status, problem["code"]) == (503, "standby")
        assert len(active.asked) == 1


async def test_an_instance_that_stops_serving_waits_for_the_requests_it_has() -> None:
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def hang(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        await may_end.wait()
        await echo(scope, receive, send)

    async with pair(hang) as (standby, stopping), listening(Active(echo)) as (host, port):
        await stopping.forwarder.drain(0)
        asked = asyncio.create_task(standby.client.post("/", content=b"first"))
        await eventually(begun.is_set)
        stopping.election.is_serving = False
        drained = asyncio.create_task(stopping.forwarder.drain(180))
        # New requests are for its successor, whoever forwards them.
        stopping.election.follow(f"http://{host}:{port}")
        async with httpx.AsyncClient(trust_env=False) as direct:
            later = await direct.post(f"{standby.election.active_url}/", content=b"later")
        assert later.json()["body"] == "later"
        assert not drained.done()
        await stopping.forwarder.drain(0)
        may_end.set()
        assert (await asked).json()["body"] == "first"
        await drained
        stopping.forwarder.close()


async def test_what_ends_is_not_waited_for_with_what_came_later() -> None:
    begun: asyncio.Queue[asyncio.Event] = asyncio.Queue()

    async def hang(scope: Scope, receive: Receive, send: Send) -> None:
        may_end = asyncio.Event()
        begun.put_nowait(may_end)
        await may_end.wait()
        await echo(scope, receive, send)

    async with pair(hang) as (standby, stopping):
        first = asyncio.create_task(standby.client.post("/", content=b"first"))
        may_end = await begun.get()
        drained = asyncio.create_task(stopping.forwarder.drain(180))
        second = asyncio.create_task(standby.client.post("/", content=b"second"))
        second_may_end = await begun.get()
        assert not drained.done()
        may_end.set()
        await drained
        assert not second.done()
        second_may_end.set()
        assert [(await each).json()["body"] for each in (first, second)] == ["first", "second"]


async def test_a_connection_that_closes_is_not_used_again() -> None:
    async with listening(echo) as (host, port):
        upstreams, url = Upstreams(keep_alive=180.0), f"http://{host}:{port}"
        first = await upstreams.connect(url)
        first.begin("GET", b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        await first.respond(180.0, is_there)
        while not first.is_ended:
            await first.read()
        upstreams.release(first)
        assert await upstreams.connect(url) is first
        upstreams.release(first)
        first._transport.close()  # type: ignore[union-attr]
        assert not first.is_lost
        assert await upstreams.connect(url) is not first
        upstreams.close()


async def test_nothing_is_left_to_do_after_the_end() -> None:
    async with listening(echo) as (host, port):
        upstreams = Upstreams(keep_alive=2.0)
        used = await upstreams.connect(f"http://{host}:{port}")
        upstreams.keep_only(None)
        grace = upstreams._grace
        assert grace is not None
        assert not grace.cancelled()
        upstreams.close()
        assert used.is_lost
        assert grace.cancelled()


async def test_connections_are_used_again_while_they_are_fresh() -> None:
    async with pair() as (standby, active):
        for _ in range(3):
            await standby.client.get("/")
        connections = {id(scope["state"]["connection"]) for scope in active.asked}
        assert len(connections) == 1


async def test_a_malformed_response_is_a_lost_one() -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"SSH-2.0-nonsense\r\n")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with server, standby() as waiting:
        waiting.election.follow(f"http://{host}:{port}")
        response = await waiting.client.post("/", content=b"")
        assert (response.status_code, response.json()["code"]) == (502, "active-lost")
