"""A start that cannot succeed: one sentence that says why, exit status 1, no traceback."""

import json
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from struct import pack
from threading import Thread
from typing import Any

import asyncpg
import pytest
from typer.testing import CliRunner

from app.api import openapi
from app.catalog.database_requirements import ServerFacts, unmet_requirement
from app.cli.main import cli
from tests.fixtures.canary import SECRET_KEY
from tests.fixtures.ports import free_port
from tests.fixtures.postgres import Database, run_apart

PASSWORD = "start-role-pw"
ROLE = "start_role"
Prepare = Callable[[asyncpg.Connection], Awaitable[None]]


pytestmark = pytest.mark.usefixtures("restored_loggers")


@pytest.fixture(autouse=True)
def _without_a_document(monkeypatch: pytest.MonkeyPatch) -> None:
    """Making it takes longer than everything else, and nobody reads it."""
    monkeypatch.setattr(openapi, "document", lambda _: {})


def environment(
    server: Database, catalog: Database, data_dir: Path, **changes: str
) -> dict[str, str]:
    """Settings of a service on *server*, with its catalog elsewhere."""
    given = {"DATA_DIR": str(data_dir), "SECRET_KEY": SECRET_KEY, "PORT": str(free_port())}
    for prefix, database in (("SERVERS__LOCAL", server), ("CATALOG", catalog)):
        given |= {
            f"{prefix}__HOST": database.host,
            f"{prefix}__PORT": str(database.port),
            f"{prefix}__USER": database.user,
            f"{prefix}__PASSWORD": database.password,
            f"{prefix}__DATABASE": database.database,
            f"{prefix}__TLS": "disable",
        }
    return {f"POOLKEEPER_{name}": value for name, value in {**given, **changes}.items()}


def refusal(environment: dict[str, str]) -> str:
    """Why `serve` does not start."""
    ended = CliRunner().invoke(cli, ["serve"], env=environment)
    assert ended.exit_code == 1, ended.stderr
    assert "Traceback" not in ended.output
    events = [json.loads(line) for line in ended.stderr.splitlines()]
    [reason] = [each["reason"] for each in events if each["event"] == "cannot start"]
    assert "\n" not in reason
    return str(reason)


def sql(*statements: str) -> Prepare:
    """Run statements as superuser in the catalog's database."""

    async def run(connection: asyncpg.Connection) -> None:
        for statement in statements:
            await connection.execute(statement)

    return run


NOTHING = sql()
GRANTED = sql(f"grant create on schema public to {ROLE}")
FAULTS: dict[str, tuple[Prepare, dict[str, str], str]] = {
    "no right to create": (NOTHING, {}, "GRANT CREATE, USAGE ON SCHEMA public TO start_role;"),
    "wrong password": (NOTHING, {"CATALOG__PASSWORD": "wrong"}, "the password is wrong"),
    "no such role": (NOTHING, {"CATALOG__USER": "nobody_here"}, "the role does not exist"),
    "no such database": (NOTHING, {"CATALOG__DATABASE": "nowhere"}, "the database does not exist"),
    "nobody listens": (NOTHING, {"CATALOG__PORT": "9"}, "connection refused"),
    "no such host": (
        NOTHING,
        {"CATALOG__HOST": "nowhere.invalid"},
        "The catalog cannot be reached:",
    ),
    "no TLS": (NOTHING, {"CATALOG__TLS": "require"}, "The server does not offer TLS."),
    "role may not log in": (sql(f"alter role {ROLE} nologin"), {}, "the role may not log in"),
    "a library that is not there": (
        sql(f"alter role {ROLE} set session_preload_libraries = nowhere"),
        {},
        "the server answers SQLSTATE 58P01 to the login",
    ),
    "no connection free": (sql(f"alter role {ROLE} connection limit 0"), {}, "are in use"),
    "role may not connect": (
        sql(f"revoke connect on database start_catalog from public, {ROLE}"),
        {},
        "the role may not connect to the database",
    ),
    "read-only": (
        sql(f"alter role {ROLE} set default_transaction_read_only = on"),
        {},
        "read-only for role start_role",
    ),
    "no schema": (
        sql(f"alter role {ROLE} set search_path = nowhere"),
        {},
        "none of the schemas in the search_path of role start_role",
    ),
    "tables of others": (
        sql("create table tenants (id text)", f"grant create on schema public to {ROLE}"),
        {},
        'relation "tenants" already exists',
    ),
    "another encoding": (
        sql(
            "drop database start_catalog",
            "create database start_catalog template template0 encoding 'LATIN1' locale 'C'",
        ),
        {},
        "is encoded in LATIN1",
    ),
    "a newer catalog": (
        sql(
            "create table alembic_version (version_num text)",
            "insert into alembic_version values ('9999')",
            f"grant all on alembic_version to {ROLE}",
            f"grant create on schema public to {ROLE}",
        ),
        {},
        "another version of Poolkeeper",
    ),
}


@pytest.fixture
def catalog(postgres_server: Database) -> Iterator[Database]:
    """An empty database that the service's role can connect to, and that role."""

    async def make(connection: asyncpg.Connection) -> None:
        await connection.execute(f"create role {ROLE} login password '{PASSWORD}'")
        await connection.execute("create database start_catalog template template0")

    async def drop(connection: asyncpg.Connection) -> None:
        await connection.execute("drop database start_catalog with (force)")
        await connection.execute(f"drop role {ROLE}")

    run_apart(on(postgres_server, make))
    yield replace(postgres_server, database="start_catalog", user=ROLE, password=PASSWORD)
    run_apart(on(postgres_server, drop))


