"""Attacks on what all tenants of a server share: sessions, databases, files, the server itself."""

from typing import Any

from tests.fixtures.waiting import eventually
from tests.isolation.arena import SECRET, Arena
from tests.isolation.vector import (
    ALL_HELD,
    ALL_OPEN,
    OPEN_WITHIN_A_DATABASE,
    OWN_HELD,
    SHARED_OPEN,
    SUPERUSER,
    Vector,
    in_the_same_database,
    sql,
)


async def end_another_session(arena: Arena) -> bool:
    async with arena.direct(arena.alice) as alice, arena.attempt() as connection:
        pid = alice.get_server_pid()
        return bool(await connection.fetchval("SELECT pg_terminate_backend($1)", pid))
    return False


async def read_others_queries(arena: Arena) -> bool:
    async with arena.direct(arena.alice) as alice, arena.attempt() as connection:
        await alice.execute(f"SELECT '{SECRET}'")
        query = "SELECT query FROM pg_stat_activity WHERE pid = $1"
        return SECRET in (await connection.fetchval(query, alice.get_server_pid()) or "")
    return False


async def meet_anothers_lock(arena: Arena) -> bool:
    async with arena.direct(arena.alice) as alice, arena.attempt() as connection:
        await alice.execute("SELECT pg_advisory_lock(4712)")
        return not await connection.fetchval("SELECT pg_try_advisory_xact_lock(4712)")
    return False


async def forge_a_notification(arena: Arena) -> bool:
    heard: list[str] = []

    def hear(*notification: Any) -> None:
        heard.append(notification[-1])

    async with arena.direct(arena.alice) as alice:
        await alice.add_listener("news", hear)
        async with arena.lease() as connection:
            await connection.execute("NOTIFY news, 'forged'")
        await alice.execute("NOTIFY news, 'her own'")
        await eventually(lambda: "her own" in heard)
        await alice.remove_listener("news", hear)
    return "forged" in heard


async def enter_another_database(arena: Arena) -> bool:
    async with arena.direct(database="tenant_alice-per-database"):
        return True


async def enter_the_maintenance_database(arena: Arena) -> bool:
    async with arena.direct(database="postgres"):
        return True


async def see_who_else_there_is(arena: Arena) -> bool:
    async with arena.attempt() as connection:
        query = "SELECT count(*) FROM pg_roles WHERE rolname = $1"
        return bool(await connection.fetchval(query, arena.other))
    return False


async def read_password_verifiers(arena: Arena) -> bool:
    async with arena.attempt() as connection:
        query = "SELECT rolpassword FROM pg_authid WHERE rolname = $1"
        return bool(await connection.fetchval(query, arena.other))
    return False


async def read_a_file(arena: Arena) -> bool:
    async with arena.attempt() as connection:
        return bool(await connection.fetchval("SELECT pg_read_file('PG_VERSION')"))
    return False


async def run_a_program(arena: Arena) -> bool:
    async with arena.attempt() as connection:
        await connection.execute("COPY (SELECT 1) TO PROGRAM 'cat > /dev/null'")
        return True
    return False


async def write_a_file(arena: Arena) -> bool:
    async with arena.attempt() as connection:
        await connection.execute("COPY (SELECT 1) TO '/dev/null'")
        return True
    return False


async def load_c_code(arena: Arena) -> bool:
    async with arena.attempt() as connection:
        await connection.execute("""
            CREATE FUNCTION pg_temp.mine() RETURNS trigger
            LANGUAGE c AS '$libdir/refint', 'check_primary_key'
        """)
        return True
    return False


async def an_event_trigger(arena: Arena) -> bool:
    async with arena.attempt() as connection:
        await connection.execute("""
            CREATE FUNCTION pg_temp.spy() RETURNS event_trigger
            LANGUAGE plpgsql AS 'BEGIN END';
            CREATE EVENT TRIGGER spy ON ddl_command_end EXECUTE FUNCTION pg_temp.spy()
        """)
        return True
    return False


async def replication_role(arena: Arena) -> bool:
    """Triggers and foreign keys would not fire."""
    async with arena.attempt() as connection:
        await connection.execute("SET LOCAL session_replication_role = replica")
        return True
    return False


async def reload_the_configuration(arena: Arena) -> bool:
    async with arena.attempt() as connection:
        return bool(await connection.fetchval("SELECT pg_reload_conf()"))
    return False


def extension(name: str) -> Vector:
    async def install(arena: Arena) -> bool:
        async with arena.attempt() as connection:
            await connection.execute(f"CREATE EXTENSION {name}")
            return True
        return False

    return Vector(f"CREATE EXTENSION {name}", install, ALL_HELD, SUPERUSER, name)


def _granted(role: str) -> tuple[str, str]:
    return f"GRANT {role} TO {{me}}", f"REVOKE {role} FROM {{me}}"


_DOOR = 'CONNECT ON DATABASE "tenant_alice-per-database"'

OF_THE_SERVER = (
    Vector(
        "pg_terminate_backend",
        end_another_session,
        SHARED_OPEN | OWN_HELD,
        sql(*_granted("pg_signal_backend")),
    ),
    Vector(
        "pg_stat_activity",
        read_others_queries,
        SHARED_OPEN | OWN_HELD,
        sql(*_granted("pg_read_all_stats")),
    ),
    Vector("advisory locks", meet_anothers_lock, OPEN_WITHIN_A_DATABASE, in_the_same_database),
    Vector("NOTIFY", forge_a_notification, OPEN_WITHIN_A_DATABASE, in_the_same_database),
    Vector(
        "another tenant's database",
        enter_another_database,
        ALL_HELD,
        sql(f"GRANT {_DOOR} TO PUBLIC", f"REVOKE {_DOOR} FROM PUBLIC"),
    ),
    Vector(
        "the maintenance database",
        enter_the_maintenance_database,
        ALL_HELD,
        sql(
            "GRANT CONNECT ON DATABASE postgres TO PUBLIC",
            "REVOKE CONNECT ON DATABASE postgres FROM PUBLIC",
        ),
    ),
    Vector("names of roles", see_who_else_there_is, ALL_OPEN),
    Vector("password verifiers", read_password_verifiers, ALL_HELD, SUPERUSER),
    Vector("pg_read_file", read_a_file, ALL_HELD, SUPERUSER),
    Vector(
        "COPY to a program", run_a_program, ALL_HELD, sql(*_granted("pg_execute_server_program"))
    ),
    Vector("COPY to a file", write_a_file, ALL_HELD, sql(*_granted("pg_write_server_files"))),
    Vector("code in C", load_c_code, ALL_HELD, SUPERUSER),
    Vector("an event trigger", an_event_trigger, ALL_HELD, SUPERUSER),
    Vector(
        "session_replication_role",
        replication_role,
        ALL_HELD,
        sql(
            "GRANT SET ON PARAMETER session_replication_role TO {me}",
            "REVOKE SET ON PARAMETER session_replication_role FROM {me}",
        ),
    ),
    Vector("pg_reload_conf", reload_the_configuration, ALL_HELD, SUPERUSER),
    *(extension(name) for name in ("dblink", "postgres_fdw", "file_fdw")),
)
