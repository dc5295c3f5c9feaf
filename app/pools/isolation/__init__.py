"""What each strategy does at connect, at lease and at provisioning.

Only what strategies promise is here; who gets a connection, and when, is the pool's business.
"""

from app.pools.isolation.per_database import PerDatabaseIsolation
from app.pools.isolation.per_tenant import PerTenantIsolation
from app.pools.isolation.shared import SharedIsolation
from app.pools.isolation.strategy import IsolationStrategy, is_schema_missing, schema_missing

__all__ = [
    "IsolationStrategy",
    "PerDatabaseIsolation",
    "PerTenantIsolation",
    "SharedIsolation",
    "is_schema_missing",
    "schema_missing",
]
