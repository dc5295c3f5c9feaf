"""The PgBouncer node in the service's own process, if a PgBouncer is installed."""

import socket
from functools import partialmethod
from pathlib import Path

import psycopg
import pytest
from structlog.testing import capture_logs

from app.api.routes import tenants
from app.control.nodes.feed import NodeFeed
from app.node.errors import CannotStart
from app.runtime import local_node as module
from tests.fixtures.app import Api, ApiWith, ok, serving
from tests.fixtures.pgbouncer import installed_pgbouncer
from tests.fixtures.ports import free_port
from tests.fixtures.postgres import Database
from tests.fixtures.processes import is_root, processes_about
from tests.fixtures.waiting import eventually

pytestmark = pytest.mark.usefixtures("scrub_roles")


async def test_applications_connect_to_the_node_beside_the_service(
    database: Database,
    catalog_database: Database,
    enterable_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # However busy this machine is: the responses wait for the node.
    monkeypatch.setattr(NodeFeed, "settle", partialmethod(NodeFeed.settle, seconds=180.0))
    monkeypatch.setattr(tenants, "_NODES_SECONDS", 180.0)
    installed_pgbouncer()
    port = free_port()
    async with serving(
        database, catalog_database, enterable_path, node="auto", node_port=port
    ) as api:
        url = await api.tenant("acme")

        async def is_ready() -> bool:
            return str(ok(await api.client.get("/v1/nodes/local"))["state"]) == "ready"

        await eventually(is_ready)

        async def connect() -> psycopg.AsyncConnection:
            return await psycopg.AsyncConnection.connect(
                host="127.0.0.1",
                port=port,
                dbname="acme",
                user=issued["user"],
                password=issued["password"],
                sslmode="disable",
                connect_timeout=180,
                autocommit=True,
            )

        async def role_of(connection: psycopg.AsyncConnection) -> str:
            found = await (await connection.execute("SELECT session_user")).fetchone()
            return str(found[0]) if found else ""

        # The response to a change means that the node has it.
        for path in (f"{url}/credentials/web", url):
            issued = ok(await api.client.post(f"{url}/credentials", json={"name": "web"}), 201)
            async with await connect() as connection:
                assert await role_of(connection) == "tenant_acme"
                ok(await api.client.delete(path))
                with pytest.raises(psycopg.OperationalError):
                    await role_of(connection)
            with pytest.raises(psycopg.OperationalError):
                await connect()
        shown = ok(await api.client.get("/v1/nodes/local"))
        assert shown["address"] == f"127.0.0.1:{port}"
        assert processes_about(str(enterable_path / "node"))
    assert not processes_about(str(enterable_path / "node"))


async def state_and_problem(api: Api) -> tuple[str, str | None]:
    shown = ok(await api.client.get("/v1/nodes/local"))
    return shown["state"], shown["problem"]


@pytest.mark.skipif(not is_root(), reason="only root's PgBouncer is another user's")
async def test_roots_pgbouncer_can_enter_a_fresh_data_directory(
    database: Database, catalog_database: Database, enterable_path: Path
) -> None:
    installed_pgbouncer()
    data_dir = enterable_path / "data"
    async with serving(
        database,
        catalog_database,
        data_dir,
        node="auto",
        node_port=free_port(),
        secret_key=None,
    ) as api:
        await eventually(lambda: _is(api, "ready", None))


@pytest.mark.skipif(not is_root(), reason="only root's PgBouncer is another user's")
async def test_a_pgbouncer_that_cannot_enter_its_directory_says_which_and_starts_once_it_can(
    database: Database, catalog_database: Database, enterable_path: Path
) -> None:
    installed_pgbouncer()
    data_dir = enterable_path / "data"
    data_dir.mkdir(mode=0o700)
    async with serving(
        database, catalog_database, data_dir, node="auto", node_port=free_port()
    ) as api:
        await eventually(lambda: api.service.fleet.node("local").latest)
        state, problem = await state_and_problem(api)
        assert state == "joining"
        assert f"who cannot enter the directory {data_dir}. Run: chmod o+x {data_dir}" in str(
            problem
        )
        metrics = (await api.client.get("/metrics")).text
        assert 'poolkeeper_node_problem{node="local"} 1.0' in metrics
        data_dir.chmod(0o711)
        await eventually(lambda: _is(api, "ready", None))


async def _is(api: Api, state: str, problem: str | None) -> bool:
    return await state_and_problem(api) == (state, problem)


async def test_a_port_that_another_process_has_is_reported_until_it_is_free(
    database: Database, catalog_database: Database, enterable_path: Path
) -> None:
    installed_pgbouncer()
    port = free_port()
    with socket.create_server(("127.0.0.1", port)) as taken:
        serves = serving(database, catalog_database, enterable_path, node="auto", node_port=port)
        async with serves as api:
            await eventually(lambda: api.service.fleet.node("local").latest)
            state, problem = await state_and_problem(api)
            assert state == "joining"
            assert f"cannot listen on 127.0.0.1, port {port}" in str(problem)
            taken.close()
            await eventually(lambda: _is(api, "ready", None))


async def test_without_a_pgbouncer_the_service_works_and_says_what_to_install(
    api_with: ApiWith, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> None:
        raise CannotStart("Install the package pgbouncer.")

    monkeypatch.setattr(module, "find_pgbouncer", none)
    with capture_logs() as logs:
        async with api_with(node="auto") as api:
            url = await api.tenant("acme")
            assert await api.value(url, "SELECT session_user") == "tenant_acme"
            # Where operators look for the problems of nodes.
            assert await _is(api, "joining", "Install the package pgbouncer.")
            metrics = (await api.client.get("/metrics")).text
            assert 'poolkeeper_node_problem{node="local"} 1.0' in metrics
            assert ok(await api.client.get("/v1/stats"))["nodes"]["troubled"] == 1
    [warning] = [each for each in logs if each["event"] == "no PgBouncer node"]
    assert warning["reason"] == "Install the package pgbouncer."
