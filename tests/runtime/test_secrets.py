"""No secret leaves the service; the watch over every test would see one."""

import os
import subprocess
import sys
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog

from app.catalog.database import CatalogAddress
from app.domain.errors import PoolkeeperError
from app.pools import driver
from app.runtime.logs import LogFormat, configure_logging
from app.settings import Settings
from tests.fixtures.app import Api, serving
from tests.fixtures.canary import CANARY, SECRET_KEY, Watch
from tests.fixtures.catalog import address_of
from tests.fixtures.pools import ROLE_PASSWORDS, login_to
from tests.fixtures.ports import free_port
from tests.fixtures.postgres import Database

pytestmark = pytest.mark.usefixtures("restored_loggers")

LEAKS = """
import asyncio
import logging

import httpx

from tests.fixtures.canary import CANARY


def test_prints():
    print(f"password={CANARY}")


def test_logs():
    logging.getLogger("somewhere").warning("password=%s", CANARY)


def test_logs_a_traceback():
    try:
        raise ValueError(CANARY)
    except ValueError:
        logging.getLogger("somewhere").exception("failed")


def test_is_answered():
    async def ask():
        answer = httpx.MockTransport(lambda _: httpx.Response(500, text=f"password={CANARY}"))
        async with httpx.AsyncClient(transport=answer, base_url="http://leaky") as client:
            await client.get("/")

    asyncio.run(ask())


def test_is_answered_in_a_header():
    async def ask():
        answer = httpx.MockTransport(lambda _: httpx.Response(200, headers={"x": CANARY}))
        async with httpx.AsyncClient(transport=answer, base_url="http://leaky") as client:
            await client.get("/")

    asyncio.run(ask())
"""


def test_the_watch_sees_each_planted_leak_and_fails_the_run(tmp_path: Path) -> None:
    (tmp_path / "test_leaks.py").write_text(LEAKS)
    options = ("--noconftest", "-p", "tests.fixtures.canary", "-p", "no:randomly", "-p", "no:cov")
    run = subprocess.run(
        (sys.executable, "-m", "pytest", *options, "-c", os.devnull, tmp_path),
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "5 passed" in run.stdout, run.stdout + run.stderr
    assert run.returncode == pytest.ExitCode.TESTS_FAILED
    seen = [line for line in run.stdout.splitlines() if "…" in line]
    for name in ("prints", "logs", "logs_a_traceback"):
        assert any(f"::test_{name}:" in line for line in seen), run.stdout
    assert sum("response GET http://leaky" in line for line in seen) == 2


def test_the_watch_sees_a_leak_across_two_pieces_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "log"
    for before in range(len(CANARY) + 2):
        file.write_text("x" * before + CANARY)
        watch = Watch()
        with monkeypatch.context() as patch:
            patch.setattr("tests.fixtures.canary._CHUNK_BYTES", len(CANARY))
            watch.look_through("file", file)
        assert watch.sightings


def test_nothing_that_holds_a_secret_shows_it(postgres_server: Database, tmp_path: Path) -> None:
    settings = Settings.model_validate(
        {
            "data_dir": tmp_path,
            "secret_key": SECRET_KEY,
            "servers": {"local": {"host": "h", "user": "u", "password": postgres_server.password}},
            "catalog": {"host": "h", "user": "u", "password": postgres_server.password},
        }
    )
    login, address = login_to(postgres_server), address_of(postgres_server)
    assert CANARY in login.password
    assert CANARY in ROLE_PASSWORDS.password("local", "tenant_a")
    for thing in (settings, settings.servers, settings.catalog, login, address, ROLE_PASSWORDS):
        shown = f"{thing!r} {thing}"
        assert CANARY not in shown
    assert CANARY not in settings.model_dump_json()


async def test_no_part_of_a_running_service_shows_a_secret(api: Api) -> None:
    await api.tenant("acme")
    service = api.service
    servers = service.manager.servers.values()
    for thing in (
        service,
        *vars(service).values(),
        *servers,
        *(server.admins.login for server in servers),
    ):
        assert CANARY not in f"{thing!r} {thing}"


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize("fault", ["wrong password", "nobody there", "no such database"])
async def test_a_failed_login_is_reported_without_its_password(
    postgres_server: Database,
    capsys: pytest.CaptureFixture[str],
    log_format: LogFormat,
    fault: str,
) -> None:
    faults: dict[str, dict[str, Any]] = {
        "wrong password": {"password": f"{CANARY} and more"},
        "nobody there": {"port": free_port()},
        "no such database": {"database": "nowhere"},
    }
    configure_logging(log_format, "DEBUG")
    with pytest.raises(PoolkeeperError) as raised:
        await driver.connect(replace(login_to(postgres_server), **faults[fault]), timeout=10)
    structlog.get_logger("tests").error("failed", exc_info=raised.value)
    output = capsys.readouterr().err
    assert type(raised.value).__name__ in output
    assert CANARY not in output
    assert CANARY not in "".join(traceback.format_exception(raised.value))


async def test_a_catalog_that_refuses_us_is_reported_without_a_password(
    postgres_server: Database, database: Database, tmp_path: Path
) -> None:
    stranger = replace(postgres_server, password=f"{CANARY} and more")
    with pytest.raises(PoolkeeperError) as raised:
        async with serving(database, stranger, tmp_path):
            pass
    assert CANARY not in "".join(traceback.format_exception(raised.value))


def test_an_engine_does_not_show_the_password(postgres_server: Database) -> None:
    address: CatalogAddress = address_of(postgres_server)
    engine = address.engine(timeout=1)
    assert CANARY not in f"{engine!r} {engine.url!r} {engine.url}"
