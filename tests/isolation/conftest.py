"""One arena per strategy for all attacks of a module, and a summary at the end."""

from collections import Counter
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from app.domain.tenant import PoolStrategy
from tests.fixtures.postgres import Database, fresh_database
from tests.fixtures.roles import drop_roles
from tests.isolation.arena import Arena, arenas_on


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def arenas(postgres_server: Database) -> AsyncIterator[dict[PoolStrategy, Arena]]:
    async with (
        fresh_database(postgres_server, template="template1") as database,
        arenas_on(database) as arenas,
    ):
        yield arenas
    await drop_roles(postgres_server)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many attacks were tried under each strategy, and their outcomes."""
    seen = Counter(
        value
        for report in terminalreporter.stats.get("passed", [])
        for name, value in getattr(report, "user_properties", [])
        if name == "isolation verdict"
    )
    if seen:
        terminalreporter.section("attacks on isolation")
        for what, count in sorted(seen.items()):
            terminalreporter.line(f"{what}: {count}")
