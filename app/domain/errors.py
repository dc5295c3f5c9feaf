"""Every error this project raises on purpose, as one tree.

    PoolkeeperError
    ├── InvalidInput                 what the caller sent can never work
    │   ├── InvalidTenantId
    │   ├── StatementFailed          the tenant's SQL, with its SQLSTATE
    │   │   ├── StatementConflict    it met another transaction: try again
    │   │   └── TooManyLocks         we ended it, for it filled the server's lock table
    │   ├── StatementEndedLease      the tenant's SQL ended the lease's transaction
    │   ├── IdempotencyKeyReused     the key came with another request before
    │   └── UntrustedSqlOnSharedRole
    ├── Forbidden
    │   ├── ReadOnly                 a write in a read-only lease
    │   └── MissingScope · KeyBoundToTenants   the caller's key may not do this
    ├── NotFound
    │   ├── TenantNotFound · ServerNotFound · PoolNotFound · RecommendationNotFound
    ├── Conflict                     what is asked does not fit what exists
    │   ├── ImmutableField · NotProvisioned · ObjectsExist · ProvisioningFailed · PoolIsShared
    │   ├── SchemaMissing            the tenant has nothing to work in
    │   ├── BudgetExceeded · TenantDeleting · RecommendationClosed · StaleVersion
    │   ├── RecommendationIsPlacement    it is a person's work
    │   ├── PreconditionRequired · ReplayTooLarge
    │   └── CatalogInUse · CatalogUnusable   no service can work on this catalog
    ├── LeaseLost                    what became of the request is unknown
    └── Unavailable                  not now: nothing of this request was done, so try again
        ├── PoolTimeout · PoolSaturated · PoolDraining · PoolLimitReached
        ├── ServerUnavailable · ServerFull · ServerReadOnly · ConnectFailed · TenantLoginFailed
        ├── CatalogUnavailable · QueryTimeout · SchemaChanged
        ├── TooManyStreams
        ├── RequestInFlight          this repetition did nothing; the first request goes on

Each class has a stable `code`; which HTTP status it becomes is decided in one table at the
edge (`api/problems.py`). Messages are sentences for a person and hold no secret. This file
must not know HTTP, SQL or a driver.
"""

from __future__ import annotations

from typing import ClassVar


class PoolkeeperError(Exception):
    """Something went wrong in a way Poolkeeper foresees."""

    code: ClassVar[str] = "poolkeeper-error"
    retryable: ClassVar[bool] = False

    def __init__(self, detail: str | None = None) -> None:
        """Keep the sentence; without one the class's own first line is used."""
        super().__init__(detail or (self.__doc__ or "").partition("\n")[0])

    @property
    def detail(self) -> str:
        """The sentence a person reads."""
        return str(self.args[0])


class InvalidInput(PoolkeeperError):
    """The input can never be accepted."""

    code = "invalid-input"


class InvalidTenantId(InvalidInput):
    """A tenant id is 1 to 48 characters of a-z, 0-9 and inner hyphens, and no reserved name."""

    code = "invalid-tenant-id"


class StatementFailed(InvalidInput):
    """Postgres refused the statement."""

    code = "statement-failed"

    def __init__(
        self,
        detail: str,
        *,
        sqlstate: str | None = None,
        hint: str | None = None,
        position: int | None = None,
    ) -> None:
        """Keep what Postgres said of the statement, and nothing of the connection."""
        super().__init__(detail)
        self.sqlstate = sqlstate
        self.hint = hint
        self.position = position


class TooManyLocks(StatementFailed):
    """The statement was ended because it held too many locks."""

    code = "too-many-locks"


class StatementConflict(StatementFailed):
    """The statement met another transaction, and nothing of it was done."""

    code = "statement-conflict"
    retryable = True


class StatementEndedLease(InvalidInput):
    """The statement ended the lease's transaction or changed its tenant context."""

    code = "statement-ended-lease"


class IdempotencyKeyReused(InvalidInput):
    """This idempotency key was used for another request before."""

    code = "idempotency-key-reused"


class UntrustedSqlOnSharedRole(InvalidInput):
    """Free SQL is off for tenants that share one database role."""

    code = "untrusted-sql-on-shared-role"


class Forbidden(PoolkeeperError):
    """This is not allowed."""

    code = "forbidden"


class ReadOnly(Forbidden):
    """The statement writes, but the request is read-only."""

    code = "read-only"


class MissingScope(Forbidden):
    """The key has not the scope that this needs."""

    code = "missing-scope"


