"""An instance that stops hands over: long requests do not delay short ones."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import uvicorn
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from app.api.forwarding.forwarded_client import ForwardedClient
from app.api.forwarding.forwarder import Forwarder
from app.domain.leadership import InstanceState
from app.runtime.handover import Handover
from app.runtime.server import HttpServer
from tests.fixtures.waiting import eventually


@dataclass(slots=True)
class Election:
    """The election of an active instance with a standby."""

    state: InstanceState = InstanceState.ACTIVE
    lost: Exception | None = None
    trouble: str | None = None
    record: None = None
    active_url: str | None = None
    active_instance: str = "Another one is starting."
    resigned: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_serving(self) -> bool:
        return self.state is InstanceState.ACTIVE

    def keys(self) -> str:
        return ""

    def notify_change(self, callback: Callable[[], None]) -> None:
        """Do nothing: it does not change."""

    async def has_others(self) -> bool:
        return True

    def begin_stopping(self) -> None:
        self.state = InstanceState.STOPPING

    async def resign(self) -> None:
        self.resigned.set()

    async def follow(self) -> None:
        await asyncio.Event().wait()


class Requests:
    """Requests to an instance, and which of them still run."""

    def __init__(self, forwarder: Forwarder) -> None:
        self._forwarder = forwarder
        self.begun: asyncio.Queue[asyncio.Event] = asyncio.Queue()
        self.tasks: list[asyncio.Task[None]] = []

    async def begin(self) -> asyncio.Event:
        """Send one; it ends when the event is set."""
        scope: Scope = {"type": "http", "headers": []}
        task = asyncio.create_task(self._forwarder(self._serve, scope, _unused, _unused))
        self.tasks.append(task)
        return await self.begun.get()

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        may_end = asyncio.Event()
        self.begun.put_nowait(may_end)
        await may_end.wait()


async def _unused(*_: object) -> Any:  # noqa: ANN401 - of two types
    raise AssertionError


async def test_requests_are_served_until_those_before_the_signal_have_ended() -> None:
    election, app = Election(), SimpleNamespace(state=SimpleNamespace(service=None))
    forwarder = Forwarder(election, ForwardedClient(b"secret"), keep_alive=2.0, longest_wait=180.0)  # type: ignore[arg-type]
    settings = SimpleNamespace(shutdown_delay_seconds=0.0, shutdown_seconds=180.0)
    handover = Handover(app, settings, election, forwarder)  # type: ignore[arg-type]
    requests = Requests(forwarder)
    long_one = await requests.begin()
    stopping = asyncio.create_task(handover.hand_over())

    async def is_ready() -> bool:
        return all(check.ok for check in await app.state.readiness.run())

    async def is_not_ready() -> bool:
        return not await is_ready()

    assert await is_ready()
    await eventually(is_not_ready)
    (await requests.begin()).set()
    last_one = await requests.begin()
    assert election.is_serving
    long_one.set()
    await eventually(lambda: not election.is_serving)
    assert not election.resigned.is_set()
    last_one.set()
    await stopping
    assert election.resigned.is_set()
    await asyncio.gather(*requests.tasks)
    await handover.close()


async def test_who_loses_the_leadership_while_it_stops_hands_nothing_over() -> None:
    election, app = Election(), SimpleNamespace(state=SimpleNamespace(service=None))
    forwarder = Forwarder(election, ForwardedClient(b"secret"), keep_alive=2.0, longest_wait=180.0)  # type: ignore[arg-type]
    settings = SimpleNamespace(shutdown_delay_seconds=0.0, shutdown_seconds=180.0)
    handover = Handover(app, settings, election, forwarder)  # type: ignore[arg-type]
    requests = Requests(forwarder)
    request = await requests.begin()
    stopping = asyncio.create_task(handover.hand_over())
    await asyncio.sleep(0)
    election.lost = RuntimeError()
    request.set()
    await stopping
    assert not election.resigned.is_set()
    await asyncio.gather(*requests.tasks)
    await handover.close()


async def test_late_clients_are_closed_while_an_instance_hands_over() -> None:
    looks = 0

    class Clients:
        def close_late(self) -> None:
            nonlocal looks
            looks += 1

    app = FastAPI()
    config = uvicorn.Config(app, log_config=None)
    config.load()
    server = HttpServer(config, app, Clients())  # type: ignore[arg-type]
    server.should_exit = True

    async def hand_over() -> None:
        server.server_state.default_headers = []
        before = looks
        await eventually(lambda: looks > before)

    app.state.hand_over = hand_over
    await server.main_loop()
    assert looks > 1
    assert b"date" in dict(server.server_state.default_headers)
