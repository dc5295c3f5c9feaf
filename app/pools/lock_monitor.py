"""Reads a server's lock table and signals back-ends, over a connection that stays open.

When the table is full, a new connection is refused, because a login takes a lock itself. Reading a
catalog shared by all databases, such as that of roles, takes a lock too; so roles are looked up
while there is room. `app.domain.lock_table` decides which back-ends to signal.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg
from asyncpg.prepared_stmt import PreparedStatement

from app.domain.errors import ServerUnavailable
from app.domain.lock_table import BackendKey, BackendSignal, LockHolder, LockTable
from app.domain.tenant import OBJECT_PREFIX
from app.pools import driver
from app.pools.isolation.shared import SHARED_ROLE
from app.pools.servers.server import Server

# Long, because no other connection can be opened while the table is full.
_DEADLINE = 10.0

# As Postgres computes it (NLOCKENTS in lock.c, InitializeMaxBackends in postinit.c). From 18 on
# there is a slot for each autovacuum worker that a reload may add.
_CAPACITY = """
select per_session, per_session * (current_setting('max_connections')::int
    + coalesce(current_setting('autovacuum_worker_slots', true),
               current_setting('autovacuum_max_workers'))::int + 1
    + current_setting('max_worker_processes')::int
    + current_setting('max_wal_senders')::int
    + current_setting('max_prepared_transactions')::int) as capacity
from (select current_setting('max_locks_per_transaction')::int as per_session) as setting
"""
# Fast-path locks are not in the table, and serializable transactions have another table.
_IN_TABLE = "not fastpath and mode <> 'SIReadLock'"
# Names that others chose may be in any encoding. Looking up roles also fills the session's cache,
# so that no lock is needed to signal one of their back-ends.
_COUNT = f"""
select holds, case when holds <= $1 then (
    select json_object_agg(usesysid, pg_get_userbyid(usesysid))
    from (select distinct usesysid from pg_stat_get_activity(null)) as session
    where pg_get_userbyid(usesysid) ~ '^({OBJECT_PREFIX}[a-z0-9-]+|{SHARED_ROLE})$'
) end as roles
from (select count(*) as holds from pg_locks where {_IN_TABLE}) as held
"""  # noqa: S608 - constants
# Counting shared locks only once takes long; it is not needed if a single session has too many.
_HOLDERS = f"""
with holder as materialized (
    select pid, count(*) as locks from pg_locks where {_IN_TABLE} and granted
    group by pid having count(*) > $1
), total as (
    select case when largest > $2 then largest else (
        select count(*) from (
            select distinct locktype, database, relation, page, tuple, virtualxid, transactionid,
                classid, objid, objsubid
            from pg_locks where {_IN_TABLE}
        ) as lock
    ) end as locks
    from (select max(locks) as largest from holder) as one
)
select total.locks as used, pid, holder.locks, backend_start, usesysid,
    coalesce(state, 'active') not like 'idle%' as is_active
from total left join (holder join pg_stat_get_activity(null) using (pid)) on true
"""  # noqa: S608 - a constant
# The start is compared, for the process id may be another session's by now.
_CANCEL = """
select pg_cancel_backend(pid) from pg_stat_get_activity($1)
where backend_start = $2 and coalesce(state, 'active') not like 'idle%'
"""
_TERMINATE = """
select pg_terminate_backend(pid) from pg_stat_get_activity($1) where backend_start = $2
"""

FindOwner = Callable[[int, str | None], tuple[str, str] | None]
"""Finds the role and the owner of a back-end, from its process id and its role if that is known.

