"""Attacks on others' data: rows, large objects, statistics, functions, triggers."""

from tests.isolation.arena import PER_DATABASE, PER_TENANT, SECRET, SHARED, Arena
from tests.isolation.vector import (
    OWN_HELD,
    ROW_SECURITY_OFF,
    SHARED_HELD,
    SHARED_OPEN,
    Vector,
    Verdict,
    both,
    each,
    in_the_same_database,
    sql,
)

_ON_ALICES_SCHEMA = sql(
    "GRANT ALL ON SCHEMA {other} TO {me}; GRANT SELECT ON {other}.notes TO {me}",
    "REVOKE ALL ON SCHEMA {other} FROM {me}; REVOKE SELECT ON {other}.notes FROM {me}",
)
_LO_COMPATIBLE = sql(
    "ALTER ROLE {me} SET lo_compat_privileges = on", "ALTER ROLE {me} RESET lo_compat_privileges"
)


async def set_config_of_the_tenant(arena: Arena) -> bool:
    """One read-only SELECT, which restores everything."""
    async with arena.lease(read_only=True) as connection:
        rows = await connection.fetch(
            """
            WITH alice AS MATERIALIZED (SELECT set_config('app.tenant_id', $1, true) AS id)
            SELECT body FROM alice, LATERAL (
                SELECT body FROM notes WHERE tenant_id = alice.id OFFSET 0
            ) AS theirs
            """,
            arena.alice,
        )
        await connection.execute("SELECT set_config('app.tenant_id', $1, true)", arena.mallory)
    return [body for [body] in rows] == [SECRET]


async def a_do_block(arena: Arena) -> bool:
    async with arena.lease() as connection:
        await connection.execute(f"""
            DO $$ BEGIN
                PERFORM set_config('app.tenant_id', '{arena.alice}', true);
                PERFORM set_config('app.loot', (SELECT min(body) FROM notes), true);
                PERFORM set_config('app.tenant_id', '{arena.mallory}', true);
            END $$
        """)
        return bool(await connection.fetchval("SHOW app.loot") == SECRET)


async def forget_the_where(arena: Arena) -> bool:
    async with arena.attempt() as connection:
        rows = await connection.fetch("SELECT body FROM notes")
        changed = await connection.execute("UPDATE notes SET body = 'mine'")
        return SECRET in [body for [body] in rows] and changed == "UPDATE 2"
    return False


async def write_for_somebody_else(arena: Arena) -> bool:
    async with arena.attempt() as connection:
        await connection.execute("INSERT INTO notes VALUES ($1, 'forged')", arena.alice)
        return True
    return False


async def row_security_off(arena: Arena) -> bool:
    async with arena.attempt() as connection:
        await connection.execute("SET LOCAL row_security = off")
        rows = await connection.fetch("SELECT body FROM notes")
        return SECRET in [body for [body] in rows]
    return False


async def disable_row_security(arena: Arena) -> bool:
    async with arena.attempt() as connection:
        await connection.execute("ALTER TABLE notes NO FORCE ROW LEVEL SECURITY")
        return True
    return False


async def truncate(arena: Arena) -> bool:
    async with arena.attempt() as connection:
        await connection.execute("TRUNCATE notes")
        return True
    return False


async def plant_a_trigger(arena: Arena) -> bool:
    async with arena.attempt() as connection:
        await connection.execute("""
            CREATE TRIGGER mine BEFORE UPDATE ON notes
            FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()
        """)
        return True
    return False


async def read_another_schema(arena: Arena) -> bool:
    async with arena.attempt() as connection:
        found = await connection.fetchval(f'SELECT body FROM "{arena.other}".notes')
        return bool(found == SECRET)
    return False


async def leave_a_function_with_alice(arena: Arena) -> bool:
    """Where she would call it instead of the one she means."""
    schema = "public" if arena.strategy is SHARED else arena.other
    async with arena.attempt() as connection:
        await connection.execute(
            f'CREATE FUNCTION "{schema}".lower(text) RETURNS text LANGUAGE sql AS $$ SELECT $1 $$'
        )
        return True
    return False


async def create_in_public(arena: Arena) -> bool:
    async with arena.attempt() as connection:
        await connection.execute("CREATE TABLE public.bait (id int)")
        return True
    return False


async def call_a_function_in_public(arena: Arena) -> bool:
    """Extensions such as dblink are usually there, open to everybody."""
    await arena.run("CREATE OR REPLACE FUNCTION public.f() RETURNS int LANGUAGE sql AS 'SELECT 42'")
    async with arena.attempt() as connection:
        return bool(await connection.fetchval("SELECT public.f()") == 42)
    return False


async def deceive_a_definer(arena: Arena) -> bool:
    """Make a function of the admin write elsewhere, by its caller's search_path."""
    await arena.run("""
        CREATE TABLE IF NOT EXISTS public.log (who text);
        CREATE OR REPLACE FUNCTION public.audit() RETURNS void SECURITY DEFINER LANGUAGE plpgsql
        AS $$ BEGIN INSERT INTO log VALUES (current_user); END $$
    """)
    schema = "pg_temp" if arena.strategy is SHARED else arena.me
    async with arena.attempt() as connection:
        await connection.execute(f'SET LOCAL search_path = "{schema}", public')
        await connection.execute(f'CREATE TABLE "{schema}".log (who text)')
        await connection.execute(f'GRANT ALL ON "{schema}".log TO PUBLIC')
        await connection.execute("SELECT public.audit()")
        return bool(await connection.fetchval(f'SELECT count(*) FROM "{schema}".log') == 1)
    return False


