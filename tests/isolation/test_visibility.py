"""What tenants see of each other besides rows, as docs/guarantees.md says."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from app.domain.tenant import PoolStrategy
from app.pools.manager import TenantPoolManager
from tests.fixtures.pools import manager_on, provisioned
from tests.fixtures.postgres import Database

OWN = """
create table diary (id serial primary key, mood text default 'default of alice',
    constraint alice_check check (mood <> 'check of alice'));
comment on table diary is 'comment of alice';
create index on diary (id) where mood = 'index of alice';
create policy alice_policy on diary using (mood = 'policy of alice');
create view sight as select mood from diary where mood = 'view of alice';
create function work() returns text language sql as $$select 'function of alice'$$;
create type humour as enum ('label of alice');
create sequence steps;
select nextval('steps');
select lo_from_bytea(0, 'object of alice');
insert into diary (mood) select 'row of alice' from generate_series(1, 500);
alter role current_user set work_mem = '5MB';
analyze diary;
"""
IN_ITS_DATABASE = {
    "tables": "select relname from pg_class where relname = 'diary'",
    "columns": "select attname from pg_attribute where attname = 'mood'",
    "defaults": "select 1 from pg_attrdef where pg_get_expr(adbin, adrelid) ~ 'default of alice'",
    "checks": "select 1 from pg_constraint where pg_get_constraintdef(oid) ~ 'check of alice'",
    "indexes": "select 1 from pg_indexes where indexdef ~ 'index of alice'",
    "policies": "select 1 from pg_policies where qual ~ 'policy of alice'",
    "comments": "select 1 from pg_description where description = 'comment of alice'",
    "views": "select 1 from pg_views where definition ~ 'view of alice'",
    "functions": "select 1 from pg_proc where prosrc ~ 'function of alice'",
    "labels": "select 1 from pg_enum where enumlabel = 'label of alice'",
    "sequences": "select 1 from pg_class where relname = 'steps'",
    "rows": "select 1 from pg_class where relname = 'diary' and reltuples = 500",
    "size": "select 1 from pg_class where relname = 'diary' and pg_total_relation_size(oid) > 0",
    "file": "select 1 from pg_class where relname = 'diary' and pg_relation_filepath(oid) <> ''",
    "counters": "select 1 from pg_stat_all_tables where relname = 'diary'",
    "blocks": "select 1 from pg_statio_all_tables where relname = 'diary'",
    "privileges": "select 1 from pg_namespace where nspacl::text ~ 'tenant_alice'",
    "large objects": "select 1 from pg_largeobject_metadata"
    " where lomowner = 'tenant_alice'::regrole",
}
ON_ITS_SERVER = {
    "role": "select 1 from pg_roles where rolname = 'tenant_alice'",
    "settings": "select 1 from pg_db_role_setting where 'work_mem=5MB' = any(setconfig)",
    "mark": "select 1 from pg_shdescription where objoid = 'tenant_alice'::regrole",
    "presence": "select 1 from pg_stat_activity where usename = 'tenant_alice'",
    "database counters": "select 1 from pg_stat_database where xact_commit > 0",
}
UNSEEN = {
    "statements": "select 1 from pg_stat_activity where usename = 'tenant_alice'"
    " and (query <> '<insufficient privilege>' or client_addr is not null"
    " or wait_event is not null)",
    "common values": "select 1 from pg_stats where tablename = 'diary'",
    "steps": "select 1 from pg_sequences where sequencename = 'steps' and last_value is not null",
}
REFUSED = (
    "select * from tenant_alice.diary",
    "select stavalues1::text from pg_statistic",
    "select rolpassword from pg_authid",
    "select data from pg_largeobject",
    "select pg_database_size('{closed}')",
)
# From another database.
NOT_THERE = (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError)


@asynccontextmanager
async def neighbour_of_alice(
    database: Database, strategy: PoolStrategy
) -> AsyncIterator[TenantPoolManager]:
    """Alice, who has all of that, is connected; bob looks."""
    async with manager_on(database) as manager:
        for name in ("alice", "bob"):
            await provisioned(manager, name, strategy)
        async with manager.lease("alice") as connection:
            await connection.execute(OWN)
        async with manager.lease("alice"):
            yield manager


async def seen(manager: TenantPoolManager, query: str) -> bool:
    """Whether bob gets an answer."""
    async with manager.lease("bob") as connection:
        return await connection.fetchval(f"select exists ({query})") is True


@pytest.mark.parametrize("strategy", [PoolStrategy.PER_TENANT, PoolStrategy.PER_DATABASE])
async def test_what_is_seen_is_what_the_guarantees_say(
    database: Database, catalog_database: Database, scrub_roles: None, strategy: PoolStrategy
) -> None:
    async with neighbour_of_alice(database, strategy) as manager:
        for what, query in IN_ITS_DATABASE.items():
            is_shared = strategy is PoolStrategy.PER_TENANT
            assert await seen(manager, query) is is_shared, what
        for what, query in ON_ITS_SERVER.items():
            assert await seen(manager, query), what
        for what, query in UNSEEN.items():
            assert not await seen(manager, query), what
        for query in REFUSED:
            with pytest.raises((asyncpg.InsufficientPrivilegeError, *NOT_THERE)):
                async with manager.lease("bob") as connection:
                    await connection.fetch(query.format(closed=catalog_database.database))
