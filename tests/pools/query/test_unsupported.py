"""Commands that do not fit a request, recognized by the first words of a statement."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import StatementEndedLease, StatementFailed
from app.pools.query import statement
from app.pools.query.descriptions import TenantDescriptions
from app.pools.query.json_statement import JsonStatement
from app.pools.query.runner import Query
from app.pools.query.unsupported import refusal
from tests.fixtures.postgres import Database
from tests.fixtures.queries import run_query

ENDS = (
    "commit",
    "END",
    "Abort",
    "rollback",
    "rollback to a",
    "commit and chain",
    "commit prepared",
)
# What can stand before a statement, or only seems to.
BEGINNINGS = (
    *("", " ", "\t\r\n", ";", "; ;", "-- end\n", "--\r", "/* */", "/**/", "/***/", "/* /* */ */"),
    *("/*/**/*/", "/* -- */", "/*'*/", "-- /*\n", "/* \n */;--x\n ", "/* é */", "/*;*/"),
    *("/*", "/* /* */", "--", "- ", "é", '"', "'", "(", "x", "0", "$", "\\", "*/", "/", "/ *", "_"),
)
AFTER = ("", ";", " ", "--", "/**/", "é", "x", "_", "$", "1", '"', " work", "/*/**/*/;")


@pytest.mark.parametrize("sql", ENDS)
def test_what_ends_a_transaction_is_refused(sql: str) -> None:
    error = refusal(f"/* a */ {sql};")
    assert isinstance(error, StatementEndedLease)
    assert error.detail.startswith(f"{sql.split(maxsplit=1)[0].upper()} is not supported here")


@pytest.mark.parametrize(
    ("sql", "sqlstate"),
    [("begin", "25001"), ("START TRANSACTION READ WRITE", "25001"), ("listen x", "0A000")],
)
def test_what_has_no_effect_is_refused(sql: str, sqlstate: str) -> None:
    error = refusal(sql)
    assert isinstance(error, StatementFailed)
    assert error.sqlstate == sqlstate


@pytest.mark.parametrize(
    ("sql", "is_refused"),
    [
        ("prepare transaction 'x'", True),
        ("PREPARE /* */ TRANSACTION--\nE'x'", True),
        ("prepare transaction $$x$$", True),
        ("prepare transaction as select 1", False),
        ("prepare transaction(int) as select $1", False),
        ("prepare x as select 1", False),
    ],
)
def test_a_prepared_transaction_is_no_prepared_statement(sql: str, *, is_refused: bool) -> None:
    assert (refusal(sql) is not None) == is_refused


@pytest.mark.parametrize(
    "sql", ["", ";", "select 1", "savepoint a", "release a", "notify x", "unlisten x", "do 'end'"]
)
def test_all_else_is_for_postgres_to_judge(sql: str) -> None:
    assert refusal(sql) is None


@given(st.text(st.sampled_from("/*-;'\n end")))
def test_any_beginning_is_read_to_its_end(text: str) -> None:
    refusal(text)


async def test_postgres_sees_the_same_end(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Postgres takes as an end is refused, and nothing else that it runs."""
    monkeypatch.setattr(statement, "refusal", lambda _: None)
    async with database.connected() as connection:
        for sql in [f"{before}end{after}" for before in BEGINNINGS for after in AFTER]:
            await connection.execute("begin")
            try:
                await run_query(connection, sql, (), max_rows=1, timeout=5)
            except StatementEndedLease:
                assert refusal(sql) is not None, sql
            except StatementFailed:
                pass
            else:
                assert refusal(sql) is None, sql
            await connection.execute("rollback")


async def test_a_later_one_of_several_is_named_and_undoes_all(database: Database) -> None:
    async with database.connected() as connection:
        await connection.execute("create table note (id int)")
        several = ("insert into note values (1)", "commit", "select 1")
        query = Query(
            [
                JsonStatement(each, [], max_rows=1, descriptions=TenantDescriptions())
                for each in several
            ],
            timeout=5,
        )
        transaction = connection.transaction()
        await transaction.start()
        with pytest.raises(StatementEndedLease) as refused:
            await query.run(connection)
        assert refused.value.statement == 1
        assert connection.is_in_transaction()
        await transaction.rollback()
        assert await connection.fetchval("select count(*) from note") == 0


async def test_an_end_that_was_not_seen_before_is_told_afterwards(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statement, "refusal", lambda _: None)
    async with database.connected() as connection:
        await connection.execute("begin")
        with pytest.raises(StatementEndedLease, match="what ran before it may be committed"):
            await run_query(connection, "commit", (), max_rows=1, timeout=5)
