"""What surrounds an answer: trusted host names, the headers of every answer, the deadline."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from structlog.testing import capture_logs

from app.api.http.exchange import Exchange
from app.main import create_app
from app.settings import Settings
from tests.fixtures.app import Api, ApiWith, ok, problem
from tests.fixtures.served import Serve
from tests.fixtures.waiting import eventually

EXPECTED = {
    "content-security-policy",
    "cross-origin-opener-policy",
    "cross-origin-resource-policy",
    "referrer-policy",
    "x-content-type-options",
}
DEADLINE = 0.5


@pytest.fixture
async def hasty_api(api_with: ApiWith) -> AsyncIterator[Api]:
    """The application of an operator with a short deadline."""
    async with api_with(request_deadline_seconds=DEADLINE) as api:
        yield api


@pytest.fixture
def expired(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Set when a request's deadline has passed."""
    event, send_timeout = asyncio.Event(), Exchange._send_timeout

    async def note(exchange: Exchange) -> None:
        event.set()
        await send_timeout(exchange)

    monkeypatch.setattr(Exchange, "_send_timeout", note)
    return event


async def patiently_made(hasty_api: Api) -> str:
    """A provisioned tenant: an answer that comes too late does not undo the work."""
    url = "/v1/tenants/acme"
    await hasty_api.client.put(url, json={"strategy": "per_tenant"})
    await hasty_api.client.post(f"{url}/provision")

    async def is_provisioned() -> bool:
        answer = await hasty_api.client.get(url)
        return bool(answer.json().get("state") == "provisioned")

    await eventually(is_provisioned)
    return url


async def test_every_response_has_the_security_headers(unstarted: httpx.AsyncClient) -> None:
    for method, url, status in (
        ("GET", "/livez", 200),
        ("GET", "/docs", 200),
        ("GET", "/docs/docs.js", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/v1/nothing", 404),
        ("PATCH", "/v1/advisor", 405),
        ("PUT", "/v1/tenants/A", 422),
        ("POST", "/v1/advisor/evaluate", 422),
        ("GET", "/v1/tenants?server=" + "x" * 9000, 414),
    ):
        answer = await unstarted.request(method, url)
        assert answer.status_code == status
        assert answer.headers.keys() >= EXPECTED
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert len(answer.headers.get_list("x-request-id")) == 1
        if url.startswith("/v1"):
            assert answer.headers["cache-control"] == "no-store"
        assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_an_unhandled_error_has_them_too() -> None:
    """Starlette answers these outside of all our layers."""
    app = create_app(Settings.model_construct())
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    with capture_logs() as logged:
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            answer = await client.get("/v1/tenants")
    assert "unhandled error" in [each["event"] for each in logged]
    problem(answer, 500, "internal-error")
    assert answer.headers.keys() >= EXPECTED
    assert "NoneType" not in answer.text


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:8080",
        "localhost.",
        "127.0.0.1",
        "127.0.0.1:1",
        "[::1]:8080",
        "[::1]",
    ],
)
async def test_loopback_names_are_trusted(unstarted: httpx.AsyncClient, host: str) -> None:
    assert (await unstarted.get("/openapi.json", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "evil.example:8080",
        "127.0.0.1.nip.io",
        "169.254.169.254",
        "[::2]",
        "localhost@evil.example",
        "localhost:80:80",
        "localhost/",
        "",
        ":80",
        "[::1",
        "localhost, evil.example",
    ],
)
async def test_a_foreign_host_name_is_refused(unstarted: httpx.AsyncClient, host: str) -> None:
    """A page of another site can give our address its own name (DNS rebinding)."""
    answer = await unstarted.get("/openapi.json", headers={"Host": host})
    problem(answer, 400, "untrusted-host")


@pytest.mark.parametrize(
    ("names", "host", "status"),
    [
        (["*"], "evil.example", 200),
        (["*.example.com"], "a.example.com", 200),
        (["*.example.com"], "a.b.example.com:8080", 200),
        (["*.example.com"], "example.com", 400),
        (["*.example.com"], "badexample.com", 400),
        (["Pool.example.com"], "pool.EXAMPLE.com", 200),
        (["pool.example.com"], "localhost", 400),
        ([], "localhost", 400),
    ],
)
async def test_the_operator_names_the_hosts(
    names: list[str], host: str, status: int, tmp_path: Path
) -> None:
    app = create_app(Settings.model_construct(data_dir=tmp_path, trusted_hosts=names))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        answer = await client.get("/openapi.json", headers={"Host": host})
        assert answer.status_code == status
        # Orchestrators and proxies name an address.
        assert (await client.get("/livez", headers={"Host": host})).status_code == 200