async def on(database: Database, work: Callable[[asyncpg.Connection], Awaitable[None]]) -> None:
    """Do something over a connection."""
    async with database.connected() as connection:
        await work(connection)


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_start_says_why(
    postgres_server: Database, catalog: Database, tmp_path: Path, fault: str
) -> None:
    prepare, changes, expected = FAULTS[fault]
    # A database cannot be recreated from inside.
    where = "postgres" if fault == "another encoding" else catalog.database
    run_apart(on(replace(postgres_server, database=where), prepare))
    # Like `serve`, without what comes after the catalog.
    given = environment(postgres_server, catalog, tmp_path, **changes)
    ended = CliRunner().invoke(cli, ["migrate"], env=given)
    assert ended.exit_code == 1
    # Nothing else, except for a warning of connections without TLS.
    [said] = [line for line in ended.stderr.splitlines() if "are not protected" not in line]
    event = json.loads(said)
    assert event["event"] == "cannot migrate"
    assert expected in event["reason"]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "the server closes the connection"),
        (
            b"SFATAL\0CX\x1b[2\0M\x1b]0;PWNED\x07\xff\0\0",
            "the server answers an error to the login",
        ),
    ],
    ids=["nothing", "rubbish"],
)
def test_what_is_no_postgres_is_not_quoted(
    postgres_server: Database, catalog: Database, tmp_path: Path, answer: bytes, reason: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            with suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    with client:
                        client.recv(1000)
                        client.sendall(answer and b"E%s%s" % (pack("!i", len(answer) + 4), answer))

        thread = Thread(target=hang_up, name="no postgres", daemon=True)
        thread.start()
        changes = {"CATALOG__PORT": str(listener.getsockname()[1])}
        given = environment(postgres_server, catalog, tmp_path, **changes)
        ended = CliRunner().invoke(cli, ["migrate"], env=given)
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert ended.exit_code == 1, ended.exception
    assert reason in ended.stderr
    assert "PWNED" not in ended.stderr


def test_serving_says_why_it_cannot_start(
    postgres_server: Database, catalog: Database, tmp_path: Path
) -> None:
    assert "GRANT CREATE" in refusal(environment(postgres_server, catalog, tmp_path))


@pytest.mark.parametrize("key", [b"\n", b"\xff\xfe"], ids=["empty", "no text"])
def test_a_damaged_secret_key_stops_the_start(
    postgres_server: Database, catalog: Database, tmp_path: Path, key: bytes
) -> None:
    run_apart(on(replace(postgres_server, database=catalog.database), GRANTED))
    (tmp_path / "secret-key").write_bytes(key)
    given = environment(postgres_server, catalog, tmp_path)
    del given["POOLKEEPER_SECRET_KEY"]
    said = refusal(given)
    assert said == f"Cannot use {tmp_path / 'secret-key'}: it is not a key that Poolkeeper created."


@pytest.mark.parametrize("is_embedded", [True, False])
def test_a_data_directory_that_cannot_be_used_stops_the_start(
    postgres_server: Database, catalog: Database, tmp_path: Path, *, is_embedded: bool
) -> None:
    run_apart(on(replace(postgres_server, database=catalog.database), GRANTED))
    keys = tmp_path / "keys.json"
    # Not even root makes a directory there.
    given = environment(postgres_server, catalog, Path("/proc/poolkeeper"), KEYS_FILE=str(keys))
    keys.write_text('{"keys": []}')
    del given["POOLKEEPER_SECRET_KEY"]
    if is_embedded:
        given = {key: text for key, text in given.items() if "__" not in key}
    assert "/proc/poolkeeper" in refusal(given)


def test_a_bad_file_of_keys_stops_the_start(
    postgres_server: Database, catalog: Database, tmp_path: Path
) -> None:
    path = tmp_path / "keys.json"
    path.write_text("[]")
    path.chmod(0o600)
    assert str(path) in refusal(environment(postgres_server, catalog, tmp_path))


def test_a_port_that_is_taken_stops_the_start(
    postgres_server: Database, catalog: Database, tmp_path: Path
) -> None:
    run_apart(on(replace(postgres_server, database=catalog.database), GRANTED))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        given = environment(postgres_server, catalog, tmp_path, PORT=str(port))
        said = refusal(given)
    assert f"port {port} of 127.0.0.1 (POOLKEEPER_PORT, POOLKEEPER_HOST)" in said
    assert "address already in use" in said


@pytest.mark.parametrize(
    "fact",
    [
        {"version": 13},
        {"encoding": "LATIN1"},
        {"encoding": "SQL_ASCII"},
        {"is_standby": True},
        {"is_read_only": True},
        {"has_no_schema": True},
        {"has_no_schema": True, "hidden_tables": "public"},
    ],
    ids=str,
)
def test_each_reason_against_a_catalog_is_a_sentence_of_its_own(fact: dict[str, Any]) -> None:
    well = ServerFacts(
        version=14,
        encoding="UTF8",
        is_standby=False,
        is_read_only=False,
        database="poolkeeper",
        role="poolkeeper",
        schema="public",
        has_no_schema=False,
        hidden_tables=None,
    )
    assert unmet_requirement(well) is None
    said = unmet_requirement(replace(well, **fact))
    assert said is not None
    assert said[0].isupper()
