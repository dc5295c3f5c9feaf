"""The disk of the catalog's server is full: reads go on, and nothing is lost or done twice."""

import os
import subprocess
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest
from httpx import Response

from app.embedded import EmbeddedPostgres
from tests.faults.test_primary_becomes_standby import demote, promote, replicable
from tests.fixtures.app import ok, problem
from tests.fixtures.postgres import Database
from tests.fixtures.private_postgres import superuser_of
from tests.fixtures.served import Serve
from tests.fixtures.waiting import eventually

_MEBIBYTE = bytes(1 << 20)


@pytest.fixture
def small_disk(enterable_path: Path, prepared_cluster: Path) -> Iterator[Path]:
    """A file system of 160 MiB with a server's data; only root can mount one."""
    disk = enterable_path / "disk"
    disk.mkdir()
    mounting = ["/bin/mount", "-t", "tmpfs", "-o", "size=160m,mode=711", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mounting, check=False).returncode != 0:
        pytest.skip("needs the right to mount a file system")
    try:
        subprocess.run(["/bin/cp", "--archive", prepared_cluster, disk / "data"], check=True)
        yield disk
    finally:
        subprocess.run(["/bin/umount", "--lazy", disk], check=True)


@pytest.fixture
async def catalog_server(small_disk: Path) -> AsyncIterator[EmbeddedPostgres]:
    """The catalog's server, on the small disk."""
    server = EmbeddedPostgres(small_disk / "data", max_connections=30, durable=False)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """Fill the disk for a block."""
    filler = disk / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(_MEBIBYTE) == len(_MEBIBYTE):
            pass
    try:
        yield
    finally:
        filler.unlink()


async def use_up_the_log(database: Database) -> None:
    """Let Postgres need new files for its write-ahead log, until it crashes without them."""
    with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        async with database.connected() as admin:
            while True:
                await admin.execute("CREATE TABLE IF NOT EXISTS t (); DROP TABLE t")
                await admin.execute("SELECT pg_switch_wal()")


@pytest.mark.parametrize("is_log_full", [False, True], ids=["tables", "log"])
async def test_what_was_answered_is_kept_and_what_was_refused_is_not(
    serve: Serve,
    catalog_server: EmbeddedPostgres,
    small_disk: Path,
    tmp_path: Path,
    *,
    is_log_full: bool,
) -> None:
    """A full log crashes the catalog's server: then it is away until there is room again."""
    address = await catalog_server.start()
    database = replace(await superuser_of(catalog_server), database=address.catalog_database)
    answers: dict[int, set[str]] = defaultdict(set)
    async with serve(catalog_in=database) as service:
        await service.tenant("acme")

        async def declare() -> Response:
            name = f"t{sum(map(len, answers.values()))}"
            body = {"strategy": "per_tenant", "labels": {"room": "x" * 60}}
            response = await service.client.put(f"/v1/tenants/{name}", json=body)
            is_unknown = "it is unknown if anything was changed" in response.text
            answers[0 if is_unknown else response.status_code].add(name)
            return response

        with full(small_disk):
            if is_log_full:
                await use_up_the_log(database)
            while len(answers[503]) < 3:
                response = await declare()
                if response.status_code != 201:
                    detail = problem(response, 503, "catalog-unavailable")["detail"]
                    assert is_log_full or "its disk is full; nothing was changed" in detail
            assert await service.query("acme", "select 42") == 200
            ok(await service.client.get("/v1/events"))
            assert await service.is_ready()
        if is_log_full:
            await eventually(lambda: is_back(catalog_server))
        await eventually(lambda: is_created(declare))
        assert service.process.returncode is None
    async with database.connected() as admin:
        stored = {name for [name] in await admin.fetch("SELECT id FROM tenants")}
        events = "SELECT tenant FROM events WHERE action = 'tenant.created'"
        created = Counter(name for [name] in await admin.fetch(events))
    assert {"acme"} | answers[201] <= stored
    assert not stored & answers[503]
    assert created == Counter(stored)
    assert "Traceback" not in (tmp_path / "service.log").read_text()


async def is_back(server: EmbeddedPostgres) -> bool:
    """Whether the server runs; one that cannot finish its recovery ends by itself."""
    await server.restart_if_crashed()
    try:
        async with (await superuser_of(server)).connected():
            return True
    except (OSError, asyncpg.PostgresError):
        return False


async def is_created(declare: Callable[[], Awaitable[Response]]) -> bool:
    return (await declare()).status_code == 201


async def test_a_catalog_that_becomes_a_standby_is_away_until_it_is_promoted(
    serve: Serve, private_postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    server = await replicable(private_postgres)
    address = await private_postgres.start()
    database = replace(server, database=address.catalog_database)
    async with serve(catalog_in=database) as service:
        await service.tenant("acme")
        await demote(private_postgres)
        url, body = "/v1/tenants/acme", {"strategy": "per_tenant", "weight": 2}

        async def is_named() -> bool:
            response = await service.client.put(url, json=body)
            detail: str = problem(response, 503, "catalog-unavailable")["detail"]
            return "standby" in detail and "nothing was changed" in detail

        await eventually(is_named)
        assert await service.query("acme", "select 42") == 200
        assert await service.is_ready()
        await promote(database)
        await eventually(lambda: is_created(lambda: service.client.put("/v1/tenants/b", json={})))
        assert ok(await service.client.get(url))["weight"] == 1
        assert service.process.returncode is None
    assert "Traceback" not in (tmp_path / "service.log").read_text()
