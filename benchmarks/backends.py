"""How many back-ends Postgres itself shows at most."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg

# Of pools, and of all clients but the one that looks.
OF_POOLS = "application_name LIKE 'poolkeeper/%'"
OF_CLIENTS = "backend_type = 'client backend' AND pid <> pg_backend_pid()"

# It looks every 10 ms from inside Postgres, which costs this process nothing.
_MOST_BACKENDS = """
CREATE FUNCTION pg_temp.most_backends(seconds float8) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    most bigint := 0;
    ends timestamptz := clock_timestamp() + make_interval(secs => seconds);
BEGIN
    LOOP
        PERFORM pg_stat_clear_snapshot();
        most := greatest(most, (SELECT count(*) FROM pg_stat_activity WHERE {which}));
        EXIT WHEN clock_timestamp() >= ends;
        PERFORM pg_sleep(0.01);
    END LOOP;
    RETURN most;
END $$
"""
_LOOK_SECONDS = 0.5


@dataclass(slots=True)
class MostBackends:
    """The most back-ends seen at once."""

    most: int = 0


@asynccontextmanager
async def most_backends(connection: asyncpg.Connection, which: str) -> AsyncIterator[MostBackends]:
    """Watch through *connection* for a block how many back-ends there are of a kind."""
    seen, ending = MostBackends(), asyncio.Event()
    await connection.execute(_MOST_BACKENDS.format(which=which))

    async def watch() -> None:
        while not ending.is_set():
            look = connection.fetchval("SELECT pg_temp.most_backends($1)", _LOOK_SECONDS)
            seen.most = max(seen.most, await look)

    watching = asyncio.create_task(watch(), name="bench: most back-ends")
    try:
        yield seen
    finally:
        ending.set()
        await watching
