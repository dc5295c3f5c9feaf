"""The statistics stream: its events, the number of streams, and its end."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import pytest

from app.api.auth.principal import UNRESTRICTED, Principal
from app.api.routes import stats_stream
from app.api.routes.stats_stream import EventStream
from app.domain.errors import TooManyStreams
from tests.fixtures.app import Api, ApiWith, problem
from tests.fixtures.keys import Keyring
from tests.fixtures.served import Serve
from tests.fixtures.waiting import eventually

PATH = "/v1/stats/stream"


class Follower:
    """A client of the stream, directly at the application; the test says when it reads."""

    def __init__(self, api: Api, headers: dict[str, str]) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.heard: list[bytes] = []
        self.reads = asyncio.Event()
        self.reads.set()
        self._gone = asyncio.Event()
        self._asked = False
        given = {"host": "localhost", **headers}
        scope = {
            "type": "http",
            "method": "GET",
            "path": PATH,
            "raw_path": PATH.encode(),
            "query_string": b"",
            "headers": [(name.lower().encode(), text.encode()) for name, text in given.items()],
            "client": ("follower", 1),
            "server": ("localhost", 80),
            "scheme": "http",
            "http_version": "1.1",
            "root_path": "",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
        }
        self.task = asyncio.create_task(api.app(scope, self._receive, self._send), name="follower")

    async def _receive(self) -> dict[str, Any]:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        await self.reads.wait()
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {key.decode(): value.decode() for key, value in message["headers"]}
        elif message["body"]:
            self.heard.append(message["body"])

    @property
    def events(self) -> list[dict[str, Any]]:
        """The data of the events it received."""
        events = [event.decode() for event in self.heard if event.startswith(b"event: stats\n")]
        return [json.loads(event.partition("data: ")[2]) for event in events]

    async def receives(self, count: int) -> list[dict[str, Any]]:
        """Wait for this many events."""
        await eventually(lambda: len(self.events) >= count)
        return self.events

    async def leave(self) -> None:
        """Hang up."""
        self._gone.set()
        await asyncio.wait_for(self.task, 60)


@asynccontextmanager
async def follower(api: Api, headers: dict[str, str] | None = None) -> AsyncIterator[Follower]:
    follower = Follower(api, headers or {})
    try:
        yield follower
    finally:
        follower.reads.set()
        await follower.leave()


async def test_an_event_comes_at_once_and_one_after_each_poll(api: Api) -> None:
    await api.value(await api.tenant("acme"), "SELECT 1")
    async with follower(api) as page:
        [first] = await page.receives(1)
        assert page.status == 200
        assert page.headers["content-type"].startswith("text/event-stream")
        assert page.headers["cache-control"] == "no-store"
        assert first["totals"]["connections_acquired"] == 1
        assert [server["name"] for server in first["servers"]] == ["local"]
        await api.value("/v1/tenants/acme", "SELECT 1")
        await api.service.poller.run_once()
        _, second = await page.receives(2)
        assert second["totals"]["connections_acquired"] == 2
        assert second["sequence"] > first["sequence"]
        assert second["as_of"] > first["as_of"]


async def test_a_snapshot_between_two_polls_is_no_event(api: Api) -> None:
    async with follower(api) as page:
        await page.receives(1)
        for _ in range(3):
            api.service.snapshots.invalidate()
            newest = await api.service.snapshots.current()
        published = await api.service.snapshots.publish()
        assert [each["sequence"] for each in await page.receives(2)][1] == published.sequence
        assert published.sequence == newest.sequence + 1


async def test_a_slow_reader_gets_the_latest_and_delays_nobody(api: Api) -> None:
    async with follower(api) as slow, follower(api) as quick:
        await slow.receives(1)
        await quick.receives(1)
        slow.reads.clear()
        for count in range(2, 7):
            published = await api.service.snapshots.publish()
            await quick.receives(count)
        slow.reads.set()
        await eventually(lambda: slow.events[-1]["sequence"] == published.sequence)
        # What was being sent when it stopped reading, and the newest.
        assert len(slow.events) == 3


async def test_a_comment_keeps_a_quiet_stream_alive(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stats_stream, "_KEEP_ALIVE_SECONDS", 0.01)
    async with follower(api) as page:
        await eventually(lambda: page.heard.count(b": keep-alive\n\n") > 1)
        assert len(page.events) == 1


async def test_it_goes_on_beyond_the_deadline_of_requests(api_with: ApiWith) -> None:
    settings = {"request_deadline_seconds": 0.3}
    async with (
        api_with(**settings) as api,
        follower(api) as it,
    ):
        await it.receives(1)
        await asyncio.sleep(0.5)  # beyond the deadline, which this test is about
        await api.service.snapshots.publish()
        await it.receives(2)
        assert not it.task.done()


async def test_the_number_of_streams_is_limited(api_with: ApiWith) -> None:
    async with api_with(max_streams=1) as api:
        async with follower(api) as page:
            await page.receives(1)
            problem(await api.client.get(PATH), 503, "too-many-streams")
        assert api.service.streams.open == 0
        async with follower(api) as page:
            await page.receives(1)


async def test_one_key_leaves_room_for_others(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats_stream, "_MAX_STREAMS_OF_KEY", 1)
    one, other = (
        Principal(name=key_id, scopes=frozenset(), key_id=key_id) for key_id in ("one", "other")
    )
    entered = [one, other, UNRESTRICTED, UNRESTRICTED]
    for caller in entered:
        api.service.streams.register(caller)
    with pytest.raises(TooManyStreams):
        api.service.streams.register(one)
    for caller in entered:
        api.service.streams.unregister(caller)
    api.service.streams.register(one)
    api.service.streams.unregister(one)


async def test_a_stream_that_never_begins_is_not_counted(api: Api) -> None:
    followed = api.service.streams
    # A request can end between its handler and its response.
    EventStream(followed, UNRESTRICTED, followed.events(api.app.state.authenticator, []))
    assert followed.open == 0


async def test_head_is_answered_and_follows_nothing(api: Api) -> None:
    response = await api.client.head(PATH)
    assert (response.status_code, api.service.streams.open) == (200, 0)
    assert response.headers["content-type"].startswith("text/event-stream")


async def test_a_bound_key_hears_of_its_own_tenants_until_it_is_revoked(
    keyed_api: tuple[Api, Keyring],
) -> None:
    api, keys = keyed_api
    for name in ("acme", "globex", "globex"):
        if name not in api.service.manager.tenants:
            await api.tenant(name)
        await api.value(f"/v1/tenants/{name}", "SELECT 1")
    async with (
        follower(api, keys.headers("bound")) as bound,
        follower(api, keys.headers("all")) as everything,
    ):
        assert (await bound.receives(1))[0]["totals"]["connections_acquired"] == 1
        assert (await everything.receives(1))[0]["totals"]["connections_acquired"] == 3
        keys.revoke("bound")

        async def has_ended() -> bool:
            await api.service.snapshots.publish()
            return bound.task.done()

        await eventually(has_ended)
        heard = len(bound.events)
        assert {event["totals"]["connections_acquired"] for event in bound.events} == {1}
        await everything.receives(heard + 1)


async def test_the_end_of_the_service_is_the_end_of_its_streams_at_once(serve: Serve) -> None:
    async with serve(poll_interval_seconds=0.1, shutdown_seconds=30) as service:
        async with service.client.stream("GET", PATH) as response:
            lines = response.aiter_lines()
            heard = [line async for line in _until(lines, 3)]
            began = monotonic()
            service.process.send_signal(signal.SIGTERM)
            rest = [line async for line in lines]
        assert await asyncio.wait_for(service.process.wait(), 60) == 0
        assert heard.count("event: stats") == 3
        assert rest is not None
        # Far less than the requests' deadline; not a measurement.
        assert monotonic() - began < 20


async def _until(lines: AsyncIterator[str], events: int) -> AsyncIterator[str]:
    async for line in lines:
        yield line
        events -= line == "event: stats"
        if not events:
            return
