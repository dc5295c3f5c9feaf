"""The services that commands call."""

from collections.abc import Iterator

import pytest

from tests.fixtures.echo_service import EchoService, echo_service


@pytest.fixture
def service() -> Iterator[EchoService]:
    """A service that has every resource."""
    with echo_service() as running:
        yield running
