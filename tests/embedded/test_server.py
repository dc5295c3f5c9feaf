"""The embedded Postgres of one service, from start to stop."""

import asyncio
import stat
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

from app.embedded import EmbeddedPostgres, EmbeddedPostgresError, embedded_postgres
from tests.fixtures.postgres import Database, run_apart
from tests.fixtures.private_postgres import superuser_of
from tests.fixtures.processes import command_line, family, is_alive, is_root, service_process
from tests.fixtures.waiting import eventually


def embedded(data_dir: Path, max_connections: int = 20) -> EmbeddedPostgres:
    return EmbeddedPostgres(data_dir, max_connections=max_connections, durable=False)


async def show(database: Database, setting: str) -> str:
    async with database.connected() as connection:
        return str(await connection.fetchval(f"SHOW {setting}"))


async def test_stop_leaves_no_process(prepared_directory: Path) -> None:
    postgres = embedded(prepared_directory)
    await postgres.start()
    assert postgres.pid is not None
    members = family(postgres.pid)
    assert len(members) > 3
    await postgres.stop()
    assert not [pid for pid in members if is_alive(pid)]
    assert postgres.pid is None


async def test_stop_is_safe_before_start_and_twice(prepared_directory: Path) -> None:
    postgres = embedded(prepared_directory)
    await postgres.stop()
    await postgres.start()
    await postgres.stop()
    await postgres.stop()


async def test_start_twice_is_one_server(private_postgres: EmbeddedPostgres) -> None:
    pid = private_postgres.pid
    assert await private_postgres.start() == await private_postgres.start()
    assert private_postgres.pid == pid


def test_start_and_stop_may_happen_on_different_event_loops(prepared_directory: Path) -> None:
    postgres = embedded(prepared_directory)
    run_apart(postgres.start())
    run_apart(postgres.stop())
    assert postgres.pid is None


async def test_data_survives_a_stop(prepared_directory: Path) -> None:
    postgres = embedded(prepared_directory)
    async with (await superuser_of(postgres)).connected() as connection:
        await connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    await postgres.stop()
    async with (await superuser_of(postgres)).connected() as connection:
        assert await connection.fetchval("SELECT answer FROM kept") == 42
    await postgres.stop()


async def test_a_second_service_is_refused_and_the_first_named(enterable_path: Path) -> None:
    async with service_process(enterable_path / "data") as holder:
        second = embedded(enterable_path / "data")
        with pytest.raises(EmbeddedPostgresError, match=f"in use by .* \\(pid {holder.pid}\\)"):
            await second.start()
        await second.stop()
        third = embedded(enterable_path / "data")
        with pytest.raises(EmbeddedPostgresError, match="in use"):
            await third.start()
        holder.kill()
        await holder.wait()
        await third.start()
        await third.stop()


async def test_changed_max_connections_count_from_the_next_start(prepared_directory: Path) -> None:
    for max_connections in (20, 35):
        postgres = embedded(prepared_directory, max_connections)
        assert await show(await superuser_of(postgres), "max_connections") == str(max_connections)
        await postgres.stop()


async def test_the_password_file_is_private_and_holds_the_password(enterable_path: Path) -> None:
    postgres = embedded(enterable_path / "data")
    address = await postgres.start()
    file = enterable_path / "data" / "postgres-password"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text() == f"{address.password}\n"
    assert address.password not in repr(address)
    for pid in family(postgres.pid or 0):
        assert address.password not in " ".join(command_line(pid))
    await postgres.stop()


async def test_a_wrong_password_is_refused(postgres_server: Database) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await replace(postgres_server, password="wrong").connect()
    async with postgres_server.connected() as connection:
        stored = await connection.fetchval("SELECT rolpassword FROM pg_authid WHERE oid = 10")
    assert stored.startswith("SCRAM-SHA-256$")


async def test_it_listens_on_loopback_only(postgres_server: Database) -> None:
    assert await show(postgres_server, "listen_addresses") == "127.0.0.1"
    assert await show(postgres_server, "unix_socket_directories") == ""
    bound = [
        line.split()[1].split(":")[0]
        for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
        if table.exists()
        for line in table.read_text().splitlines()[1:]
        if line.split()[3] == "0A"
        and int(line.split()[1].split(":")[1], 16) == postgres_server.port
    ]
    assert bound == ["0100007F"]


async def test_its_databases_are_closed_to_roles_without_a_grant(
    postgres_server: Database, scrub_roles: None
) -> None:
    async with postgres_server.connected() as connection:
        await connection.execute("CREATE ROLE tenant_stranger LOGIN PASSWORD 'known'")
    for name in ("poolkeeper", "poolkeeper_catalog", "postgres", "template1"):
        stranger = replace(postgres_server, user="tenant_stranger", password="known", database=name)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await stranger.connect()


async def test_text_sorts_and_folds_the_same_on_every_machine(postgres_server: Database) -> None:
    async with postgres_server.connected() as connection:
        assert await connection.fetchval("SELECT upper('né')") == "NÉ"
        assert await connection.fetchval("SELECT 'Z' < 'a'")
    assert await show(postgres_server, "server_encoding") == "UTF8"
    assert await show(postgres_server, "timezone") == "UTC"