async def test_a_probe_is_answered_whatever_its_host_and_gets_no_details(api: Api) -> None:
    for path in ("/livez", "/readyz"):
        ok(await api.client.get(path, headers={"Host": "10.244.0.7:8080"}))
    foreign = ok(await api.client.get("/readyz", headers={"Host": "evil.example"}))
    assert {check["detail"] for check in foreign["checks"]} == {None}
    assert None not in {check["detail"] for check in ok(await api.client.get("/readyz"))["checks"]}


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:3000"},
        {"Origin": "https://evil.example"},
        {"Origin": "http://localhost:3000"},
        {"Origin": "null"},
    ],
)
async def test_a_page_of_another_site_changes_nothing(
    unstarted: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    for method in ("POST", "PUT", "DELETE"):
        url = "/v1/tenants/acme/rotate-credentials?scope=pool"
        problem(await unstarted.request(method, url, headers=headers), 403, "cross-site")
    ok(await unstarted.get("/livez", headers=headers))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "http://LOCALHOST"},
    ],
)
async def test_our_own_page_and_programs_change_what_they_may(
    unstarted: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    problem(await unstarted.post("/livez", headers=headers), 405, "method-not-allowed")


async def test_a_body_has_a_deadline(hasty_api: Api) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    for method, url in (("PUT", "/v1/tenants/acme"), ("POST", "/v1/tenants/acme/pool/pause")):
        answer = await hasty_api.client.request(
            method, url, content=endless(), headers={"Content-Type": "application/json"}
        )
        problem(answer, 408, "request-timeout")
        assert answer.headers["connection"] == "close"


async def test_work_beyond_the_deadline_continues_without_its_caller(
    hasty_api: Api, expired: asyncio.Event
) -> None:
    service = hasty_api.service
    url = "/v1/tenants/acme"
    assert (await hasty_api.client.get(url)).status_code == 404  # the first request takes longest
    locks = service.locks
    async with locks.hold("acme"):
        expired.clear()
        slow = asyncio.create_task(hasty_api.client.put(url, json={}))
        await asyncio.wait_for(expired.wait(), 180)
    late = await slow  # in memory the answer is handed over when everything is done
    problem(late, 504, "deadline-exceeded")
    assert late.headers["connection"] == "close"
    assert (late.json()["retryable"], "retry-after" in late.headers) == (False, False)
    ok(await hasty_api.client.get(url))


async def test_a_late_response_is_stored_for_its_key(
    hasty_api: Api, expired: asyncio.Event
) -> None:
    url = await patiently_made(hasty_api)
    await hasty_api.client.put(f"{url}/pool", json={})
    key = {"Idempotency-Key": "k"}
    async with hasty_api.service.locks.hold("acme"):
        expired.clear()
        slow = asyncio.create_task(hasty_api.client.post(f"{url}/pool/pause", headers=key))
        await asyncio.wait_for(expired.wait(), 180)
        again = await hasty_api.client.post(f"{url}/pool/pause", headers=key)
        problem(again, 409, "idempotency-key-in-flight")
    late = problem(await slow, 504, "deadline-exceeded")
    assert late["retryable"]
    again = await hasty_api.client.post(f"{url}/pool/pause", headers=key)
    assert (ok(again)["state"], again.headers["idempotency-replayed"]) == ("paused", "true")


async def test_leases_and_statements_can_use_their_own_deadline(hasty_api: Api) -> None:
    url = await patiently_made(hasty_api)
    sleep = f"select 1 from pg_sleep({DEADLINE * 3})"
    slow = asyncio.create_task(hasty_api.query(url, sleep, timeout_seconds=20))
    pool = hasty_api.service.manager.find

    await eventually(
        lambda: (found := pool("acme")) is not None and found.metrics.active_connections
    )
    evicted = ok(await hasty_api.client.delete(f"{url}/pool?deadline_seconds=20"))
    assert (evicted["cut"], ok(await slow)["rows"]) == (0, [[1]])


async def test_one_byte_at_a_time_over_a_real_socket_ends_in_408(serve: Serve) -> None:
    async with serve(request_deadline_seconds=1) as service:
        port = service.client.base_url.port
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"PUT /v1/tenants/acme HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
        )

        async def drip() -> None:
            while not writer.is_closing():
                writer.write(b" ")
                await asyncio.sleep(0.05)

        dripping = asyncio.create_task(drip())
        answer = b""
        try:
            # A byte that arrives after the close is answered with a reset.
            async with asyncio.timeout(180):
                with suppress(ConnectionResetError):
                    while piece := await reader.read(65_536):
                        answer += piece
        finally:
            dripping.cancel()
            writer.close()
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"request-timeout" in answer
        assert await service.is_ready()
        other = await service.client.get("/openapi.json", headers={"Host": "evil.example"})
        problem(other, 400, "untrusted-host")