async def read_a_large_object(arena: Arena) -> bool:
    async with arena.direct(arena.alice) as alice:
        number = await alice.fetchval("SELECT lo_from_bytea(0, $1)", SECRET.encode())
        try:
            async with arena.attempt() as connection:
                found = await connection.fetchval("SELECT lo_get($1)", number)
                return bool(found == SECRET.encode())
        finally:
            await alice.execute("SELECT lo_unlink($1)", number)
    return False


async def read_statistics(arena: Arena) -> bool:
    """The most common values of a column are values."""
    schema = "public" if arena.strategy is SHARED else arena.other
    await arena.run(f'ANALYZE "{schema}".notes')
    async with arena.attempt() as connection:
        query = "SELECT count(*) FROM pg_stats WHERE schemaname = $1 AND tablename = 'notes'"
        return bool(await connection.fetchval(query, schema))
    return False


async def read_the_source_of_functions(arena: Arena) -> bool:
    async with arena.direct(arena.alice) as alice:
        await alice.execute("""
            CREATE OR REPLACE FUNCTION recipe() RETURNS text LANGUAGE sql AS $$ SELECT 'eggs' $$
        """)
    async with arena.attempt() as connection:
        return bool(await connection.fetchval("SELECT prosrc FROM pg_proc WHERE proname='recipe'"))
    return False


_TEMPORARY = sql(
    "GRANT TEMPORARY ON DATABASE {home} TO {me}", "REVOKE TEMPORARY ON DATABASE {home} FROM {me}"
)
_USAGE_OF_PUBLIC = sql(
    "GRANT USAGE ON SCHEMA public TO {me}", "REVOKE USAGE ON SCHEMA public FROM {me}"
)
_CREATION_IN_PUBLIC = sql(
    "GRANT USAGE, CREATE ON SCHEMA public TO PUBLIC", "REVOKE ALL ON SCHEMA public FROM PUBLIC"
)
_WITHIN = {SHARED: Verdict.HELD, PER_TENANT: Verdict.HELD}

OF_ROWS = (
    Vector("set_config of the tenant in a CTE", set_config_of_the_tenant, SHARED_OPEN),
    Vector("a DO block that changes the tenant", a_do_block, SHARED_OPEN),
    Vector("a forgotten WHERE", forget_the_where, SHARED_HELD, ROW_SECURITY_OFF),
    Vector("a row for somebody else", write_for_somebody_else, SHARED_HELD, ROW_SECURITY_OFF),
    Vector(
        "row_security off",
        row_security_off,
        SHARED_HELD,
        sql("ALTER ROLE {me} BYPASSRLS", "ALTER ROLE {me} NOBYPASSRLS"),
    ),
    Vector(
        "ALTER TABLE of a shared table",
        disable_row_security,
        SHARED_HELD,
        sql(
            "ALTER TABLE notes OWNER TO {me}",
            "ALTER TABLE notes OWNER TO CURRENT_USER;"
            "GRANT SELECT, INSERT, UPDATE, DELETE ON notes TO {me}",
        ),
    ),
    Vector(
        "TRUNCATE of a shared table",
        truncate,
        SHARED_HELD,
        sql("GRANT TRUNCATE ON notes TO {me}", "REVOKE TRUNCATE ON notes FROM {me}"),
    ),
    Vector(
        "a trigger on a shared table",
        plant_a_trigger,
        SHARED_HELD,
        sql("GRANT TRIGGER ON notes TO {me}", "REVOKE TRIGGER ON notes FROM {me}"),
    ),
    Vector("another schema", read_another_schema, _WITHIN, _ON_ALICES_SCHEMA),
    Vector(
        "a function left behind",
        leave_a_function_with_alice,
        _WITHIN,
        each(shared=_CREATION_IN_PUBLIC, per_tenant=_ON_ALICES_SCHEMA),
    ),
    Vector("a table in the schema public", create_in_public, _WITHIN, _CREATION_IN_PUBLIC),
    Vector(
        "a function in the schema public",
        call_a_function_in_public,
        {PER_TENANT: Verdict.HELD},
        _USAGE_OF_PUBLIC,
    ),
    Vector(
        "a SECURITY DEFINER function misled",
        deceive_a_definer,
        _WITHIN,
        each(shared=_TEMPORARY, per_tenant=_USAGE_OF_PUBLIC),
    ),
    Vector(
        "large objects",
        read_a_large_object,
        SHARED_OPEN | OWN_HELD,
        each(per_tenant=_LO_COMPATIBLE, per_database=both(in_the_same_database, _LO_COMPATIBLE)),
    ),
    Vector(
        "statistics of columns",
        read_statistics,
        _WITHIN,
        each(shared=ROW_SECURITY_OFF, per_tenant=_ON_ALICES_SCHEMA),
    ),
    Vector(
        "the source of functions",
        read_the_source_of_functions,
        {PER_TENANT: Verdict.OPEN, PER_DATABASE: Verdict.HELD},
        in_the_same_database,
    ),
)
