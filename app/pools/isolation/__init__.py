"""What each strategy does at connect, at lease and at provisioning.

One file a strategy, all of one shape (`Isolation`). Only what a strategy promises lives here;
who gets a connection and when is the pool's business.
"""

from app.pools.isolation.isolation import Isolation, schema_is_missing
from app.pools.isolation.per_database import PerDatabase
from app.pools.isolation.per_tenant import PerTenant
from app.pools.isolation.shared import Shared

__all__ = ["Isolation", "PerDatabase", "PerTenant", "Shared", "schema_is_missing"]
