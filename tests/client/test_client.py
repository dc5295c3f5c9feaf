"""The clients of the API with a running service, and how they report failures."""

import asyncio
import inspect
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, time
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from uuid import UUID

import pytest
from typer.testing import CliRunner

from app.cli.main import cli
from poolkeeper import api
from poolkeeper.client import AsyncClient, Client
from poolkeeper.errors import (
    InvalidRequest,
    PoolkeeperError,
    ProblemError,
    UnexpectedResponse,
    Unreachable,
)
from tests.fixtures.served import Serve, Served

SECRET = "pk_secret_of_this_test"


@pytest.fixture
async def service(serve: Serve) -> AsyncIterator[Served]:
    async with serve(poll_interval_seconds=0.5) as running:
        yield running


async def test_both_clients_do_what_a_tenant_needs(service: Served) -> None:
    url = str(service.client.base_url)

    def use_sync() -> None:
        with Client(url) as client:
            created = client.send(api.put_tenant("acme", strategy="per_tenant", weight=2))
            assert (created["state"], created["weight"]) == ("declared", 2)
            assert client.send(api.provision_tenant("acme"))["tenant"] == "acme"
            result = client.send(api.run_query("acme", sql="SELECT $1::int", params=[42]))
            assert result["rows"] == [[42]]
            both = client.send(
                api.run_statements("acme", statements=[{"sql": "SELECT 1"}, {"sql": "SELECT 2"}])
            )
            assert [each["rows"] for each in both["results"]] == [[[1]], [[2]]]
            plan = client.send(api.delete_tenant("acme").dry_run())
            assert plan["dry_run"]
            assert [each["id"] for each in client.items(api.list_tenants())] == ["acme"]
            event = next(client.stream_stats())
            assert event["totals"]["active_connections"] >= 0

    await asyncio.to_thread(use_sync)

    async with AsyncClient(url) as client:
        await client.send(api.rotate_credentials("acme"))
        issued = await client.send(api.create_credential("acme", name="web"))
        assert issued["password"] in issued["connection_string"]
        named = [each["name"] async for each in client.items(api.list_credentials("acme"))]
        assert named == ["web"]
        assert (await client.send(api.revoke_credential("acme", "web")))["user"] == "acme.web"
        queries = [client.send(api.run_query("acme", sql="SELECT 42")) for _ in range(8)]
        assert [done["rows"] for done in await asyncio.gather(*queries)] == [[[42]]] * 8
        sized = await client.send(api.put_tenant_pool("acme", min_size=1, max_size=3))
        assert sized["desired"]["max_size"] == 3
        stats = await client.send(api.get_tenant_stats("acme"))
        assert stats["connections_acquired"] == 10
        async for event in client.stream_stats():
            assert event["sequence"]
            break
        assert (await client.send(api.evict_pool("acme", mode="force")))["closed"] >= 1
        assert (await client.send(api.delete_tenant("acme")))["login_disabled"]
        assert [each async for each in client.items(api.list_tenants())] == []


async def test_a_number_that_no_float_holds_keeps_its_digits(service: Served) -> None:
    await service.tenant("acme")
    url, digits = str(service.client.base_url), "12345678901234567890.123456789"
    sql = f"""SELECT '{{"exact": {digits}, "usual": 0.10}}'::jsonb AS document, '{digits}'::jsonb"""
    async with AsyncClient(url) as client:
        [[document, alone]] = (await client.send(api.run_query("acme", sql=sql)))["rows"]
    assert (document, alone) == ({"exact": Decimal(digits), "usual": 0.1}, Decimal(digits))
    assert type(document["usual"]) is float
    tiny = f"SELECT '0e-{'9' * 20}'::json, '1e-{'9' * 20}'::json"
    async with AsyncClient(url) as client:
        assert (await client.send(api.run_query("acme", sql=tiny)))["rows"] == [
            [0.0, f"1e-{'9' * 20}"]
        ]
    for output in ("wide", "json", "yaml"):
        words = ["query", "acme", sql, "--output", output, "--url", url]
        printed = await asyncio.to_thread(CliRunner().invoke, cli, words)
        assert printed.stdout.count(digits) == 2, printed.output


