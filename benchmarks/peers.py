"""The peers as their own documentation says to use them, on the same server."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import asyncpg
from psycopg_pool import AsyncConnectionPool

from app.pools.connection import PooledConnection
from app.pools.pool import Pool
from app.pools.tenant_state import TenantState
from benchmarks.testbed import CONNECTIONS, Testbed

Borrow = Callable[[], AbstractAsyncContextManager[Any]]


@asynccontextmanager
async def asyncpg_pool(
    ground: Testbed, *, reset: Callable[[Any], Awaitable[None]] | None = None
) -> AsyncIterator[asyncpg.Pool]:
    """Asyncpg's pool with its defaults, of our size; with *reset*, without its own one."""
    more: dict[str, Any] = {} if reset is None else {"reset": reset}
    async with asyncpg.create_pool(
        **ground.dsn,
        database=ground.address.tenant_database,
        passfile=os.devnull,
        min_size=CONNECTIONS,
        max_size=CONNECTIONS,
        **more,
    ) as pool:
        yield pool


@asynccontextmanager
async def psycopg_pool(ground: Testbed) -> AsyncIterator[AsyncConnectionPool]:
    """Psycopg's pool with its defaults, of our size."""
    pool = AsyncConnectionPool(
        kwargs={**ground.dsn, "dbname": ground.address.tenant_database},
        min_size=CONNECTIONS,
        max_size=CONNECTIONS,
        open=False,
    )
    async with pool:
        await pool.wait(timeout=30)
        yield pool


async def nothing(_: object) -> None:
    """The reset that resets nothing."""
    await asyncio.sleep(0)


class Ours:
    """Our pool's own acquire and release, as the context manager the peers have."""

    __slots__ = ("_account", "_connection", "_pool")

    def __init__(self, pool: Pool, account: TenantState) -> None:
        """Borrow from *pool* for *account*."""
        self._pool = pool
        self._account = account

    async def __aenter__(self) -> PooledConnection:
        """Acquire."""
        self._connection = await self._pool.acquire(self._account, 30.0)
        return self._connection

    async def __aexit__(self, *_: object) -> None:
        """Release."""
        self._pool.release(self._connection, reusable=True)


def ours(pool: Pool, account: TenantState) -> Borrow:
    """What makes such a context manager for each borrower."""
    return lambda: Ours(pool, account)