async def test_the_operators_postgres_variables_are_for_other_servers(
    enterable_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "PGHOST": "nowhere.invalid",
        "PGPORT": "1",
        "PGUSER": "nobody",
        "PGPASSWORD": "nothing",
        "PGSERVICE": "nothing",
        "PGSSLMODE": "require",
        "PGDATA": "/nonexistent",
        "PGTARGETSESSIONATTRS": "standby",
        "PGOPTIONS": "-c nonsense=1",
        "LC_ALL": "xx_XX.UTF-8",
    }.items():
        monkeypatch.setenv(name, value)
    postgres = embedded(enterable_path / "data")
    await postgres.start()
    await postgres.stop()


async def test_statements_of_tenants_do_not_reach_the_log(prepared_directory: Path) -> None:
    postgres = embedded(prepared_directory)
    async with (await superuser_of(postgres)).connected() as connection:
        with pytest.raises(asyncpg.PostgresError):
            await connection.execute("CREATE ROLE a PASSWORD 'hush-hush' NONSENSE")
    await postgres.stop()
    log = (prepared_directory / "postgres.log").read_text()
    assert "ready to accept connections" in log
    assert "hush-hush" not in log
    assert "NONSENSE" not in log


async def test_each_start_begins_a_new_log(prepared_directory: Path) -> None:
    postgres = embedded(prepared_directory)
    for _ in range(3):
        await postgres.start()
        await postgres.stop()
    for name in ("postgres.log", "postgres.log.previous"):
        assert (prepared_directory / name).read_text().count("starting PostgreSQL") == 1


async def test_a_server_that_does_not_start_says_why_and_lets_go(prepared_directory: Path) -> None:
    hopeless = embedded(prepared_directory, max_connections=2)
    with pytest.raises(EmbeddedPostgresError, match=r"does not start(?s:.*)max_connections"):
        await hopeless.start()
    assert hopeless.pid is None
    sensible = embedded(prepared_directory)
    await sensible.start()
    await sensible.stop()


async def test_a_port_that_was_taken_meanwhile_is_exchanged_for_another(
    prepared_directory: Path, postgres_server: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    free_port = embedded_postgres._free_port
    ports = iter([postgres_server.port, postgres_server.port, free_port(), free_port()])
    monkeypatch.setattr(embedded_postgres, "_free_port", lambda: next(ports))
    postgres = embedded(prepared_directory)
    assert (await postgres.start()).port != postgres_server.port
    await postgres.stop()


async def test_a_cancelled_start_leaves_nothing_behind(enterable_path: Path) -> None:
    postgres = embedded(enterable_path / "data")
    start = asyncio.create_task(postgres.start(), name="start")
    await eventually(lambda: postgres.pid)
    members = family(postgres.pid or 0)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert not [pid for pid in members if is_alive(pid)]
    await embedded_again(enterable_path / "data")


async def embedded_again(data_dir: Path) -> None:
    """Check that the directory works as before."""
    postgres = embedded(data_dir)
    await postgres.start()
    await postgres.stop()


async def test_a_lost_password_is_set_again_and_the_data_is_kept(prepared_directory: Path) -> None:
    postgres = embedded(prepared_directory)
    database = await superuser_of(postgres)
    async with database.connected() as connection:
        await connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    await postgres.stop()
    (prepared_directory / "postgres-password").write_text("")
    again = await superuser_of(postgres)
    assert again.password != database.password
    async with again.connected() as connection:
        assert await connection.fetchval("SELECT answer FROM kept") == 42
    await postgres.stop()


async def test_a_password_of_another_cluster_is_named_as_the_cause(
    prepared_directory: Path,
) -> None:
    postgres = embedded(prepared_directory)
    await postgres.start()
    await postgres.stop()
    (prepared_directory / "postgres-password").write_text("0" * 64)
    with pytest.raises(EmbeddedPostgresError, match="remove it to set a new password"):
        await postgres.start()
    (prepared_directory / "postgres-password").unlink()
    await embedded_again(prepared_directory)


async def test_a_directory_that_cannot_be_made_is_named(enterable_path: Path) -> None:
    (enterable_path / "file").touch()
    with pytest.raises(EmbeddedPostgresError, match="file"):
        await embedded(enterable_path / "file").start()
    if not is_root():
        with pytest.raises(EmbeddedPostgresError, match="Permission denied: '/data'"):
            await embedded(Path("/data")).start()


async def test_a_name_full_of_shell_signs_is_only_a_name(enterable_path: Path) -> None:
    await embedded_again(enterable_path / "a b'c\"d$(e)`f`\\g")


async def test_an_absent_wheel_is_named_as_the_cause(enterable_path: Path) -> None:
    postgres = EmbeddedPostgres(
        enterable_path / "data", package=enterable_path, shared_root=enterable_path / "shared"
    )
    with pytest.raises(EmbeddedPostgresError, match=r"do not run|No such file"):
        await postgres.start()
