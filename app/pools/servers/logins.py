"""Logins to one server, and those that timed out but that it may still work on.

While a login waits for a lock, for example while a database is copied, Postgres does not notice
that its client has gone. Hanging up would leave a back-end that nobody can see or terminate, and
each new attempt would add another. So such a login is kept: it counts against the budget until it
is over, and each role has only a few at a time in one database.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import asyncpg

from app.domain.errors import ConnectFailed, ServerUnavailable
from app.pools import driver
from app.wire import Login, abandon

# How long a login is kept, in seconds: by then, connections that a network drops silently are over.
# The time doubles after each one that was not over, up to the limit.
_PATIENCE = 30.0
_MOST_PATIENCE = 600.0
_CLOSE_DEADLINE = 2.0
# The most logins of one role into one database that timed out but are not over yet. The admin's
# attempts run one at a time, and the task that ends unanswered connections must not wait for them.
MAX_STALLED, MAX_STALLED_OF_ADMIN = 2, 6
NOT_ACTIVE = (
    "This instance does not know whether it is still the active one: the catalog has not answered."
)

Key = tuple[str, str]
"""A role and a database."""


class Logins:
    """Logins to one server.

    Attributes:
        timeout: seconds that one may take.
    """

    def __init__(
        self, changed: Callable[[], None], *, timeout: float, may_connect: Callable[[], bool]
    ) -> None:
        """Log in as long as this process *may_connect*.

        Call *changed* whenever the number of stalled logins has changed.
        """
        self._changed = changed
        self.timeout = timeout
        self._may_connect = may_connect
        self._tasks: dict[asyncio.Task[None], Key] = {}
        self._hopeless: Counter[Key] = Counter()
        # Logins that are not late yet, but may become so.
        self._under_way: Counter[Key] = Counter()

    @property
    def stalled(self) -> int:
        """Number of logins that timed out and are not over yet."""
        return len(self._tasks)

    async def connect(self, login: Login, *, most: int) -> asyncpg.Connection:
        """Open a connection, once fewer than *most* logins are stalled.

        If a login is stalled, those under way count as well.

        Raises:
            ConnectFailed: *most* logins are still stalled after the timeout, this machine cannot
                connect, or this process may not.
            Unavailable: see `driver.connect`.
        """
        if not self._may_connect():
            raise ConnectFailed(NOT_ACTIVE)
        # A process that was stopped in the middle of a login must not complete it when it wakes up.
        login = replace(login, may_go_on=self._may_connect)
        try:
            connection = await self._connect(login, most)
        except ServerUnavailable as error:
            if not self._may_connect():
                raise ConnectFailed(NOT_ACTIVE) from error
            raise
        if not self._may_connect():
            await driver.close(connection)
            raise ConnectFailed(NOT_ACTIVE)
        return connection

    async def _connect(self, login: Login, most: int) -> asyncpg.Connection:
        key = login.user, login.database
        if self._tasks:
            await self._until_fewer(most, key)

        def leave(attempt: asyncio.Task[asyncpg.Connection]) -> None:
            self._keep(attempt, key)

        self._under_way[key] += 1
        try:
            connection = await driver.connect(login, timeout=self.timeout, leave=leave)
        finally:
            self._under_way[key] -= 1
            if not self._under_way[key]:
                del self._under_way[key]
        del self._hopeless[key]
        return connection

    async def _until_fewer(self, most: int, key: Key) -> None:
        late: list[asyncio.Task[None]] = []
        try:
            async with asyncio.timeout(self.timeout):
                while late := [one for one, of in self._tasks.items() if of == key]:
                    if len(late) + self._under_way[key] < most:
                        return
                    await asyncio.wait(late, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError as error:
            raise ConnectFailed(
                f"Postgres did not answer the login, or did not finish it: {len(late)} earlier "
                "ones are still under way. The server may stand still, or the database may be "
                "locked, for example during a copy."
            ) from error

    async def close(self) -> None:
        """Hang up on all of them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _keep(self, attempt: asyncio.Task[asyncpg.Connection], key: Key) -> None:
        patience = min(_PATIENCE * 2 ** self._hopeless[key], _MOST_PATIENCE)
        task = asyncio.create_task(self._end(attempt, key, patience), name="end a late login")
        self._tasks[task] = key

        def ended(task: asyncio.Task[None]) -> None:
            abandon(attempt)
            del self._tasks[task]
            self._changed()

        task.add_done_callback(ended)
        self._changed()

    async def _end(
        self, attempt: asyncio.Task[asyncpg.Connection], key: Key, patience: float
    ) -> None:
        await asyncio.wait({attempt}, timeout=patience)
        if not attempt.done():
            self._hopeless[key] += 1
        elif not attempt.cancelled() and attempt.exception() is None:
            with suppress(*driver.CONNECTION_ERRORS):
                await attempt.result().close(timeout=_CLOSE_DEADLINE)
