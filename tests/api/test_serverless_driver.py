"""POST /sql with Neon's own driver, unchanged, and with Drizzle on top of it."""

import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fixtures.missing import missing
from tests.fixtures.programs import PROGRAMS, printed
from tests.fixtures.served import Serve, Served

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "serverless.md").read_text("utf-8")


@pytest.fixture
async def service(serve: Serve) -> AsyncIterator[Served]:
    """A service that is patient with a thousand callers on a busy machine, and logs all it can."""
    if shutil.which("node") is None or not (PROGRAMS / "node_modules").is_dir():
        missing("The driver is not installed. Run: npm ci --prefix tests/drivers")
    async with serve(
        acquire_timeout_seconds=240, query_timeout_seconds=240, log_level="DEBUG"
    ) as running:
        yield running


async def run(service: Served, connection_string: str, *arguments: str) -> str:
    """The output of a program that uses the service."""
    endpoint = str(service.client.base_url.join("/sql"))
    return await printed(
        "node", *arguments, POOLKEEPER_SQL=endpoint, DATABASE_URL=connection_string
    )


async def test_programs_of_the_driver_work(service: Served, tmp_path: Path) -> None:
    await service.tenant("acme")
    created = await service.client.post("/v1/tenants/acme/credentials", json={"name": "web"})
    url = created.json()["connection_string"]
    # A thousand at once need a credential that was not used for a while.
    for program in ("concurrency.mjs", "statements.mjs", "drizzle.mjs"):
        assert await run(service, url, program) == "done\n", program
    [shown] = re.findall(r"^```js\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert await run(service, url, "--input-type=module", "--eval", shown) == "1 visits\n"
    # Not even at DEBUG.
    assert created.json()["password"] not in (tmp_path / "service.log").read_text()
