"""A request and its response, as the layer around every route keeps them."""

import gc
from collections.abc import Iterator

import pytest

from app.api.http.exchange import Exchange
from app.pools.query.runner import Query
from tests.fixtures.app import Api, ok


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Garbage in cycles stays."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.mark.usefixtures("no_collector")
async def test_a_request_is_freed_without_the_garbage_collector(api: Api) -> None:
    ok(await api.query(await api.tenant("acme"), "select 1"))
    assert [each for each in gc.get_objects() if type(each) is Exchange] == []


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize(
    ("sql", "status"), [("select 1 / 0", 422), ("select pg_sleep(60)", 504)], ids=["error", "late"]
)
async def test_a_failed_statement_is_freed_without_the_garbage_collector(
    api: Api, sql: str, status: int
) -> None:
    url = await api.tenant("acme")
    failed = await api.query(url, sql, timeout_seconds=0.1)
    assert failed.status_code == status
    assert [each for each in gc.get_objects() if type(each) is Query] == []