It returns None if the back-end is no tenant's.
"""


class LockMonitor:
    """A server's lock table; the first reading opens the connection."""

    def __init__(self, server: Server, find_owner: FindOwner) -> None:
        self._server = server
        self._find_owner = find_owner
        self._roles: dict[int, str] = {}
        self._session: _Session | None = None

    async def read(self, limit: float) -> LockTable:
        """Read how full the table is and, if it is fuller than *limit*, who holds its locks.

        Raises:
            ServerUnavailable: the server did not answer in time.
            ProvisioningFailed: Postgres refused.
        """
        with driver.translate_admin_errors():
            session = await self._opened()
            async with self._deadline():
                enough = int(limit * session.capacity)
                holds, roles = await session.count.fetchrow(enough) or (0, None)
                if holds <= enough:
                    self._roles = {
                        int(key): name for key, name in json.loads(roles or "{}").items()
                    }
                    return LockTable(capacity=session.capacity, used=holds)
                rows = await session.holders.fetch(session.fair_share, enough)
        # Sessions that share a lock need one entry each in a second table, which is twice as large.
        used = max(rows[0]["used"], holds / 2)
        found = (self._holder(row) for row in rows if row["pid"] is not None)
        holders = tuple(holder for holder in found if holder is not None)
        return LockTable(capacity=session.capacity, used=used, holders=holders)

    def _holder(self, row: asyncpg.Record) -> LockHolder | None:
        owner = self._find_owner(row["pid"], self._roles.get(row["usesysid"]))
        if owner is None:
            return None
        return LockHolder(
            backend=(row["pid"], row["backend_start"]),
            role=owner[0],
            owner=owner[1],
            locks=row["locks"],
            is_active=row["is_active"],
        )

    async def send(self, backend: BackendKey, signal: BackendSignal) -> bool:
        """Cancel the statement of *backend* or terminate it; False if it was already gone.

        Raises:
            ServerUnavailable: it did not answer in time.
            ProvisioningFailed: Postgres refuses, or has no room to check our rights.
        """
        with driver.translate_admin_errors():
            session = await self._opened()
            async with self._deadline():
                return bool(await session.signals[signal].fetchval(*backend))

    def close(self) -> None:
        """Close the connection; the next reading opens another."""
        session, self._session = self._session, None
        if session is not None:
            session.connection.terminate()

    @asynccontextmanager
    async def _deadline(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(_DEADLINE):
                yield
        except TimeoutError:
            self.close()
            raise

    async def _opened(self) -> _Session:
        if self._session is None or self._session.connection.is_closed():
            if not self._server.is_available:
                raise ServerUnavailable(self._server.unavailable_detail)
            connection = await self._server.admins.open()
            try:
                async with asyncio.timeout(_DEADLINE):
                    self._session = await _Session.prepared(connection)
            finally:
                if self._session is None or self._session.connection is not connection:
                    connection.terminate()
        return self._session


@dataclass(frozen=True, slots=True, kw_only=True)
class _Session:
    """The connection and its prepared statements: preparing them later would take locks.

    Attributes:
        fair_share: one session's part of the table: max_locks_per_transaction.
        capacity: locks in the whole table.
    """

    connection: asyncpg.Connection
    fair_share: int
    capacity: int
    count: PreparedStatement[asyncpg.Record]
    holders: PreparedStatement[asyncpg.Record]
    signals: Mapping[BackendSignal, PreparedStatement[asyncpg.Record]]

    @classmethod
    async def prepared(cls, connection: asyncpg.Connection) -> _Session:
        # Count a hundred thousand locks in memory: the disk may be full or slow.
        await connection.execute("SET work_mem = '64MB'")
        [(fair_share, capacity)] = await connection.fetch(_CAPACITY)
        session = cls(
            connection=connection,
            fair_share=fair_share,
            capacity=capacity,
            count=await connection.prepare(_COUNT),
            holders=await connection.prepare(_HOLDERS),
            signals={
                BackendSignal.CANCEL_STATEMENT: await connection.prepare(_CANCEL),
                BackendSignal.TERMINATE_CONNECTION: await connection.prepare(_TERMINATE),
            },
        )
        # The first run of a statement also fills caches.
        await session.holders.fetch(fair_share, capacity)
        return session
