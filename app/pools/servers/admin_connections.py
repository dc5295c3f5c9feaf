"""The service's own connections to one server: provisioning, checks, repairs.

There are few, and the budget is reduced by them. The connection to the server's own database stays
open for a short time: a login costs more than most of its uses, and in a batch the next user is
already waiting.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import asyncpg

from app.domain.errors import ConnectFailed, ServerUnavailable, TenantLoginFailed
from app.pools import driver
from app.pools.servers.logins import NOT_ACTIVE
from app.wire import LIFT_TRANSACTION_TIMEOUT, NO_TIMEOUTS, Login

ADMIN_CONNECTIONS = 4
"""One in the server's own database, one elsewhere, one for checks, one kept open (see `open`)."""

_ACQUIRE_DEADLINE = 10.0
# Longer than between two looks at a server that is in use; see `app.runtime.background_tasks`.
_KEPT_SECONDS = 3.0

# Objects that others created must not hide ours, and a database must not decide who we are or how
# literals are read. A tenant's open transaction must not block the admin connection for the others.
_SETTINGS = {
    **NO_TIMEOUTS,
    "search_path": "pg_catalog, pg_temp",
    "role": "none",
    "lock_timeout": "3s",
    "standard_conforming_strings": "on",
}


class AdminConnections:
    """At most one connection in the server's own database, and one elsewhere or as another role.

    So two provisionings never run in the same database at once.

    Attributes:
        login: the login to the server's own database.
    """

    def __init__(
        self,
        login: Login,
        *,
        connect: Callable[[Login], Awaitable[asyncpg.Connection]],
        may_connect: Callable[[], bool],
        answer_timeout: float,
    ) -> None:
        """Use *login*.

        Args:
            login: the login to the server's own database.
            connect: opens a connection.
            may_connect: whether this process may use the server now.
            answer_timeout: seconds within which an open connection must answer.
        """
        self.login = login
        self._connect = connect
        self._may_connect = may_connect
        self._answer_timeout = answer_timeout
        self._own, self._elsewhere = asyncio.Lock(), asyncio.Lock()
        self._kept: asyncpg.Connection | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._closing: asyncio.Task[None] | None = None
        self._is_outdated = self._closed = False

    @asynccontextmanager
    async def use(self, into: str | Login | None = None) -> AsyncIterator[asyncpg.Connection]:
        """Use the connection to the server's own database, or one to *into*.

        Raises:
            ServerUnavailable: the server cannot be reached, or the connection stayed busy.
        """
        slot = self._own if into is None else self._elsewhere
        try:
            async with asyncio.timeout(_ACQUIRE_DEADLINE):
                await slot.acquire()
        except TimeoutError as error:
            raise ServerUnavailable("All admin connections stayed busy.") from error
        try:
            connection = await (self._take() if into is None else self.open(into))
            is_reusable = False
            try:
                with driver.translate_admin_errors():
                    yield connection
                is_reusable = into is None and not connection.is_in_transaction()
            finally:
                if is_reusable and not self._is_outdated and not self._closed:
                    self._keep(connection)
                else:
                    await driver.close(connection)
        finally:
            slot.release()

    async def open(self, into: str | Login | None = None) -> asyncpg.Connection:
        """Open a connection to the database *into*, or with that login; the caller closes it."""
        if isinstance(into, Login):
            return await self._connect(into)
        login = self.login if into is None else self.login.for_database(into)
        settings = {**login.settings, **_SETTINGS}
        try:
            return await self._connect(replace(login, settings=settings, direct=True))
        except TenantLoginFailed as error:
            raise ServerUnavailable(f"The admin login was refused: {error.detail}") from error

    def renew(self) -> None:
        """Stop reusing the present connections, whose sessions keep the defaults of their login."""
        self._is_outdated = True

    async def close(self) -> None:
        """Close the kept connection, and keep no other."""
        self._closed = True
        if self._closing is not None:
            self._closing.cancel()
            await asyncio.gather(self._closing, return_exceptions=True)
        await self._close_kept()

    def _keep(self, connection: asyncpg.Connection) -> None:
        self._kept = connection
        self._expiry = asyncio.get_running_loop().call_later(_KEPT_SECONDS, self._expire)

    async def _take(self) -> asyncpg.Connection:
        """Take the kept connection, as if it were new, or open another."""
        if self._is_outdated:
            await self._close_kept()
            self._is_outdated = False
        kept = self._pop_kept()
        if kept is None:
            return await self.open()
        is_ready = False
        try:
            if not self._may_connect():
                raise ConnectFailed(NOT_ACTIVE)
            async with asyncio.timeout(self._answer_timeout):
                await kept.execute(f"{kept.get_reset_query()}\n{LIFT_TRANSACTION_TIMEOUT}")
            is_ready = True
        except TimeoutError as error:
            raise ServerUnavailable("The server does not answer.") from error
        except (*driver.CONNECTION_ERRORS, asyncpg.PostgresError):
            pass  # the connection ended in the meantime
        finally:
            if not is_ready:
                kept.terminate()
        return kept if is_ready else await self.open()

    def _pop_kept(self) -> asyncpg.Connection | None:
        kept, self._kept = self._kept, None
        if self._expiry is not None:
            self._expiry.cancel()
        return kept

    def _expire(self) -> None:
        self._closing = asyncio.create_task(self._close_idle(), name="close an admin connection")

    async def _close_idle(self) -> None:
        async with self._own:  # the next user waits until it is gone
            await self._close_kept()

    async def _close_kept(self) -> None:
        kept = self._pop_kept()
        if kept is not None:
            await driver.close(kept)
