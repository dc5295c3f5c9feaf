"""What the callers of a tenant wait for: the first limit that binds."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

_MAX_LEASES = "its own leases: it may have {limit} at a time (max_leases)"
_POOL_LIMIT = "another pool to close: {used} of {limit} are open ({setting})"
_MAX_SIZE = "a lease to end: all {limit} connections of the pool are on lease (max_size)"
_SHARE = (
    "a lease to end: all {limit} connections of the pool's share are on lease; "
    "nodes may have the rest of its max_size"
)
_NO_SHARE = "its share: nodes may have all connections of the pool's max_size"
_SERVER_BUDGET = (
    "a connection of another pool: {used} of the {limit} connections of server {server} are in use"
)
_NODES_HAVE = "; nodes may have {nodes} others"
_ALL_ON_NODES = "a connection that nodes give back: they may have all {nodes} of server {server}"


def in_seconds(waited: float) -> str:
    """A wait in words, such as `0.25 s`."""
    return f"{round(waited, 2):,g} s"


class WaitCause(StrEnum):
    """The limit that must change so that the next caller gets a connection."""

    PAUSED = "paused"
    """The pool must be resumed."""

    SERVER_UNAVAILABLE = "server_unavailable"
    """The server opens no connection."""

    MAX_LEASES = "max_leases"
    """The tenant has its maximum number of leases."""

    POOL_LIMIT = "pool_limit"
    """The maximum number of pools is open, and the tenant's pool is not among them."""

    MAX_SIZE = "max_size"
    """All connections that the pool may have are leased."""

    SHARE = "share"
    """All connections of the pool's share of its size are leased; nodes may have the rest."""

    LOGIN_REFUSED = "login_refused"
    """The pool may have more connections; Postgres refuses the tenant's login."""

    SERVER_BUDGET = "server_budget"
    """The pool may have more connections; the server's budget is used up."""

    NODE_LIMIT = "node_limit"
    """All connections that the operator lets the tenant's node have are in use there."""

    CONNECTION = "connection"
    """A connection is being opened, or about to be handed out."""


class Use(NamedTuple):
    """How much of something is in use, and how much there may be; None: no limit."""

    used: int
    limit: int | None

    @property
    def is_full(self) -> bool:
        """Whether the limit is reached."""
        return self.limit is not None and self.used >= self.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """What callers wait for.

    Attributes:
        cause: for programs.
        used, limit: use of the limit that binds, and the limit itself; None if nothing is counted.
        detail: completes the sentence "It waits for …".
    """

    cause: WaitCause
    used: int | None = None
    limit: int | None = None
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingTenant:
    """A tenant with waiting callers, and everything that can hold them up.

    Attributes:
        server: name of its server.
        is_available: whether the server's connections work.
        last_error: why no connection can be opened now; None if one can.
        login_error: why Postgres refused the tenant's latest login; None if it did not.
        is_paused: whether the pool is paused.
        leases: the tenant's leases.
        pools: open pools of its strategy if the tenant's own is not open; else None.
        pools_setting: the setting that limits them.
        pool: leased connections of its pool.
        is_shared_with_nodes: whether nodes may have a part of the pool's size.
        budget: the server's connections that this process may have.
        on_nodes: the server's connections that nodes may have.
    """

    server: str
    is_available: bool
    last_error: str | None
    login_error: str | None = None
    is_paused: bool
    leases: Use
    pools: Use | None
    pools_setting: str
    pool: Use
    is_shared_with_nodes: bool
    budget: Use
    on_nodes: int = 0

    @property
    def wait(self) -> Wait:
        """What its callers wait for: the first limit that applies."""
        if self.is_paused:
            return Wait(cause=WaitCause.PAUSED, detail="the pool to be resumed")
        if not self.is_available:
            return server_wait(self.server, self.last_error)
        if self.login_error is not None and not (self.leases.is_full or self.pool.is_full):
            return login_wait(self.login_error)
        pool_cause, pool_detail = WaitCause.MAX_SIZE, _MAX_SIZE
        if self.is_shared_with_nodes:
            pool_cause, pool_detail = WaitCause.SHARE, _SHARE if self.pool.limit else _NO_SHARE
        budget_detail = _SERVER_BUDGET + (_NODES_HAVE if self.on_nodes else "")
        if self.on_nodes and not self.budget.limit:
            budget_detail = _ALL_ON_NODES
        for cause, use, detail in (
            (WaitCause.MAX_LEASES, self.leases, _MAX_LEASES),
            (WaitCause.POOL_LIMIT, self.pools, _POOL_LIMIT),
            (pool_cause, self.pool, pool_detail),
            (WaitCause.SERVER_BUDGET, self.budget, budget_detail),
        ):
            if use is not None and use.is_full:
                used, limit = f"{use.used:,}", f"{use.limit:,}"
                text = detail.format(
                    used=used,
                    limit=limit,
                    nodes=f"{self.on_nodes:,}",
                    server=self.server,
                    setting=self.pools_setting,
                )
                return Wait(cause=cause, used=use.used, limit=use.limit, detail=text)
        if self.last_error is not None:
            return server_wait(self.server, self.last_error)
        return Wait(cause=WaitCause.CONNECTION, detail="a connection to be opened, or its turn")


def server_wait(server: str, last_error: str | None) -> Wait:
    """The wait for *server*, which opens no connection."""
    detail = f"server {server}, which opens no connection: {last_error}"
    return Wait(cause=WaitCause.SERVER_UNAVAILABLE, detail=detail)


def login_wait(login_error: str) -> Wait:
    """The wait of a tenant whose login Postgres refuses."""
    detail = f"its login to be accepted. {login_error}"
    return Wait(cause=WaitCause.LOGIN_REFUSED, detail=detail)
