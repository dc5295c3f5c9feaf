"""Leadership in the catalog: an advisory lock, the record of its holder, and the instances.

The lock belongs to one connection and is released when it ends. The record has the holder, the
epoch and the last renewal. Other packages decide what follows from them.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import asyncpg

from app import wire
from app.catalog.database import LOCK_CLASS, CatalogAddress, translate_outages
from app.catalog.database_requirements import ends_connection
from app.domain.errors import CatalogInUse, CatalogUnavailable, CatalogUnusable, LeadershipLost
from app.domain.leadership import Instance, LeadershipRecord, Takeover, client_name

_LEADERSHIP_LOCK = 2

_TRY = "SELECT pg_try_advisory_lock($1, $2)"
_HOLDER = """
SELECT pid, application_name
FROM pg_locks LEFT JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND granted AND (classid, objid, objsubid) = ($1, $2, 2)
  AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
# The column `keys` is newer than the table, and this is read before the schema is migrated.
_READ = """
SELECT epoch, holder, leadership.url, released, renewed_at::text AS renewal, secret_key, servers,
       to_jsonb(instances) ->> 'keys' AS keys,
       (SELECT min(version_num) FROM alembic_version) AS schema,
       extract(epoch FROM clock_timestamp() - renewed_at)::float8 AS age
FROM leadership LEFT JOIN instances ON id = holder
"""
# After a restore the row has an old epoch: at a second each, time has passed all of those since.
_BEGIN_EPOCH = """
UPDATE leadership SET epoch = greatest(
        epoch + 1, extract(epoch FROM clock_timestamp() - timestamptz '2026-01-01 00:00Z')::bigint
    ), holder = $1, url = $2, released = false,
    acquired_at = clock_timestamp(), renewed_at = clock_timestamp()
RETURNING epoch
"""
_RENEW = """
UPDATE leadership SET renewed_at = clock_timestamp() WHERE (epoch, holder) = ($1, $2)
RETURNING true
"""
# Hosters make a server read-only while its disk is full. A renewal replaces one row in its place.
_TAKE_WRITES = "SET default_transaction_read_only = off"
_RELEASE = "UPDATE leadership SET released = true WHERE (epoch, holder) = ($1, $2)"
_REGISTER = """
INSERT INTO instances (id, url, version, secret_key, servers) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (id) DO UPDATE SET seen_at = clock_timestamp()
"""
_SET_KEYS = "UPDATE instances SET keys = $2 WHERE id = $1"
_DEREGISTER = "DELETE FROM instances WHERE id = $1"
_COUNT_FAILOVERS = """
UPDATE leadership SET failovers = failovers + $1 WHERE (epoch, holder) = ($2, $3)
RETURNING failovers
"""
_OTHERS = """
SELECT id, url, version, secret_key, servers FROM instances
WHERE id <> $1 AND seen_at > clock_timestamp() - make_interval(secs => $2)
"""
# Measured by one clock, however the machines' clocks differ: a crashed instance was not seen since.
_HAS_NAMESAKE = """
SELECT EXISTS (
    SELECT FROM instances AS own JOIN instances AS older USING (url)
    WHERE own.id = $1 AND older.started_at < own.started_at AND older.seen_at > own.started_at
)
"""
_FORGET = "DELETE FROM instances WHERE seen_at < now() - interval '1 day'"
_END = """
SELECT coalesce(bool_and(pg_terminate_backend(pid, 1000)), true) FROM pg_stat_activity
WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()
  AND starts_with(application_name, $1)
"""


