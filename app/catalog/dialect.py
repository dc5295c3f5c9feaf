"""SQLAlchemy's dialect for the catalog: that of any Postgres, with fewer round trips."""

from typing import Any

import asyncpg
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg

NAME = "postgresql+catalog"

_IS_LOST = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    ConnectionError,
)


class CatalogDialect(PGDialect_asyncpg):
    """Checks a connection before each use in one round trip instead of three.

    The other two are needed with poolers only, and there is none between service and catalog.
    """

    supports_statement_cache = True

    def do_ping(self, dbapi_connection: Any) -> bool:  # noqa: ANN401 - SQLAlchemy's, untyped
        """Check whether the connection still works; if not, a new one replaces it."""
        try:
            dbapi_connection.run_async(lambda connection: connection.execute("SELECT 1"))
        except _IS_LOST:
            return False
        return True


registry.register(NAME.replace("+", "."), __name__, CatalogDialect.__name__)
