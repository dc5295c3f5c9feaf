"""The extended query protocol, spoken on a connection of asyncpg's."""

import pytest

from app.wire.backend_messages import ServerError
from app.wire.extended_query import ExtendedQuery
from app.wire.frontend_messages import bind, describe, execute, parse
from tests.fixtures.postgres import Database

CREATE = parse("create table made (id int)"), describe(), bind(), execute()


async def test_what_is_sent_with_statements_runs_after_them(database: Database) -> None:
    async with database.connected() as connection:
        query = ExtendedQuery(connection)
        await query.begin("begin; set local application_name = 'here'; select 1", *CREATE)
        with query:
            reply = await query.receive()
            assert (reply.command_tag, reply.transaction_status) == ("CREATE TABLE", "T")
            assert reply.rows == []
        assert await connection.fetchval("show application_name") == "here"
        await connection.execute("commit")
        assert await connection.fetchval("select to_regclass('made')") == "made"


@pytest.mark.parametrize("statements", ["select 1/0; begin", "begin; select 1/0", "begin; selec"])
async def test_nothing_that_is_sent_with_statements_runs_if_one_of_them_fails(
    database: Database, statements: str
) -> None:
    async with database.connected() as connection:
        with pytest.raises(ServerError):
            await ExtendedQuery(connection).begin(statements, *CREATE)
        # asyncpg reads again.
        await connection.execute("rollback")
        assert await connection.fetchval("select to_regclass('made')") is None
