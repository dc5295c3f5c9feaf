"""PgBouncer in front of the test's own database."""

from pathlib import Path

import pytest

from tests.fixtures.postgres import Database
from tests.node.site import Site


@pytest.fixture
def site(database: Database, enterable_path: Path, scrub_roles: None) -> Site:
    """A place for a node; `make_roles` makes the tenants that it serves."""
    return Site.beside(database, enterable_path / "node")