class Leadership:
    """One instance's access to leadership. Every method may raise CatalogUnavailable.

    Attributes:
        epoch: the epoch that this instance started; None before that.
        disconnected: set while the connection is lost.
    """

    def __init__(
        self, address: CatalogAddress, instance: Instance, *, deadline: float = 3.0
    ) -> None:
        """Each exchange with the catalog may take *deadline* seconds."""
        self.epoch: int | None = None
        self.disconnected = asyncio.Event()
        self._address = replace(address, client=client_name(instance.id))
        self._instance = instance
        self._deadline = deadline
        self._connection: asyncpg.Connection | None = None
        self._has_lock = False
        # The last connection that could use the tables.
        self._proven: asyncpg.Connection | None = None
        self._registered_keys: str | None = None
        # Renewals and other queries take turns on the connection.
        self._turn = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<Leadership {'holding' if self.is_held else 'not holding'}>"

    @property
    def is_held(self) -> bool:
        """Whether the lock is held, as far as known without a query."""
        return self._has_lock and self._connection is not None and not self._connection.is_closed()

    async def try_lock(self) -> bool:
        """Take the lock if it is free; return whether this instance has it."""
        async with self._exchange() as connection:
            return await self._try_lock(connection)

    async def lock(self) -> None:
        """Take the lock.

        Raises:
            CatalogInUse: another instance has it.
        """
        async with self._exchange() as connection:
            while not await self._try_lock(connection):
                holder = await connection.fetchrow(_HOLDER, LOCK_CLASS, _LEADERSHIP_LOCK)
                if holder is None:  # it was released between the two queries
                    continue
                name = holder["application_name"] or "another service"
                if not name.startswith(self._address.client):
                    raise CatalogInUse(
                        f"The catalog is in use by {name} (back-end {holder['pid']}). Stop that"
                        " one, or give both a POOLKEEPER_ADVERTISE_URL, so that one stands by."
                    )
                # It is our own, of a connection that broke without the server noticing.
                await connection.execute("SELECT pg_terminate_backend($1, 1000)", holder["pid"])

    async def read(self) -> LeadershipRecord | None:
        """Read the record; None in an older catalog, or in one that never was ours to read."""
        async with self._exchange() as connection:
            try:
                row = await connection.fetchrow(_READ)
            except asyncpg.SyntaxOrAccessError:
                if self._proven is not None:
                    raise
                return None  # the migration says what is wrong
            self._proven = connection
        return _record(row)

    async def register(self, keys: str = "") -> None:
        """Record that this instance is running; *keys* is the present fingerprint of its API keys.

        If somebody locks the table, the leadership lock stays held.
        """
        async with self._exchange() as connection:
            try:
                async with connection.transaction():
                    await self._register(connection, keys)
            except asyncpg.SyntaxOrAccessError:  # this is so until the first migration
                return
        self._registered_keys = keys

    async def _register(self, connection: asyncpg.Connection, keys: str) -> None:
        instance = self._instance
        # Before the deadline of the exchange, which would close the connection and release the
        # lock.
        patience = f"SET LOCAL statement_timeout = {round(self._deadline * 1000 / 3)}"
        await connection.execute(patience)
        await connection.execute(
            _REGISTER,
            *(instance.id, instance.url, instance.version),
            *(instance.secret_key, instance.servers),
        )
        if keys != self._registered_keys:
            await connection.execute(_SET_KEYS, instance.id, keys)

    async def others(self, *, within: float) -> tuple[Instance, ...]:
        """Other instances that were seen within the last *within* seconds."""
        async with self._exchange() as connection:
            try:
                rows = await connection.fetch(_OTHERS, self._instance.id, within)
            except asyncpg.SyntaxOrAccessError:  # before the first migration
                return ()
        return tuple(Instance(**dict(row)) for row in rows)

    async def has_namesake(self) -> bool:
        """Whether another running instance with this one's URL started before it."""
        async with self._exchange() as connection:
            try:
                return bool(await connection.fetchval(_HAS_NAMESAKE, self._instance.id))
            except asyncpg.SyntaxOrAccessError:  # before the first migration
                return False

    async def count_failovers(self, new: int) -> int:
        """Add *new* failovers to the count, and return it.

        Raises:
            LeadershipLost: another instance has become active.
        """
        async with self._exchange() as connection:
            failovers: int | None = await connection.fetchval(
                _COUNT_FAILOVERS, new, self.epoch, self._instance.id
            )
        if failovers is None:
            raise LeadershipLost
        return failovers

    async def end_connections(self, holder: str) -> None:
        """Terminate all connections of an instance to the catalog, with their transactions."""
        async with self._exchange() as connection:
            while not await connection.fetchval(_END, client_name(holder)):
                pass

    async def begin_epoch(self) -> Takeover | None:
        """Start the next epoch once writes of the previous one have ended; this needs the lock.

        Returns None in an older catalog.

        Raises:
            CatalogUnavailable: the lock was lost in the meantime, with its connection.
        """
        record = await self.read()
        if record is None:
            return None
        self._check_lock()
        if record.is_held and record.holder is not None:
            await self.end_connections(record.holder)
        async with self._exchange() as connection, connection.transaction():
            self._check_lock()
            record = _record(await connection.fetchrow(f"{_READ} FOR UPDATE OF leadership"))
            epoch: int = await connection.fetchval(
                _BEGIN_EPOCH, self._instance.id, self._instance.url
            )
            await connection.execute(_FORGET)
        self.epoch = epoch
        return Takeover(
            epoch=epoch,
            predecessor=record.holder if record.is_held else None,
            trust_left=record.trust_left,
            is_failover=record.has_failed,
        )

    async def renew(self) -> None:
        """Renew the record; after an outage, take the lock again first.

        It succeeds even while `default_transaction_read_only` is on: no other instance could begin
        an epoch then, and without renewals nobody could open connections to servers.

        Raises:
            CatalogInUse: another instance has become active.
        """
        if not self.is_held:
            await self.lock()
        async with self._exchange() as connection:
            try:
                is_ours = await connection.fetchval(_RENEW, self.epoch, self._instance.id)
            except asyncpg.ReadOnlySQLTransactionError:
                await connection.execute(_TAKE_WRITES)
                is_ours = await connection.fetchval(_RENEW, self.epoch, self._instance.id)
            self._proven = connection
        if not is_ours:
            raise CatalogInUse("Another instance has taken over this catalog.")

    async def release(self, *, in_order: bool = True) -> None:
        """End the epoch, if one was started, and release the lock. Safe at any time, even twice.

        Unless it ends *in_order*, the successor cleans up as after a crash.
        """
        connection, self._connection = self._connection, None
        has_lock, self._has_lock = self._has_lock, False
        epoch, self.epoch = self.epoch, None
        self._registered_keys = None
        if connection is None:
            return
        # On any error asyncpg closes the connection, which releases the lock.
        try:
            async with asyncio.timeout(self._deadline):
                if in_order and has_lock and epoch is not None:
                    await connection.execute(_RELEASE, epoch, self._instance.id)
                with suppress(asyncpg.SyntaxOrAccessError):
                    await connection.execute(_DEREGISTER, self._instance.id)
                await connection.close()
        except (
            OSError,
            asyncpg.PostgresError,
            asyncpg.InterfaceError,
            asyncpg.InternalClientError,
        ):
            connection.terminate()

    def _check_lock(self) -> None:
        if not self._has_lock:
            raise CatalogUnavailable

    async def _try_lock(self, connection: asyncpg.Connection) -> bool:
        if not self._has_lock:
            self._has_lock = await connection.fetchval(_TRY, LOCK_CLASS, _LEADERSHIP_LOCK)
        return self._has_lock

    @asynccontextmanager
    async def _exchange(self) -> AsyncIterator[asyncpg.Connection]:
        """Use the connection for a block with one deadline; after an outage, open another.

        If Postgres only refuses the statement, the connection stays, and its lock: others would be
        refused, too. One that never could use the tables may have the wrong search_path for ever.
        """
        try:
            with translate_outages():
                async with asyncio.timeout(self._deadline), self._turn:
                    yield await self._connected()
        except CatalogUnavailable as error:
            is_proven = self._proven is not None and self._proven is self._connection
            if is_proven and _is_refused_statement(error.__cause__):
                raise
            connection, self._connection = self._connection, None
            self._has_lock = False
            if connection is not None:
                connection.terminate()
            raise

    async def _connected(self) -> asyncpg.Connection:
        connection = self._connection
        if connection is None or connection.is_closed():
            self._has_lock = False
            name = f"{self._address.client}, process {os.getpid()} on {socket.gethostname()}"
            login, deadline = self._address.named(name), self._deadline
            connection = await wire.connect(login, timeout=deadline, command_timeout=deadline)
            self._connection = connection
            self.disconnected.clear()
            connection.add_termination_listener(lambda _: self.disconnected.set())
        return connection


def _is_refused_statement(error: BaseException | None) -> bool:
    """Whether the server is the right one: a standby may no longer be."""
    is_refused = isinstance(error, asyncpg.PostgresError) and not ends_connection(error)
    return is_refused and not isinstance(error, asyncpg.ReadOnlySQLTransactionError)


def _record(row: Any) -> LeadershipRecord:  # noqa: ANN401 - asyncpg has no types
    if row is None:
        raise CatalogUnusable("The catalog's table leadership is empty. Restore it from a backup.")
    return LeadershipRecord(**dict(row))
