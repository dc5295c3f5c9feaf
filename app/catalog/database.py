"""Access to the catalog's database: address, engine, deadlines, and what counts as an outage.

Only this file classifies errors of SQLAlchemy, asyncpg and the operating system: an outage becomes
CatalogUnavailable, and so do tables that cannot be used; every other error is a bug and propagates.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Self, TypeVar

import asyncpg
from sqlalchemy import Executable, RowMapping, Select, func, select, true
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoFreeConnection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from app import wire
from app.catalog import dialect
from app.catalog.database_requirements import (
    STATEMENT_REASONS,
    cause_of,
    is_login_error,
    login_reason,
    tables_problem,
)
from app.catalog.tables import leadership
from app.domain.errors import CatalogUnavailable, CatalogUnusable, LeadershipLost, QueryTimeout

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")

CONNECTIONS = 4

_CANCELLED = "57014"
# SQLSTATEs, or their classes, of a server that reads and does not write: it is read-only, its disk
# is full, a file cannot be written, or the role lacks the right.
_WRITES_NOTHING = ("25006", "53100", "58", "42501")
# SQLSTATEs, or their classes: connection lost, login refused, database missing, out of resources,
# server shutting down, disk failure; then deadlock, lock timeout, cancelled statement. The last is
# a write on a standby that is still addressed as the primary.
_OUTAGES = ("08", "28", "3D", "53", "55000", "57P", "58", "40P01", "55P03", _CANCELLED, "25006")
# "POOL": the class of this service's advisory locks, in its own database.
LOCK_CLASS = 0x504F4F4C

# The number of rows converted to objects between two turns of the event loop.
_ROWS = 100
# The share of the deadline for one statement of a report: it ends before the catalog counts as
# away.
_REPORT_SHARE = 0.8
_COMMITTED = "committed"
_REPORT_TIMEOUT = "The report was not ready within {:g} s: ask for a shorter period."


def fence(epoch: int) -> Select[tuple[int]]:
    """The first query of a transaction that writes: no row if another epoch has begun.

    It locks the row until the transaction ends: a takeover changes the row's key, so it waits.
    """
    found = select(leadership.c.epoch).where(leadership.c.epoch == epoch)
    return found.with_for_update(read=True, key_share=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogAddress(wire.Login):
    """Address and login of the catalog's database; *client* is the prefix of connection names."""

    primary: bool = False
    direct: bool = True
    client: str = "poolkeeper"

    def named(self, application_name: str) -> Self:
        """The same address for a connection with that name."""
        settings = {
            **wire.NO_TIMEOUTS,
            "application_name": application_name,
            # Within 25 s the server notices that this process is gone, and releases its locks.
            "tcp_keepalives_idle": "10",
            "tcp_keepalives_interval": "5",
            "tcp_keepalives_count": "3",
        }
        return replace(self, settings=settings)

    def engine(self, *, timeout: float, **options: Any) -> AsyncEngine:
        """Create an engine that neither logs nor quotes the values of statements."""
        return create_async_engine(
            f"{dialect.NAME}://",
            connect_args={
                "login": self.named(f"{self.client} catalog"),
                "timeout": timeout,
                "command_timeout": timeout,
                "async_creator_fn": wire.connect,
            },
            hide_parameters=True,
            **options,
        )


