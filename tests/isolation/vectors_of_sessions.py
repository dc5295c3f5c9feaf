"""Attacks through a session: leaving the lease, and leaving something to the next borrower."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import asyncpg

from app.pools import lease
from app.wire import Login
from tests.isolation.arena import SECRET, Arena
from tests.isolation.vector import (
    ALL_HELD,
    NO_RESET,
    SHARED_HELD,
    SHARED_OPEN,
    Vector,
    both,
    logging_in,
    patched,
    sql,
    unproven,
)


async def commit(arena: Arena) -> bool:
    async with arena.lease() as connection:
        await connection.execute("COMMIT")
    return True


async def commit_and_begin(arena: Arena) -> bool:
    """The transaction at the end of the lease is not the one with which it began."""
    async with arena.lease() as connection:
        await connection.execute("COMMIT; BEGIN")
    return True


async def keep_the_context(arena: Arena) -> bool:
    async with arena.lease() as connection:
        await connection.execute(f"SET app.tenant_id = '{arena.alice}'")
    return True


async def replace_the_proof(arena: Arena) -> bool:
    async with arena.lease() as connection:
        await connection.execute(
            "DEALLOCATE __poolkeeper_context_check;"
            "PREPARE __poolkeeper_context_check(text) AS SELECT 1"
        )
        await connection.execute(f"SET app.tenant_id = '{arena.alice}'")
    await arena.recycled()
    return True


async def a_temporary_table(arena: Arena) -> bool:
    """With the name of a real one, it gets what the next borrower writes."""
    async with arena.lease() as connection:
        await connection.execute("CREATE TEMPORARY TABLE notes (tenant_id text, body text)")
        await connection.execute("GRANT ALL ON pg_temp.notes TO PUBLIC")
    async with arena.lease(arena.alice) as connection:
        await connection.execute("INSERT INTO notes VALUES ($1, 'to be lost')", arena.alice)
        kept = "DELETE FROM public.notes WHERE body = 'to be lost'"
        return bool(await connection.execute(kept) == "DELETE 0")


async def a_prepared_statement(arena: Arena) -> bool:
    async with arena.lease() as connection:
        await connection.execute("PREPARE greet AS SELECT 'poisoned'")
    async with arena.lease(arena.alice) as connection:
        found = await connection.fetchval("EXECUTE greet")
    await arena.recycled()
    return bool(found == "poisoned")


async def the_drivers_prepared_statement(arena: Arena) -> bool:
    query = "SELECT 'as meant'"
    async with arena.lease() as connection:
        await connection.fetchval(query)
        name = await connection.fetchval(
            "SELECT name FROM pg_prepared_statements WHERE statement = $1", query
        )
        await connection.execute(f"DEALLOCATE {name}; PREPARE {name} AS SELECT 'poisoned'")
    async with arena.lease(arena.alice) as connection:
        found = await connection.fetchval(query)
    await arena.recycled()
    return bool(found == "poisoned")


async def a_search_path(arena: Arena) -> bool:
    async with arena.lease() as connection:
        await connection.execute("SET search_path = nowhere")
    try:
        async with arena.lease(arena.alice) as connection:
            await connection.fetch("SELECT * FROM notes")
    except asyncpg.UndefinedTableError:
        return True
    return False


async def a_cursor(arena: Arena) -> bool:
    """Here it is alice who leaves something."""
    async with arena.lease(arena.alice) as connection:
        await connection.execute("DECLARE hers CURSOR WITH HOLD FOR SELECT body FROM notes")
    async with arena.lease() as connection:
        return SECRET in [body for [body] in await connection.fetch("FETCH ALL FROM hers")]
    return False


async def a_session_lock(arena: Arena) -> bool:
    async with arena.lease() as connection:
        await connection.execute("SELECT pg_advisory_lock(4711)")
    async with arena.direct() as elsewhere:
        free = await elsewhere.fetchval("SELECT pg_try_advisory_lock(4711)")
    return not free


async def a_role_setting_of_the_session(arena: Arena) -> bool:
    async with arena.lease() as connection:
        await connection.execute("SET lock_timeout = 12345")
    async with arena.lease() as connection:
        return bool(await connection.fetchval("SHOW lock_timeout") == "12345ms")
    return False


async def lift_the_statement_timeout(arena: Arena) -> bool:
    """As one statement, which is all that the query endpoint accepts."""
    async with arena.lease(statement_timeout=0.1) as connection:
        await connection.execute("""
            DO $$ BEGIN
                PERFORM set_config('statement_timeout', '0', true);
                PERFORM pg_sleep(0.3);
            END $$
        """)
    return True


@asynccontextmanager
async def without_a_timeout(arena: Arena) -> AsyncIterator[None]:
    """Leases do not tell the server how long a statement may take."""

    def opening(*_: Any) -> str:
        context = arena.isolation.context_setup(arena.spec(arena.mallory))
        return f"BEGIN; {context}"

    with patch.object(lease, "begin_statements", opening):
        yield


def _temporary_first(_: Arena, login: Login) -> Login:
    path = login.settings["search_path"].removesuffix(", pg_temp")
    return replace(login, settings={**login.settings, "search_path": path})


_TEMPORARY = sql(
    "GRANT TEMPORARY ON DATABASE {home} TO {me}", "REVOKE TEMPORARY ON DATABASE {home} FROM {me}"
)
_NO_UNLOCK = patched(lambda arena: arena.isolation, "advisory_unlock", lambda _: "SELECT 1")

OF_SESSIONS = (
    Vector("COMMIT inside a lease", commit, ALL_HELD, unproven),
    Vector("COMMIT and BEGIN inside a lease", commit_and_begin, ALL_HELD, unproven),
    Vector("a tenant kept for the session", keep_the_context, SHARED_HELD, unproven),
    Vector("the proof of the context replaced", replace_the_proof, SHARED_OPEN),
    Vector(
        "a temporary table before a real one",
        a_temporary_table,
        SHARED_HELD,
        both(_TEMPORARY, NO_RESET, logging_in(_temporary_first)),
    ),
    Vector("PREPARE for the next borrower", a_prepared_statement, SHARED_OPEN),
    Vector("the driver's statement replaced", the_drivers_prepared_statement, SHARED_OPEN),
    Vector("a search_path for the next borrower", a_search_path, SHARED_HELD, NO_RESET),
    Vector("a cursor for the next borrower", a_cursor, SHARED_HELD, NO_RESET),
    Vector("a lock left behind", a_session_lock, ALL_HELD, both(NO_RESET, _NO_UNLOCK)),
    Vector("a setting left behind", a_role_setting_of_the_session, ALL_HELD, NO_RESET),
    Vector("statement_timeout lifted", lift_the_statement_timeout, ALL_HELD, without_a_timeout),
)
