"""Every error this project raises on purpose, as one tree.

    PoolkeeperError
    ├── InvalidInput                 the input can never be accepted
    │   ├── InvalidTenantId
    │   ├── StatementFailed          the tenant's SQL, with its SQLSTATE
    │   │   ├── StatementConflict    it conflicted with another transaction: retry
    │   │   └── TooManyLocks         ended because it held too many locks
    │   ├── StatementEndedLease      the tenant's SQL ended the lease's transaction
    │   ├── IdempotencyKeyReused     the key was used for a different request
    │   └── UntrustedSqlOnSharedRole
    ├── Forbidden
    │   ├── ReadOnly                 a write in a read-only lease
    │   ├── MissingScope · KeyBoundToTenants · KeyBoundToNode   the API key does not permit this
    │   └── TlsRequired              a response with passwords needs TLS
    ├── NotFound
    │   ├── TenantNotFound · ServerNotFound · PoolNotFound · RecommendationNotFound
    │   ├── CredentialNotFound · NodeNotFound
    ├── Conflict                     the request does not fit what exists
    │   ├── ImmutableField · NotProvisioned · ObjectsExist · ProvisioningFailed · PoolIsShared
    │   ├── SchemaMissing            the tenant's schema is gone
    │   ├── BudgetExceeded · TenantDeleting · RecommendationClosed · StaleVersion
    │   ├── RecommendationIsPlacement    it cannot be applied automatically
    │   ├── CredentialExists · TooManyCredentials
    │   ├── StrategyNotOnNodes       applications cannot connect as a shared tenant
    │   ├── NodeInUse                it may still have connections
    │   ├── NodeSessionEnded · NodeReportLate   the agent was replaced, or its report overtaken
    │   ├── NodeSessionUnknown       no such session: the catalog was restored
    │   ├── PreconditionRequired · ReplayTooLarge · ReplayHoldsSecret
    │   └── CatalogInUse · CatalogUnusable   no service can work on this catalog
    ├── LeaseLost                    the outcome of the request is unknown
    └── Unavailable                  not now: nothing was done, so retry
        ├── PoolTimeout · PoolSaturated · PoolPaused · PoolDraining · PoolLimitReached
        ├── ServerUnavailable · ServerFull · ServerReadOnly · ConnectFailed · TenantLoginFailed
        ├── CatalogUnavailable
        │   └── LeadershipLost       another instance has become the active one
        ├── QueryTimeout · SchemaChanged
        ├── TooManyStreams · TooManyLogins
        ├── RequestInFlight          this repetition did nothing; the first one goes on

Each class has a stable problem code: its name, PoolTimeout as pool-timeout, unless it says another.
Its HTTP status is in one table at the edge (`api/http/error_responses.py`). Messages are sentences
for a person and hold no secret. This file must not know HTTP, SQL or a driver.
"""

import re
from collections.abc import Mapping
from typing import ClassVar


class PoolkeeperError(Exception):
    """An error that Poolkeeper expects and reports.

    Attributes:
        hint: what may help, if known.
        statement: the index of the statement that failed, from 0.
    """

    code: ClassVar[str] = "poolkeeper-error"
    retryable: ClassVar[bool] = False
    hint: str | None = None
    statement: int | None = None

    def __init_subclass__(cls) -> None:
        if "code" not in cls.__dict__:
            cls.code = re.sub(r"(?<!^)(?=[A-Z])", "-", cls.__name__).lower()

    def __init__(self, detail: str | None = None) -> None:
        """*detail* is one sentence; by default the first line of the class docstring."""
        super().__init__(detail or (self.__doc__ or "").partition("\n")[0])

    @property
    def detail(self) -> str:
        """One sentence for people."""
        return str(self.args[0])

    def suggest(self, hint: str | None) -> None:
        """Add a hint: what may help."""
        self.hint = hint

    def locate(self, statement: int) -> None:
        """Add the index of the statement that failed, from 0."""
        self.statement = statement


class InvalidInput(PoolkeeperError):
    """The input can never be accepted."""


class InvalidTenantId(InvalidInput):
    """A tenant id is 1 to 48 characters of a-z, 0-9 and inner hyphens, and no reserved name."""


class StatementFailed(InvalidInput):
    """Postgres refused the statement."""

    def __init__(
        self,
        detail: str,
        *,
        sqlstate: str | None = None,
        hint: str | None = None,
        position: int | None = None,
        fields: Mapping[str, str] | None = None,
    ) -> None:
        """*fields*: everything that Postgres reported, by the letters of its protocol."""
        super().__init__(detail)
        self.sqlstate = sqlstate
        self.hint = hint
        self.position = position
        self.fields = fields or {}


class TooManyLocks(StatementFailed):
    """The statement was ended because it held too many locks."""


class StatementConflict(StatementFailed):
    """The statement conflicted with another transaction and was rolled back."""

    retryable = True


class StatementEndedLease(InvalidInput):
    """The statement ended the lease's transaction or changed its tenant context."""


class IdempotencyKeyReused(InvalidInput):
    """This idempotency key was used for a different request."""


class UntrustedSqlOnSharedRole(InvalidInput):
    """Free SQL is disabled for tenants that share one database role."""


