"""The poolers that must do what `app.node.engine.Engine` says.

Add yours: an `EngineSite` that makes it, and a line here. Then run `pytest
tests/node/test_engine_conformance.py`.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.fixtures.postgres import Database
from tests.node.site import EngineSite, Site

ENGINES: Mapping[str, Callable[[Database, Path], EngineSite[Any]]] = {"PgBouncer": Site.beside}
"""By name, a place for one before a database, with a directory that does not exist yet."""
