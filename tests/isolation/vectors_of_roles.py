"""Attacks on roles: becoming another one, keeping one, getting more of one."""

from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial

from app.domain.errors import TenantLoginFailed
from app.wire import Login
from tests.isolation.arena import PER_DATABASE, PER_TENANT, SHARED, SIZE, Arena
from tests.isolation.vector import (
    ALL_HELD,
    ALL_OPEN,
    MEMBERSHIP,
    OWN_HELD,
    SUPERUSER,
    Vector,
    Verdict,
    logging_in,
    sql,
    unset,
    without_audits,
)


async def set_role(arena: Arena) -> bool:
    async with arena.attempt() as connection:
        await connection.execute(f'SET ROLE "{arena.other}"')
        return bool(await connection.fetchval("SELECT current_user") == arena.other)
    return False


async def set_config_of_the_role(arena: Arena) -> bool:
    async with arena.attempt() as connection:
        took = "WITH it AS MATERIALIZED (SELECT set_config('role', $1, true)) SELECT * FROM it"
        await connection.fetchval(took, arena.other)
        return bool(await connection.fetchval("SELECT current_user") == arena.other)
    return False


async def reset_role(arena: Arena) -> bool:
    async with arena.attempt() as connection:
        await connection.execute("RESET ROLE; SET ROLE NONE")
        return bool(await connection.fetchval("SELECT current_user") != arena.me)
    return False


async def set_session_authorization(arena: Arena) -> bool:
    async with arena.attempt() as connection:
        await connection.execute(f'SET SESSION AUTHORIZATION "{arena.other}"')
        return bool(await connection.fetchval("SELECT session_user") == arena.other)
    return False


async def create_a_role(arena: Arena) -> bool:
    async with arena.attempt() as connection:
        await connection.execute("CREATE ROLE tenant_accomplice")
        return True
    return False


async def lift_the_connection_limit(arena: Arena) -> bool:
    async with arena.attempt() as connection:
        await connection.execute("ALTER ROLE CURRENT_USER CONNECTION LIMIT -1")
        return True
    return False


async def connect_past_the_limit(arena: Arena) -> bool:
    async with AsyncExitStack() as stack:
        for _ in range(SIZE + 3):
            await stack.enter_async_context(arena.direct())
        return True
    return False


async def change_the_password(arena: Arena) -> bool:
    """It locks the service out until somebody rotates the password."""
    async with arena.lease() as connection:
        await connection.execute("ALTER ROLE CURRENT_USER PASSWORD 'evil'")
    try:
        async with arena.direct():
            return False
    except TenantLoginFailed:
        return True
    finally:
        tenant = arena.manager.tenants.state(arena.mallory).tenant
        await arena.isolation.rotate_password(arena.server, tenant, 1)
        async with arena.direct() as connection:
            assert await connection.fetchval("SELECT current_user") == arena.me


async def _planted(arena: Arena, setting: str, *, harm: str, audited: bool = True) -> bool:
    """Whether mallory's setting for the role does *harm* on a new connection of the service."""
    home = arena.home(arena.mallory)
    async with arena.lease() as connection:
        await connection.execute(f"ALTER ROLE CURRENT_USER SET {setting}")
        await connection.execute(f'ALTER ROLE CURRENT_USER IN DATABASE "{home}" SET {setting}')
    if audited:
        await arena.audit_and_repair()
    try:
        async with arena.direct() as connection:
            return bool(await connection.fetchval(f"SELECT {harm}"))
    except TenantLoginFailed:
        return True
    finally:
        await arena.run("ALTER ROLE {me} RESET ALL; ALTER ROLE {me} IN DATABASE {home} RESET ALL")


async def plant_a_search_path(arena: Arena, *, audited: bool = False) -> bool:
    harm = "current_setting('search_path') LIKE '%nowhere%'"
    return await _planted(arena, "search_path = nowhere", harm=harm, audited=audited)


async def plant_a_missing_library(arena: Arena) -> bool:
    library = "local_preload_libraries = 'no_such_library'"
    return await _planted(arena, library, harm="false", audited=False)


async def plant_read_only(arena: Arena) -> bool:
    harm = "current_setting('default_transaction_read_only')::bool"
    return await _planted(arena, "default_transaction_read_only = on", harm=harm, audited=False)


async def plant_a_lock_timeout(arena: Arena) -> bool:
    harm = "current_setting('lock_timeout') = '12345ms'"
    return await _planted(arena, "lock_timeout = 12345", harm=harm)


def _by_way_of_the_admin(arena: Arena, _: Login) -> Login:
    admin = arena.server.admins.login
    return replace(admin.for_database(arena.home(arena.mallory)), settings={"role": arena.me})


OF_ROLES = (
    Vector("SET ROLE", set_role, ALL_HELD, MEMBERSHIP),
    Vector("set_config of the role in a CTE", set_config_of_the_role, ALL_HELD, MEMBERSHIP),
    Vector("RESET ROLE", reset_role, ALL_HELD, logging_in(_by_way_of_the_admin)),
    Vector("SET SESSION AUTHORIZATION", set_session_authorization, ALL_HELD, SUPERUSER),
    Vector(
        "CREATE ROLE",
        create_a_role,
        ALL_HELD,
        sql("ALTER ROLE {me} CREATEROLE", "ALTER ROLE {me} NOCREATEROLE"),
    ),
    Vector("lifting its own connection limit", lift_the_connection_limit, OWN_HELD, SUPERUSER),
    Vector(
        "more connections than its limit",
        connect_past_the_limit,
        OWN_HELD,
        sql(
            "ALTER ROLE {me} CONNECTION LIMIT -1", f"ALTER ROLE {{me}} CONNECTION LIMIT {SIZE + 2}"
        ),
    ),
    Vector("ALTER ROLE CURRENT_USER PASSWORD", change_the_password, ALL_OPEN),
    Vector(
        "a search_path set for its role",
        plant_a_search_path,
        {SHARED: Verdict.HELD, PER_TENANT: Verdict.HELD},
        unset("search_path"),
    ),
    # Until then it is its own path in its own database, which it may set for the database, too.
    Vector(
        "a search_path set for its role until the next audit",
        partial(plant_a_search_path, audited=True),
        {PER_DATABASE: Verdict.HELD},
        without_audits,
    ),
    Vector(
        "a missing library set for its role",
        plant_a_missing_library,
        ALL_HELD,
        unset("local_preload_libraries"),
    ),
    Vector(
        "read-only set for its role",
        plant_read_only,
        ALL_HELD,
        unset("default_transaction_read_only"),
    ),
    Vector("another setting of its role", plant_a_lock_timeout, ALL_HELD, without_audits),
)
