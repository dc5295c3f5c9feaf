"""A request and its response, as the layer around every route keeps them."""

import gc
from collections.abc import Iterator

import pytest

from app.api.http.exchange import Exchange
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
