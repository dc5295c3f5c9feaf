"""Leadership: one service per catalog, by an advisory lock that a second service does not get.

Until several services can share one connection budget, two of them would promise the same
connections twice. The lock belongs to one connection and falls with it; its holder calls
`check` regularly. What follows from losing it is decided elsewhere.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import asyncpg

from app import wire
from app.catalog.database import LOCK_CLASS, CatalogAddress, translate_outages
from app.domain.errors import CatalogInUse, CatalogUnavailable

_LEADERSHIP_LOCK = 2
_PAUSE_BETWEEN_TRIES = 0.25

_TRY = "SELECT pg_try_advisory_lock($1, $2)"
_HOLDER = """
SELECT pid, application_name
FROM pg_locks LEFT JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND granted AND (classid, objid, objsubid) = ($1, $2, 2)
  AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


class Leadership:
    """The lock that makes this service the only one on its catalog."""

    def __init__(self, address: CatalogAddress, *, deadline: float = 3.0) -> None:
        """Each exchange with the catalog may take *deadline* seconds."""
        self._address = address
        self._deadline = deadline
        self._connection: asyncpg.Connection | None = None
        # The back-end that last held the lock: it may outlive its connection for a while.
        self._backend: int | None = None

    def __repr__(self) -> str:
        return f"<Leadership {'holding' if self.is_held else 'not holding'}>"

    @property
    def is_held(self) -> bool:
        """Whether the lock is held, as far as is known without a query."""
        return self._connection is not None and not self._connection.is_closed()

    async def acquire(self, *, patience: float = 5.0) -> None:
        """Take the lock, trying for *patience* seconds: a killed predecessor may linger that long.

        Raises:
            CatalogInUse: another service holds it.
            CatalogUnavailable: the catalog was not reached.
        """
        give_up_at = asyncio.get_running_loop().time() + patience
        while True:
            try:
                await self._acquire_now()
            except CatalogInUse:
                if asyncio.get_running_loop().time() >= give_up_at:
                    raise
                await asyncio.sleep(_PAUSE_BETWEEN_TRIES)
            else:
                return

    async def check(self) -> None:
        """Make sure that the lock is still held; after an outage take it again.

        Raises:
            CatalogInUse: another service took it meanwhile: this one has to end.
            CatalogUnavailable: nothing can be said now.
        """
        if self._connection is not None and not self._connection.is_closed():
            try:
                with translate_outages():
                    await self._connection.execute("SELECT", timeout=self._deadline)
            except CatalogUnavailable:
                self._drop()
            else:
                return
        await self._acquire_now()

    async def release(self) -> None:
        """Release the lock. Safe at any time and twice."""
        connection, self._connection = self._connection, None
        if connection is not None:
            # On any error asyncpg has cut the connection, and the lock falls with it.
            with suppress(OSError, asyncpg.PostgresError):
                await connection.close(timeout=self._deadline)

    async def _acquire_now(self) -> None:
        self._drop()
        with translate_outages():
            async with asyncio.timeout(self._deadline), self._connected() as connection:
                holder = None
                while holder is None:  # it may be released between the two queries
                    if await connection.fetchval(_TRY, LOCK_CLASS, _LEADERSHIP_LOCK):
                        self._connection, self._backend = connection, connection.get_server_pid()
                        return
                    holder = await connection.fetchrow(_HOLDER, LOCK_CLASS, _LEADERSHIP_LOCK)
        if holder["pid"] == self._backend:
            raise CatalogUnavailable("The catalog still waits for the connection that we lost.")
        name = holder["application_name"] or "another service"
        raise CatalogInUse(f"The catalog is in use by {name} (back-end {holder['pid']}).")

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[asyncpg.Connection]:
        """Connect for a block; the connection stays open if the block kept it."""
        name = f"poolkeeper on {socket.gethostname()}, process {os.getpid()}"
        connection = await wire.connect_directly(
            **self._address.connect_arguments(timeout=self._deadline, application_name=name)
        )
        try:
            yield connection
        finally:
            if connection is not self._connection:
                connection.terminate()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()