class Database:
    """The service's connections to its catalog; at most `CONNECTIONS` at a time.

    Attributes:
        available: whether the last operation reached the catalog; False before the first.
        write_problem: why the catalog, which responds, took no write; None from the next one that
            it takes.
    """

    def __init__(
        self, address: CatalogAddress, *, epoch: int | None = None, deadline: float = 3.0
    ) -> None:
        """One operation may take *deadline* seconds in total.

        Closing a connection that no longer answers may take two seconds more. Without an *epoch*
        writes are not fenced: then something else ensures that there is one writer.
        """
        self._deadline = deadline
        self._fence = fence(epoch) if epoch is not None else None
        self.available = False
        self.write_problem: str | None = None
        self._reports = asyncio.Lock()
        self._writer = address.engine(
            timeout=deadline,
            pool_size=CONNECTIONS,
            max_overflow=0,
            pool_timeout=deadline,
            pool_pre_ping=True,
        )
        # It uses the same connections; Postgres refuses a write that is not fenced.
        self._reader = self._writer.execution_options(postgresql_readonly=True)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """Commit everything that is written inside, or nothing.

        The next epoch begins after the commit; if it has already begun, nothing is written.

        Raises:
            CatalogUnavailable: the catalog could not be reached, or not within the deadline.
            LeadershipLost: another instance has become the active one.
        """
        async with self._begin(self._writer) as connection:
            if self._fence is not None:
                found = await connection.execute(self._fence)
                if found.scalar_one_or_none() is None:
                    raise LeadershipLost
            callbacks: list[Callable[[], None]] = []
            connection.info[_COMMITTED] = callbacks
            yield connection
        for callback in callbacks:
            callback()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that only reads.

        Raises:
            CatalogUnavailable: the catalog could not be reached, or not within the deadline.
        """
        async with self._begin(self._reader) as connection:
            yield connection

    @asynccontextmanager
    async def reporting(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that only reads, but many rows; one at a time.

        Raises:
            CatalogUnavailable: the catalog could not be reached.
            QueryTimeout: it, or earlier reports, took too long. The catalog does not count as away.
        """
        timeout = self._deadline * _REPORT_SHARE
        too_late = QueryTimeout(_REPORT_TIMEOUT.format(timeout))
        try:
            async with asyncio.timeout(timeout):
                await self._reports.acquire()
        except TimeoutError as error:
            raise too_late from error
        try:
            async with self.reading() as connection:
                milliseconds = str(round(timeout * 1000))
                await connection.execute(
                    select(func.set_config("statement_timeout", milliseconds, true()))
                )
                try:
                    yield connection
                except DBAPIError as error:
                    if _sqlstate(error) == _CANCELLED:
                        raise too_late from error
                    raise
        finally:
            self._reports.release()

    @asynccontextmanager
    async def _begin(self, engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
        is_committing = False
        try:
            with translate_outages():
                async with asyncio.timeout(self._deadline), engine.begin() as connection:
                    self.available = True
                    async with _kept_if_useful(connection):
                        yield connection
                    is_committing = True
            if engine is self._writer:
                self.write_problem = None
        except CatalogUnavailable as error:
            is_write = engine is self._writer
            cause = error.__cause__
            # A refusal to write, or to use a table, comes from a catalog that was reached.
            refuses = is_write and _sqlstate(cause).startswith(_WRITES_NOTHING)
            self.available = refuses or (cause is not None and tables_problem(cause) is not None)
            if is_write and not isinstance(error, LeadershipLost):
                if refuses:
                    self.write_problem = error.detail
                is_unknown = is_committing and not refuses
                outcome = "it is unknown if anything was" if is_unknown else "nothing was"
                reason = error.detail.removesuffix(".")
                raise CatalogUnavailable(f"{reason}; {outcome} changed.") from error.__cause__
            raise

    async def load(self, statement: Executable, make: Callable[[RowMapping], T]) -> tuple[T, ...]:
        """Convert each row that *statement* reads with *make*; raises as `reading` does.

        There may be as many rows as tenants: the event loop has its turn in between.
        """
        made: list[T] = []
        async with self.reading() as connection:
            for rows in (await connection.execute(statement)).mappings().partitions(_ROWS):
                made += map(make, rows)
                await asyncio.sleep(0)
        return tuple(made)

    async def close(self) -> None:
        """Close every connection; a later use opens new ones."""
        await self._writer.dispose()


@asynccontextmanager
async def _kept_if_useful(connection: AsyncConnection) -> AsyncIterator[None]:
    """Close *connection* if the tables cannot be used: it keeps the search_path of its login."""
    try:
        yield
    except (DBAPIError, CatalogUnusable) as error:
        if isinstance(error, CatalogUnusable) or tables_problem(error):
            await connection.invalidate()
        raise


def after_commit(connection: AsyncConnection, callback: Callable[[], None]) -> None:
    """Call *callback* once the transaction of *connection* is committed."""
    connection.info[_COMMITTED].append(callback)


def fields_in(row: RowMapping, kind: "type[DataclassInstance]") -> dict[str, Any]:
    """The fields of the dataclass *kind* that *row* has as columns."""
    return {each.name: row[each.name] for each in fields(kind) if each.name in row}


class Store:
    """The part of the catalog for one noun. Every method may raise CatalogUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database


@contextmanager
def translate_outages() -> Iterator[None]:
    """Turn an outage, or tables that cannot be used, into CatalogUnavailable."""
    try:
        yield
    except (
        OSError,
        NoFreeConnection,
        DBAPIError,
        asyncpg.PostgresError,
        asyncpg.InterfaceError,
        asyncpg.InternalClientError,
    ) as error:
        if isinstance(error, wire.ConnectError):
            raise CatalogUnavailable(f"The catalog cannot be reached: {error}") from error
        if problem := tables_problem(error):
            raise CatalogUnavailable(f"The catalog cannot be used: {problem}.") from error
        if is_outage(error):
            reason = login_reason(error)
            how = "used" if _sqlstate(error) in STATEMENT_REASONS else "reached"
            raise CatalogUnavailable(
                f"The catalog cannot be {how}: {reason}." if reason else None
            ) from error
        raise


def is_outage(error: Exception) -> bool:
    """Whether *error* means that the catalog is unreachable."""
    match error:
        case OSError() | NoFreeConnection():  # a TimeoutError is an OSError
            return True
        # The latter is raised on a connection that broke in the middle of a message, or that the
        # server ends at this moment.
        case asyncpg.InterfaceError() | asyncpg.InternalClientError():
            return True
        case DBAPIError() if isinstance(cause_of(error), asyncpg.InternalClientError):
            return True
        case DBAPIError() if error.connection_invalidated or is_login_error(error):
            return True
        case _:
            return _sqlstate(error).startswith(_OUTAGES)


def _sqlstate(error: BaseException | None) -> str:
    said = error.orig if isinstance(error, DBAPIError) else error
    return str(getattr(said, "sqlstate", None) or "")