async def test_lists_are_read_page_by_page(
    service: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("poolkeeper.exchange._PAGE_SIZE", 2)
    names = [f"tenant-{number}" for number in range(5)]
    async with AsyncClient(str(service.client.base_url)) as client:
        for name in names:
            await client.send(api.put_tenant(name, strategy="shared", labels={"in": "test"}))
        listed = api.list_tenants(label=["in:test"])
        assert [each["id"] async for each in client.items(listed, limit=3)] == names[:3]
        assert [each["id"] async for each in client.items(listed)] == names
        assert [each async for each in client.items(listed, limit=0)] == []


REQUESTS = [
    each
    for _, each in inspect.getmembers(api, inspect.isfunction)
    if each.__module__ == api.__name__
]


async def test_a_service_knows_every_request_and_its_parameters(service: Served) -> None:
    problems: list[ProblemError] = []
    async with AsyncClient(str(service.client.base_url)) as client:
        for request in REQUESTS:
            given = inspect.signature(request).parameters.values()
            named = {each.name: "x" for each in given if each.kind is not each.VAR_KEYWORD}
            try:
                await client.send(request(**named))
            except ProblemError as problem:
                problems.append(problem)
    # A resource may be missing, a path may not.
    others = [each for each in problems if not each.code.endswith("-not-found")]
    assert {each.status for each in others} <= {409, 422}
    assert "unknown_parameter" not in {error["code"] for each in others for error in each.errors}


async def test_a_change_can_expect_a_version(service: Served) -> None:
    async with AsyncClient(str(service.client.base_url)) as client:
        version = (await client.response(api.put_tenant("acme", strategy="shared"))).etag
        assert version is not None
        changed = await client.response(api.put_tenant("acme", weight=3), if_match=version)
        assert (changed.document["weight"], changed.etag == version) == (3, False)
        for conditions in ({"if_match": version}, {"if_none_match": "*"}):
            with pytest.raises(ProblemError) as refused:
                await client.send(api.put_tenant("acme", weight=4), **conditions)
            assert (refused.value.status, refused.value.code) == (412, "stale-version")


async def test_an_action_with_the_same_key_is_done_once(service: Served) -> None:
    async with AsyncClient(str(service.client.base_url)) as client:
        await client.send(api.put_tenant("acme", strategy="shared"))
        key = "deploy-417"
        first, second = [
            await client.response(api.provision_tenant("acme"), idempotency_key=key)
            for _ in range(2)
        ]
        assert (first.replayed, second.replayed) == (False, True)
        assert first.document == second.document
        # The client makes another key each time.
        assert not (await client.response(api.provision_tenant("acme"))).replayed


async def test_a_violated_constraint_is_named(service: Served) -> None:
    await service.tenant("acme")
    create = "CREATE TABLE t (n int CONSTRAINT positive CHECK (n > 0))"
    violate = api.run_statements(
        "acme",
        statements=[{"sql": create}, {"sql": "INSERT INTO t VALUES (0)"}],
        read_only=False,
    )
    async with AsyncClient(str(service.client.base_url)) as client:
        with pytest.raises(ProblemError) as failed:
            await client.send(violate)
    assert (failed.value.sqlstate, failed.value.constraint_name) == ("23514", "positive")


async def test_the_place_of_an_error_in_a_statement_is_known(service: Served) -> None:
    await service.tenant("acme")
    async with AsyncClient(str(service.client.base_url)) as client:
        for sql, sqlstate, position in (("SELECT x", "42703", 8), ("SELECT 1/0", "22012", None)):
            with pytest.raises(ProblemError) as failed:
                await client.send(api.run_query("acme", sql=sql))
            assert (failed.value.sqlstate, failed.value.position) == (sqlstate, position)


async def test_a_refusal_says_what_and_why(service: Served) -> None:
    async with AsyncClient(str(service.client.base_url)) as client:
        with pytest.raises(ProblemError) as missing:
            await client.send(api.provision_tenant("nobody"))
        problem = missing.value
        assert (problem.status, problem.code) == (404, "tenant-not-found")
        assert (problem.title, problem.detail) == ("Not found", "There is no tenant nobody.")
        assert not problem.retryable
        assert (problem.sqlstate, problem.constraint_name) == (None, None)
        [kept] = [each async for each in client.items(api.list_refusals())]
        assert kept["request_id"] == problem.request_id
        with pytest.raises(ProblemError, match="/body/weight: ") as invalid:
            await client.send(api.put_tenant("acme", weight=0))
        assert [each["pointer"] for each in invalid.value.errors] == ["/body/weight"]


PYTHONS = [
    ("numeric", Decimal("1.50"), "1.50"),
    ("numeric", Decimal("NaN"), "NaN"),
    ("uuid", UUID(int=7), str(UUID(int=7))),
    ("date", date(2026, 2, 3), "2026-02-03"),
    ("timestamptz", datetime(2026, 2, 3, 4, tzinfo=UTC), "2026-02-03T04:00:00Z"),
    ("time", time(4, 5), "04:05:00"),
    ("bytea", b"\x00\xff", "\\x00ff"),
    ("text", "é", "é"),
]


async def test_values_that_json_lacks_are_sent_as_text(service: Served) -> None:
    await service.tenant("acme")
    async with AsyncClient(str(service.client.base_url)) as client:
        for kind, given, expected in PYTHONS:
            query = api.run_query("acme", sql=f"SELECT $1::{kind}", params=[given])
            assert (await client.send(query))["rows"] == [[expected]], kind


@pytest.mark.parametrize("value", [object(), float("nan"), {1}, {(): 1}, 1j, "\ud800"])
async def test_a_value_without_a_text_is_refused_before_anything_is_sent(value: object) -> None:
    async with AsyncClient("http://127.0.0.1:1") as client:
        with pytest.raises(InvalidRequest):
            await client.send(api.run_query("acme", sql="SELECT $1", params=[value]))


@pytest.mark.parametrize("key", ["ü", "a\nb", "a\0"])
async def test_an_invalid_key_of_an_action_is_named(key: str) -> None:
    async with AsyncClient("http://127.0.0.1:1") as client:
        with pytest.raises(InvalidRequest, match="Idempotency-Key must consist of visible ASCII"):
            await client.send(api.provision_tenant("acme"), idempotency_key=key)


class Scripted:
    """An HTTP server that gives these responses, one per request, and keeps its requests."""

    def __init__(self, *responses: tuple[int, Any] | None) -> None:
        """A response is a status and a document; None breaks the connection."""
        self.responses = list(responses)
        self.heard: list[tuple[str, str, str | None]] = []
        self.url = ""


@contextmanager
def scripted(*responses: tuple[int, Any] | None) -> Iterator[Scripted]:
    script = Scripted(*responses)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _respond(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            key = self.headers.get("idempotency-key")
            script.heard.append((self.command, self.path, key))
            response = script.responses.pop(0)
            if response is None:
                self.close_connection = True
                return
            status, document = response
            body = document if isinstance(document, bytes) else json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Retry-After", "0")
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_DELETE = _respond  # noqa: N815 - the library's names

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    script.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, args=(0.01,), name="scripted")
    thread.start()
    try:
        yield script
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


BUSY = {"code": "server-full", "detail": "Full.", "retryable": True}
PAUSED = {"code": "pool-paused", "detail": "Paused.", "retryable": True}
NO_LOGIN = {"code": "tenant-login-failed", "detail": "Refused.", "retryable": True}
LOST = {"code": "lease-lost", "detail": "Lost.", "retryable": False}
IN_FLIGHT = {"code": "idempotency-key-in-flight", "detail": "In flight.", "retryable": True}
DONE = {"id": "acme"}
WRITE = api.run_query("acme", sql="DELETE FROM t", read_only=False)


@pytest.mark.parametrize(
    ("request_", "responses"),
    [
        (api.get_tenant("acme"), [(429, {}), (503, BUSY), (503, b"proxy"), (200, DONE)]),
        (api.provision_tenant("acme"), [(409, IN_FLIGHT), (503, BUSY), (200, DONE)]),
        (WRITE, [(503, BUSY), (200, DONE)]),
        (api.get_tenant("acme"), [None, (200, DONE)]),
        (api.provision_tenant("acme"), [None, (409, IN_FLIGHT), (200, DONE)]),
    ],
)
async def test_what_is_safe_is_repeated(request_: Any, responses: list[Any]) -> None:  # noqa: ANN401
    with scripted(*responses) as script:
        async with AsyncClient(script.url) as client:
            assert await client.send(request_) == DONE
        with Client(script.url) as sync_client:
            script.responses = list(responses)
            assert await asyncio.to_thread(sync_client.send, request_) == DONE
        attempts = script.heard[: len(responses)]
        assert len(script.heard) == 2 * len(responses)
        assert attempts == [attempts[0]] * len(responses)  # with one key, if it has any
        assert (attempts[0][2] is not None) is request_.sends_key


@pytest.mark.parametrize(
    ("request_", "responses", "error"),
    [
        (WRITE, [None], Unreachable),
        (WRITE, [(503, LOST)], ProblemError),
        (api.get_tenant("acme"), [None, None], Unreachable),
        (api.get_tenant("acme"), [(504, BUSY)], ProblemError),
        (WRITE, [(503, PAUSED)], ProblemError),
        (api.run_query("acme", sql="SELECT 1"), [(503, NO_LOGIN)], ProblemError),
        (api.put_tenant("acme"), [(409, {"code": "immutable-field"})], ProblemError),
        (api.get_tenant("acme"), [(503, BUSY)] * 5, ProblemError),
        (api.get_tenant("acme"), [(200, b"<html>")], UnexpectedResponse),
        (api.list_tenants(), [(200, DONE)], UnexpectedResponse),
    ],
)
async def test_what_is_not_safe_is_not(request_: Any, responses: list[Any], error: Any) -> None:  # noqa: ANN401
    with scripted(*responses) as script:
        async with AsyncClient(script.url) as client:
            with pytest.raises(error):
                await client.send(request_)
        assert script.responses == []


@pytest.mark.parametrize("event", [b"data: <html>\n\n", b"data: [1]\n\n"])
async def test_a_stream_of_something_else_is_unexpected(event: bytes) -> None:
    with scripted((200, event), (200, event)) as script:
        async with AsyncClient(script.url) as client:
            with pytest.raises(UnexpectedResponse, match="does not respond like Poolkeeper"):
                await anext(client.stream_stats())
        with Client(script.url) as sync_client, pytest.raises(UnexpectedResponse):
            await asyncio.to_thread(next, sync_client.stream_stats())


async def test_a_change_that_expects_a_version_is_not_repeated_blindly() -> None:
    with scripted(None) as script:
        async with AsyncClient(script.url) as client:
            with pytest.raises(Unreachable):
                await client.send(api.put_tenant("acme"), if_match='"1"')
        assert len(script.heard) == 1


async def test_a_service_that_does_not_respond_is_given_up() -> None:
    # The kernel accepts the connection; nothing reads it.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        async with AsyncClient(url, timeout=0.2) as client:
            with pytest.raises(Unreachable, match="ReadTimeout"):
                await client.send(api.get_tenant("acme"))
            with pytest.raises(Unreachable, match="ReadTimeout"):
                await anext(client.stream_stats())
    async with AsyncClient(url) as client:
        with pytest.raises(Unreachable, match=f"Cannot reach {url}"):
            await client.send(api.get_tenant("acme"))


@pytest.mark.parametrize("url", ["there", "ftp://there", "http://there:port"])
async def test_an_invalid_address_is_named(url: str) -> None:
    with pytest.raises(InvalidRequest, match="not a valid URL"):
        async with AsyncClient(url) as client:
            await client.send(api.get_stats())


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "\udcff"])
def test_an_id_never_addresses_another_resource(name: str) -> None:
    with pytest.raises(InvalidRequest):
        api.get_tenant(name)
    assert api.get_tenant("acme?x#y").path == "/v1/tenants/acme%3Fx%23y"


async def test_the_key_is_sent_and_never_shown() -> None:
    with scripted((401, {}), (200, b"?")) as script:
        address = script.url.replace("//", f"//user:{SECRET}@")
        with Client(address, api_key=SECRET) as client:
            shown = [repr(client), repr(vars(client))]
            for _ in range(2):
                with pytest.raises(PoolkeeperError) as failed:
                    await asyncio.to_thread(client.send, api.get_stats())
                shown += [repr(failed.value), str(failed.value), repr(vars(failed.value))]
    with pytest.raises(InvalidRequest) as invalid:
        AsyncClient(api_key=f"{SECRET}\n")
    shown += [repr(invalid.value), repr(AsyncClient(address, api_key=SECRET))]
    assert not [text for text in shown if SECRET in text]
