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


@pytest.mark.parametrize("size", [1, 7, 5000])
async def test_what_a_long_error_is_does_not_depend_on_how_it_arrives(
    database: Database, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    take = ExtendedQuery.data_received

    def take_pieces(query: ExtendedQuery, data: bytes) -> None:
        for at in range(0, len(data), size):
            take(query, data[at : at + size])

    monkeypatch.setattr(ExtendedQuery, "data_received", take_pieces)
    fail = "do $$ begin raise exception '%', repeat('x', 100000) using errcode = 'ABCDE'; end $$"
    async with database.connected() as connection:
        with ExtendedQuery(connection) as query:
            with pytest.raises(ServerError) as failed:
                await query.exchange(parse(fail), bind(), execute())
            assert failed.value.sqlstate == "ABCDE"
            assert len(failed.value.message) > 60_000
        assert await connection.fetchval("select 42") == 42