class KeyBoundToTenants(Forbidden):
    """The key is bound to some tenants, and this concerns others too."""

    code = "bound-to-tenants"


class NotFound(PoolkeeperError):
    """There is no such thing."""

    code = "not-found"


class TenantNotFound(NotFound):
    """There is no such tenant."""

    code = "tenant-not-found"


class ServerNotFound(NotFound):
    """No server of that name is declared."""

    code = "server-not-found"


class PoolNotFound(NotFound):
    """The tenant has no open pool."""

    code = "pool-not-found"


class RecommendationNotFound(NotFound):
    """There is no such recommendation."""

    code = "recommendation-not-found"


class Conflict(PoolkeeperError):
    """The request does not fit what exists."""

    code = "conflict"


class ImmutableField(Conflict):
    """A tenant's server and strategy cannot change."""

    code = "immutable-field"


class NotProvisioned(Conflict):
    """The tenant has not been provisioned yet."""

    code = "not-provisioned"


class ObjectsExist(Conflict):
    """The role, schema or database exists and was not made for this tenant."""

    code = "objects-exist"


class SchemaMissing(Conflict):
    """The tenant's schema was dropped, renamed or closed to its role; provision the tenant."""

    code = "schema-missing"


class ProvisioningFailed(Conflict):
    """Postgres refused to create or change the tenant's objects."""

    code = "provisioning-failed"


class PoolIsShared(Conflict):
    """The pool serves several tenants; say scope=pool to change it for all of them."""

    code = "pool-is-shared"


class BudgetExceeded(Conflict):
    """The server's connection budget cannot hold this."""

    code = "connection-budget-exceeded"


class TenantDeleting(Conflict):
    """The tenant is being deleted."""

    code = "tenant-deleting"


class RecommendationClosed(Conflict):
    """The recommendation is no longer open."""

    code = "recommendation-closed"


class RecommendationIsPlacement(Conflict):
    """A move takes data along: declare a new tenant, copy the data, then delete this one."""

    code = "recommendation-is-a-move"


class StaleVersion(Conflict):
    """The resource changed since the version named in If-Match."""

    code = "stale-version"


class PreconditionRequired(Conflict):
    """Say in If-Match which version is meant, or * for any."""

    code = "precondition-required"


class ReplayTooLarge(Conflict):
    """The request was carried out before, but its answer was too large to be kept."""

    code = "replay-too-large"


class CatalogInUse(Conflict):
    """The catalog is in use by another service."""

    code = "catalog-in-use"


class CatalogUnusable(Conflict):
    """The catalog's database cannot hold the catalog."""

    code = "catalog-unusable"


class Unavailable(PoolkeeperError):
    """Not possible right now; the same request may work later."""

    code = "unavailable"
    retryable = True


class PoolTimeout(Unavailable):
    """No connection became free before the deadline."""

    code = "pool-timeout"


class PoolSaturated(Unavailable):
    """Too many callers are waiting for this pool already."""

    code = "pool-saturated"


class PoolDraining(Unavailable):
    """The pool is draining or closed and takes no new lease."""

    code = "pool-draining"


class PoolLimitReached(Unavailable):
    """As many pools as allowed are open, and all of them are busy."""

    code = "pool-limit-reached"


class ServerUnavailable(Unavailable):
    """The database server cannot be reached."""

    code = "server-unavailable"


class ServerFull(Unavailable):
    """The database server accepts no further connection."""

    code = "server-full"


class ConnectFailed(Unavailable):
    """No connection can be opened right now; those that are open go on working."""

    code = "connect-failed"


class ServerReadOnly(Unavailable):
    """The database server takes no writes: default_transaction_read_only is on there."""

    code = "server-read-only"


class TenantLoginFailed(Unavailable):
    """Postgres refused the tenant's own login or database."""

    code = "tenant-login-failed"


class CatalogUnavailable(Unavailable):
    """The catalog cannot be reached; nothing was changed."""

    code = "catalog-unavailable"


class TooManyStreams(Unavailable):
    """As many follow the statistics as may."""

    code = "too-many-streams"


class RequestInFlight(Unavailable):
    """The first request with this idempotency key is still under way."""

    code = "idempotency-key-in-flight"


class LeaseLost(PoolkeeperError):
    """The connection broke while it was leased; whether the work was committed is unknown."""

    code = "lease-lost"


class QueryTimeout(Unavailable):
    """The statement ran longer than its timeout and was cancelled."""

    code = "query-timeout"


class SchemaChanged(Unavailable):
    """The types of the statement changed while it ran; nothing of it was done."""

    code = "schema-changed"
