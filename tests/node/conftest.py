"""Debian's PgBouncer before a database of the test's own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.fixtures.missing import missing
from tests.fixtures.postgres import Database
from tests.node.site import Site


@pytest.fixture
def site(database: Database, enterable_path: Path, scrub_roles: None) -> Site:
    """A place for a node; `make_roles` makes the tenants that it is to serve."""
    program = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin")
    if program is None:
        missing("No PgBouncer: Debian's package `pgbouncer` is not installed.")
    return Site(database, Path(program), enterable_path / "node")
