"""What every test uses: a clean environment, and the fixtures, one topic per plugin."""

import asyncio
import os
import sys
from collections.abc import Callable, Mapping
from itertools import islice

import pytest
import uvloop
from hypothesis import settings

# Without a cache each process that a test starts compiles the whole service again.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Commands that a test starts keep their output until the end, like those of users.
os.environ.pop("PYTHONUNBUFFERED", None)

pytest_plugins = [
    "tests.fixtures.canary",  # before any secret is made
    "tests.fixtures.loggers",
    "tests.fixtures.postgres",  # the others import it
    "tests.fixtures.catalog",
    "tests.fixtures.private_postgres",
    "tests.fixtures.served",  # before tls, which imports it
    "tests.fixtures.tls",
    "tests.fixtures.proxy",
    "tests.fixtures.pools",  # after proxy, which it imports
    "tests.fixtures.network",  # after both
    "tests.fixtures.control",  # after pools and catalog, which it imports
    "tests.fixtures.roles",
    "tests.fixtures.app",  # after catalog and roles, which it imports
]

# Counterexamples are searched without a time limit, because machines differ.
settings.register_profile("tests", deadline=None, max_examples=100, stateful_step_count=40)
settings.load_profile("tests")


def pytest_sessionstart() -> None:
    """Without this, pytest-asyncio's look at "the current loop" makes one that nobody closes."""
    asyncio.set_event_loop(None)


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Every test runs on the service's event loop, except for those that need asyncio's own."""
    if any(item.get_closest_marker(name) for name in ("looptime", "asyncio_loop")):
        return {"asyncio": asyncio.new_event_loop}
    return {"uvloop": uvloop.new_event_loop}


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest first, whatever the order: no worker is left with one at the end.

    Each worker gets its share of them: xdist deals the tests out in parts of equal length. Those of
    the page follow in the first part, because each worker that has one starts a browser.
    """
    items.sort(key=lambda item: (-_seconds(item), "tab" not in getattr(item, "fixturenames", ())))
    count = sum(1 for item in items if _seconds(item))
    long, others = items[:count], iter(items[count:])
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    left = len(items)
    items.clear()
    for worker in range(workers):
        share = left // (workers - worker)
        part = long[worker::workers]
        part += islice(others, max(0, share - len(part)))
        left -= len(part)
        items += part


def _seconds(item: pytest.Item) -> float:
    """How long a test takes that is marked as long; otherwise 0."""
    marker = item.get_closest_marker("long")
    return float(marker.args[0]) if marker and marker.args else 10.0 * (marker is not None)


@pytest.fixture(autouse=True)
def scrubbed_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The developer's own settings and Postgres variables change no result."""
    for name in os.environ:
        if name.upper().startswith(("POOLKEEPER_", "PG")):
            monkeypatch.delenv(name)
