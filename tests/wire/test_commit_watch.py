"""Whether a commit was done is known, even if what follows fails, however the reply arrives."""

import asyncio
from contextlib import suppress

import asyncpg
import pytest

from app.wire.commit_watch import CommitWatch
from tests.fixtures.postgres import Database
from tests.fixtures.turns import counted_turns

FLOOD = "do $$ begin for i in 1..99 loop raise notice '%', repeat('x', 10000); end loop; end $$"


async def run(connection: asyncpg.Connection, statements: str) -> bool:
    """Whether a commit among *statements* was seen, whatever happened to the others."""
    with CommitWatch(connection) as watch:
        try:
            await connection.execute(statements)
        except asyncpg.PostgresError:
            await connection.execute("rollback")
    return watch.has_committed


@pytest.mark.parametrize("size", [1, 7, 5000])
@pytest.mark.parametrize(
    ("statements", "has_committed"),
    [
        ("begin; select 'COMMIT'; commit; select 1/0", True),
        ("begin; commit; select 2", True),
        ("begin; select 1/0; commit", False),
        ("begin; notify \"COMMIT\", 'COMMIT'; rollback; select 1/0", False),
        ("do $$ begin raise notice 'COMMIT'; end $$; select 1/0", False),
        ("do $$ begin raise notice '%', repeat('x', 1000); end $$; begin; commit; selec", False),
        (
            "do $$ begin raise notice '%', repeat('x', 1000); end $$; begin; commit; select 1/0",
            True,
        ),
    ],
)
async def test_a_commit_is_seen_exactly_if_it_was_done(
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    *,
    size: int,
    statements: str,
    has_committed: bool,
) -> None:
    take = CommitWatch.data_received

    def take_pieces(watch: CommitWatch, data: bytes) -> None:
        for at in range(0, len(data), size):
            take(watch, data[at : at + size])

    monkeypatch.setattr(CommitWatch, "data_received", take_pieces)
    async with database.connected() as connection:
        assert await run(connection, statements) is has_committed
        assert await connection.fetchval("select 42") == 42


async def test_a_flood_of_notices_hides_no_commit(database: Database) -> None:
    async with database.connected() as connection:
        assert await run(connection, f"{FLOOD}; begin; commit; select 1/0") is True
        assert await connection.fetchval("select 42") == 42


class Counting:
    """Counts the bytes that a driver gets."""

    def __init__(self, driver: asyncio.Protocol) -> None:
        self.driver = driver
        self.count = 0

    def data_received(self, data: bytes) -> None:
        self.count += len(data)
        self.driver.data_received(data)


@pytest.mark.parametrize("raised", ["notice '%',", "exception using errcode = '57014', message ="])
async def test_of_a_gigantic_message_asyncpg_gets_little(database: Database, raised: str) -> None:
    block = f"do $$ begin raise {raised} repeat('\u00e9', 20000000); end $$"
    async with database.connected() as connection:
        with CommitWatch(connection) as watch:
            counting = Counting(watch._driver)
            watch._driver = counting  # type: ignore[assignment]
            [outcome] = await asyncio.gather(connection.execute(block), return_exceptions=True)
            watch._driver = counting.driver
        if "errcode" in raised:
            assert isinstance(outcome, asyncpg.QueryCanceledError)
            assert "\u00e9" * 9999 in str(outcome)
            assert outcome.context
        assert 0 < counting.count < 100_000
        assert await connection.fetchval("select 42") == 42


async def test_asyncpg_reads_again_only_after_a_whole_message(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_begun = asyncio.Event()
    take = CommitWatch._take_piece

    def take_piece(watch: CommitWatch, data: bytes) -> None:
        take(watch, data)
        is_begun.set()

    monkeypatch.setattr(CommitWatch, "_take_piece", take_piece)
    block = "do $$ begin raise notice '%', repeat('x', 50000000); end $$"
    async with database.connected() as connection:
        with CommitWatch(connection) as watch:
            running = asyncio.create_task(connection.execute(block), name="raise")
            await is_begun.wait()
            assert watch._is_in_message
        await running
        assert await connection.fetchval("select 42") == 42


@pytest.mark.asyncio_loop
async def test_of_a_flood_one_piece_is_read_in_each_turn(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    take = CommitWatch._take_piece

    def take_piece(watch: CommitWatch, data: bytes) -> None:
        sizes.append(len(data))
        take(watch, data)

    async with database.connected() as connection, counted_turns() as turns:
        monkeypatch.setattr(CommitWatch, "_take_piece", turns.counted(take_piece))
        await run(connection, f"{FLOOD}; begin; commit")
    assert sum(sizes) > 990_000
    assert turns.most == 1
    # The event loop and the system decide how much one read brings.
    assert max(sizes) <= 32 * 1024


async def test_of_a_flood_nothing_is_read_once_its_connection_is_cut(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[bytes] = []

    def take_piece(watch: CommitWatch, data: bytes) -> None:
        taken.append(data)
        watch._transport.abort()

    monkeypatch.setattr(CommitWatch, "_take_piece", take_piece)
    async with database.connected() as connection:
        with pytest.raises(asyncpg.ConnectionDoesNotExistError), CommitWatch(connection):
            await connection.execute(FLOOD)
    assert len(taken) == 1


@pytest.mark.parametrize(
    ("statements", "is_told"),
    [
        ("begin; commit; select 1", True),
        ("begin; commit; select 1/0", False),
        ("begin; commit; do $$ begin raise exception 'SELECT 1'; end $$", False),
        ("begin; select 1", True),
        ("begin; commit; select 2 where false", False),
    ],
)
async def test_asyncpg_believes_in_the_next_transaction_only_after_a_block_without_errors(
    database: Database, statements: str, *, is_told: bool
) -> None:
    async with database.connected() as connection:
        with CommitWatch(connection, tells_begun=True), suppress(asyncpg.PostgresError):
            await connection.execute(statements)
        assert connection.is_in_transaction() is is_told
        await connection.execute("rollback")
        assert not connection.is_in_transaction()


async def test_a_setting_that_reads_like_a_result_hides_no_error(database: Database) -> None:
    """After a failed commit, Postgres reports the settings that it restores."""
    async with database.connected() as connection:
        await connection.execute(
            "set timezone = 'SELECT 1';"
            "create table kept (id int primary key deferrable initially deferred)"
        )
        await connection.execute("begin; set timezone = 'UTC'; insert into kept values (1), (1)")
        with (
            CommitWatch(connection, tells_begun=True),
            pytest.raises(asyncpg.UniqueViolationError),
        ):
            await connection.execute("select 1; commit; reset all; select 1")
        assert not connection.is_in_transaction()
