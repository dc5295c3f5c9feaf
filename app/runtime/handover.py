"""The handover between instances: one stands by, takes over, and hands over when it stops."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import structlog
from fastapi import FastAPI

from app.api.forwarding.forwarder import Forwarder
from app.api.views.readiness import StandbyReadiness
from app.control.leadership.election import Election
from app.domain.leadership import Takeover
from app.settings import Settings

# Everything that a task awaits has a deadline, but a library may lose a cancellation.
_END_DEADLINE = 10.0
# In seconds: the part of the time for requests that those after the signal get.
_LAST_REQUESTS = 1.0

_log = structlog.get_logger(__name__)


class Handover:
    """One of several instances, from standing by to handing over."""

    def __init__(
        self, app: FastAPI, settings: Settings, election: Election, forwarder: Forwarder
    ) -> None:
        """Until it is active, *app* has a forwarder and the readiness checks of a standby."""
        self._app = app
        self._settings = settings
        self._election = election
        self._forwarder = forwarder
        self._service = AsyncExitStack()
        self._standby: asyncio.Task[None] | None = None
        self._following: asyncio.Task[None] | None = None
        app.state.forwarder, app.state.election = forwarder, election
        app.state.readiness = StandbyReadiness(election, forwarder.find_trouble)
        app.state.hand_over = self.hand_over

    async def start(
        self,
        serve: Callable[[AsyncExitStack, Takeover], Awaitable[None]],
        on_standby_ended: Callable[[asyncio.Task[None]], None],
    ) -> None:
        """Become active now if no other instance is, else when that one ends.

        *serve* starts the service, and registers its end with a stack. *on_standby_ended* is called
        once this instance no longer stands by, for whatever reason.

        Raises:
            CatalogUnavailable, CatalogInUse, CatalogUnusable: it can neither serve nor stand by.
        """
        takeover = await self._election.contend()
        if takeover is not None:
            await serve(self._service, takeover)
            return
        _log.info("standing by", reason=self._election.active_instance)

        async def stand_by() -> None:
            await serve(self._service, await self._election.wait_to_win())

        self._standby = asyncio.create_task(stand_by(), name="standby")
        self._standby.add_done_callback(on_standby_ended)

    async def hand_over(self) -> None:
        """Let another instance take over, if there is one, and forward to it for a while.

        During that time this one is not ready, so that proxies send requests elsewhere. Requests in
        progress end first. While those from before the signal are running, new ones are still
        served. After that, new requests are held until the other instance is active, so they never
        wait for a long request.
        """
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + self._settings.shutdown_delay_seconds
        requests_end_at = loop.time() + self._settings.shutdown_seconds
        await _end(self._standby)
        election = self._election
        if election.lost is not None or not await election.has_others():
            return
        _log.info("handing over")
        self._app.state.readiness = StandbyReadiness(
            election, self._forwarder.find_trouble, is_stopping=True
        )
        if self._app.state.service is not None:
            self._app.state.service.end_streams()
        await self._forwarder.drain(requests_end_at - _LAST_REQUESTS - loop.time())
        if election.lost is not None:
            return
        election.begin_stopping()
        await self._forwarder.drain(requests_end_at - loop.time())
        await self._service.aclose()
        await election.resign()
        self._following = asyncio.create_task(election.follow(), name="follow")
        await asyncio.sleep(ends_at - loop.time())

    async def close(self) -> None:
        """Stop the service, if it runs here, and stop standing by."""
        await _end(self._standby)
        await _end(self._following)
        await self._service.aclose()
        self._forwarder.close()


async def _end(task: asyncio.Task[None] | None) -> None:
    if task is None:
        return
    task.cancel()
    _, unfinished = await asyncio.wait({task}, timeout=_END_DEADLINE)
    if unfinished:
        _log.error("task did not end", task=task.get_name())