class Forbidden(PoolkeeperError):
    """The request is not allowed."""


class ReadOnly(Forbidden):
    """The statement writes, but the request is read-only."""


class MissingScope(Forbidden):
    """The API key lacks the required scope."""


class KeyBoundToTenants(Forbidden):
    """The API key is bound to tenants, and the request affects others."""

    code = "bound-to-tenants"


class KeyBoundToNode(Forbidden):
    """The API key is bound to another node."""

    code = "bound-to-node"


class TlsRequired(Forbidden):
    """The response has passwords: beyond loopback it is sent over TLS only."""


class NotFound(PoolkeeperError):
    """The resource does not exist."""


class TenantNotFound(NotFound):
    """There is no such tenant."""


class ServerNotFound(NotFound):
    """No server of that name is declared."""


class PoolNotFound(NotFound):
    """The tenant has no open pool."""


class RecommendationNotFound(NotFound):
    """There is no such recommendation."""


class CredentialNotFound(NotFound):
    """The tenant has no such credential."""


class NodeNotFound(NotFound):
    """There is no such node."""


class Conflict(PoolkeeperError):
    """The request does not fit what exists."""


class ImmutableField(Conflict):
    """A tenant's server and strategy cannot change."""


class NotProvisioned(Conflict):
    """The tenant has not been provisioned yet."""


class ObjectsExist(Conflict):
    """An object of that name exists and was not created for this tenant."""


class SchemaMissing(Conflict):
    """The tenant's schema was dropped, renamed or closed to its role. Provision the tenant."""


class ProvisioningFailed(Conflict):
    """Postgres refused to create or change the tenant's objects."""


class PoolIsShared(Conflict):
    """The pool serves several tenants. Use scope=pool to change it for all of them."""


class BudgetExceeded(Conflict):
    """The server's connection budget is too small for this."""

    code = "connection-budget-exceeded"


class TenantDeleting(Conflict):
    """The tenant is being deleted."""


class RecommendationClosed(Conflict):
    """The recommendation is no longer open."""


class RecommendationIsPlacement(Conflict):
    """A placement moves data: declare a new tenant, copy the data, then delete this one."""


class CredentialExists(Conflict):
    """The tenant has a credential of that name. Revoke it first."""


class TooManyCredentials(Conflict):
    """The tenant has the maximum number of credentials. Revoke one first."""


class StrategyNotOnNodes(Conflict):
    """Applications cannot connect as a shared tenant: its role could read other tenants' rows."""


class NodeInUse(Conflict):
    """The node may have connections: drain it first."""


class NodeSessionEnded(Conflict):
    """A later agent has taken over this node."""


class NodeReportLate(Conflict):
    """A later report of this agent was accepted before."""


class NodeSessionUnknown(Conflict):
    """This service never gave out that session: its catalog was restored from a backup."""


class StaleVersion(Conflict):
    """The resource changed since the version named in If-Match."""


class PreconditionRequired(Conflict):
    """If-Match is required: name a version, or * for any."""


class ReplayTooLarge(Conflict):
    """The request was carried out, but its response was too large to store."""


class ReplayHoldsSecret(Conflict):
    """The request was carried out; its response had a password and was not stored."""


class CatalogInUse(Conflict):
    """The catalog is in use by another service."""


class CatalogUnusable(Conflict):
    """The catalog's database cannot hold the catalog."""


class Unavailable(PoolkeeperError):
    """Not possible right now; the same request may work later."""

    retryable = True


class PoolTimeout(Unavailable):
    """No connection became free before the deadline."""


class PoolSaturated(Unavailable):
    """Too many callers are waiting for this pool already."""


class PoolPaused(Unavailable):
    """The pool is paused and hands out no connection until it is resumed."""


class PoolDraining(Unavailable):
    """The pool is draining or closed and takes no new lease."""


class PoolLimitReached(Unavailable):
    """The limit of open pools is reached, and all of them are busy."""


class ServerUnavailable(Unavailable):
    """The database server cannot be reached."""


class ServerFull(Unavailable):
    """The database server accepts no further connection."""


class ConnectFailed(Unavailable):
    """No connection can be opened now; open connections keep working."""


class ServerReadOnly(Unavailable):
    """The database server takes no writes: default_transaction_read_only is on."""


class TenantLoginFailed(Unavailable):
    """Postgres refused the tenant's own login or database."""


class CatalogUnavailable(Unavailable):
    """The catalog cannot be reached."""


class LeadershipLost(CatalogUnavailable):
    """Another instance has become the active one; nothing was changed."""


class TooManyLogins(Unavailable):
    """Too many passwords are being checked; try again."""


class TooManyStreams(Unavailable):
    """Too many clients follow the statistics; try again later."""


class RequestInFlight(Unavailable):
    """The first request with this idempotency key is still in progress."""

    code = "idempotency-key-in-flight"


class LeaseLost(PoolkeeperError):
    """The connection broke while it was leased; whether the work was committed is unknown."""


class QueryTimeout(Unavailable):
    """The statement ran longer than its timeout and was cancelled."""


class SchemaChanged(Unavailable):
    """The types of the statement changed while it ran; it was rolled back."""
