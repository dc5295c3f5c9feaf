"""The extended query protocol on a connection of asyncpg."""

from typing import Any, cast

import pytest

from app.wire.backend_messages import ServerError
from app.wire.commit_watch import CommitWatch
from app.wire.extended_query import Ending, ExtendedQuery
from app.wire.frontend_messages import DESCRIBE, bind, execute, parse
from app.wire.relay import PacedInterceptor
from tests.fixtures.postgres import Database

CREATE = parse("create table made (id int)"), DESCRIBE, bind(), execute()


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


async def test_the_transport_keeps_its_protocol_from_the_first_query_on(database: Database) -> None:
    """Another one would make uvloop stop reading and start again."""
    async with database.connected() as connection:
        with ExtendedQuery(connection) as query:
            await query.exchange(parse("select 1"), bind(), execute())
        transport = cast("Any", connection)._transport
        protocol = transport.get_protocol()
        with ExtendedQuery(connection) as query:
            await query.exchange(parse("select 1"), bind(), execute())
            assert transport.get_protocol() is protocol
        assert await connection.fetchval("select 2") == 2
        assert transport.get_protocol() is protocol


@pytest.mark.parametrize("interceptor", [ExtendedQuery, CommitWatch])
async def test_the_transport_of_a_terminated_connection_still_tells_asyncpg_of_its_end(
    database: Database, interceptor: type[PacedInterceptor]
) -> None:
    async with database.connected() as connection:
        transport = cast("Any", connection)._transport
        protocol = transport.get_protocol()
        connection.terminate()
        with pytest.raises(ConnectionResetError):
            interceptor(connection)
        assert transport.get_protocol() is protocol


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


def chop(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Let replies arrive in pieces of *size* bytes."""
    take = ExtendedQuery.data_received

    def take_pieces(query: ExtendedQuery, data: bytes) -> None:
        for at in range(0, len(data), size):
            take(query, data[at : at + size])

    monkeypatch.setattr(ExtendedQuery, "data_received", take_pieces)


@pytest.mark.parametrize("size", [1, 7, 5000])
async def test_what_a_long_error_is_does_not_depend_on_how_it_arrives(
    database: Database, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    chop(monkeypatch, size)
    fail = "do $$ begin raise exception '%', repeat('x', 100000) using errcode = 'ABCDE'; end $$"
    async with database.connected() as connection:
        with ExtendedQuery(connection) as query:
            with pytest.raises(ServerError) as failed:
                await query.exchange(parse(fail), bind(), execute())
            assert failed.value.sqlstate == "ABCDE"
            assert len(failed.value.message) > 60_000
        assert await connection.fetchval("select 42") == 42


def select(sql: str) -> tuple[bytes, ...]:
    return parse(sql), DESCRIBE, bind(), execute()


@pytest.mark.parametrize("size", [*range(1, 14), 5000])
async def test_replies_and_endings_do_not_depend_on_how_their_bytes_arrive(
    database: Database, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    chop(monkeypatch, size)
    # A request to cancel would hit whatever runs next.
    monkeypatch.delattr(ExtendedQuery, "_cancel")
    ending = "commit; select repeat('x', 30); do $$ begin raise notice 'n'; end $$; select ''"
    async with database.connected() as connection:
        for _ in range(3):
            query = ExtendedQuery(connection)
            await query.begin(
                "begin; set local extra_float_digits = 0",
                *select("select repeat('y', 20) from generate_series(1, 2)"),
                # Room for these rows, and for nothing else.
                max_row_bytes=52,
                ending=Ending("select 1, 'checked'", ending),
                cancels_excess=True,
            )
            with query:
                reply = await query.receive()
                assert (len(reply.rows), reply.is_truncated) == (2, False)
                assert (reply.command_tag, reply.is_executed) == ("SELECT 2", True)
            await query.wait_ended()
            assert await connection.fetchval("select 42") == 42


@pytest.mark.parametrize("size", [1, 5000])
@pytest.mark.parametrize(
    ("ending", "has_begun"), [("select 1; select 1/0", True), ("select 1/0; select 1", False)]
)
async def test_how_far_an_ending_came_is_known(
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    *,
    size: int,
    ending: str,
    has_begun: bool,
) -> None:
    chop(monkeypatch, size)
    async with database.connected() as connection:
        query = ExtendedQuery(connection)
        await query.begin(
            "begin",
            *select("select 3"),
            max_row_bytes=99,
            ending=Ending("select 4", f"{ending}; commit"),
        )
        with query:
            assert len((await query.receive()).rows) == 1
        with pytest.raises(ServerError):
            await query.wait_ended()
        assert query.has_ending_begun is has_begun
