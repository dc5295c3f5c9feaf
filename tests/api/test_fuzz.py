"""The whole document, fuzzed: every request, valid or not, gets an answer that it describes.

`schemathesis.toml` says how, with the reason for each exception.
"""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import pytest
import uvicorn
from fastapi import FastAPI, HTTPException, Query
from pydantic import BaseModel, ConfigDict, Field

from app.api.auth.api_key import api_key_for, new_token
from app.api.auth.key_file import KeyList
from app.api.auth.key_scope import KeyScope
from tests.fixtures.canary import watch
from tests.fixtures.processes import completed
from tests.fixtures.served import Serve

CONFIG = Path(__file__).with_name("schemathesis.toml")
ANSWERS = "answers.har"
TENANTS = {"acme": "per_tenant", "shared-one": "shared", "own-database": "per_database"}


async def fuzzed(url: str, directory: Path, *options: str) -> tuple[int, str]:
    """Fuzz what is served at *url*; returns the exit status, and the findings."""
    done = await completed(
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG)),
        *("run", f"{url}/openapi.json", "--no-color", "--report", "har"),
        *("--report-har-path", str(directory / ANSWERS), *options),
        seconds=1800.0,
        cwd=directory,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.long(120)
async def test_the_whole_document_holds(serve: Serve, tmp_path: Path) -> None:
    token = new_token()
    scopes = (KeyScope.ADMIN, KeyScope.QUERY)
    key = api_key_for(token, name="fuzzer", scopes=scopes, created_at=datetime.now(UTC))
    (tmp_path / "data").mkdir(mode=0o700)
    keys = tmp_path / "data" / "keys.json"
    keys.write_text(KeyList(keys=(key,)).model_dump_json())
    keys.chmod(0o600)
    async with serve(rate_limit=0, query_on_shared="true") as service:
        authorization = f"Bearer {token}"
        service.client.headers["Authorization"] = authorization
        for tenant, strategy in TENANTS.items():
            await service.tenant(tenant, strategy)
        address = str(service.client.base_url).rstrip("/")
        options = ["-H", f"Authorization: {authorization}"]
        # The one answer without an end.
        options += ["--exclude-path", "/v1/stats/stream"]
        status, found = await fuzzed(address, tmp_path, *options)
        assert status == 0, found
        assert await service.is_ready()
    watch.look_through("fuzzed answers", tmp_path / ANSWERS)
    print(found[found.index("SUMMARY") :])  # noqa: T201 - the number of cases, for who asks


class Planted(BaseModel):
    """The bodies that the faulty application accepts: of the same shapes as ours."""

    model_config = ConfigDict(strict=True, extra="forbid")

    low: Annotated[int, Field(ge=0, le=10_000)]
    high: Annotated[int, Field(ge=0, le=10_000)] = 5
    name: Annotated[str, Field(max_length=48)] = "acme"
    labels: dict[str, str] = {}


def _crossed(body: Planted) -> bool:
    return body.low > body.high


def _at_its_limit(body: Planted) -> bool:
    return body.low == 10_000


def _not_ascii(body: Planted) -> bool:
    return not body.name.isascii()


Fault = Callable[[Planted], bool]
FAULTS: tuple[Fault, ...] = (
    _crossed,
    _at_its_limit,
    _not_ascii,
)


def faulty_app() -> FastAPI:
    """An application in which each route answers 500 to one kind of request that fits it."""
    app = FastAPI()
    for fault in FAULTS:
        app.put(f"/{_name(fault)}/{{tenant}}", responses={400: {}})(_route(fault))
    return app


def _name(fault: Fault) -> str:
    return fault.__name__.strip("_")


def _route(fault: Fault) -> Callable[[str, Planted, int], Planted]:
    def change(
        tenant: str, body: Planted, limit: Annotated[int, Query(ge=1, le=1000)] = 50
    ) -> Planted:
        if fault(body):
            raise HTTPException(500)
        return body

    return change


@asynccontextmanager
async def listening(app: FastAPI) -> AsyncIterator[str]:
    """Serve an application in this process; returns its address."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        serving = asyncio.create_task(server.serve([listener]), name="faulty application")
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving


@pytest.mark.long
async def test_planted_faults_are_found_with_the_same_settings(tmp_path: Path) -> None:
    async with listening(faulty_app()) as address:
        status, found = await fuzzed(address, tmp_path)
    assert status == 1, found
    for fault in FAULTS:
        name = _name(fault)
        section = found.partition(f"PUT /{name}/{{tenant}} __")[2].partition("\n____")[0]
        assert "Server error" in section, f"{name} was not found\n{found}"
