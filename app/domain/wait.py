"""What the callers of a tenant wait for: the first of all limits that binds."""

from __future__ import annotations

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
_SERVER_BUDGET = (
    "a connection of another pool: {used} of the {limit} connections of server {server} are in use"
)


class WaitCause(StrEnum):
    """What would have to change so that the next caller gets a connection."""

    PAUSED = "paused"
    """The pool is to be resumed."""

    SERVER_UNAVAILABLE = "server_unavailable"
    """The server opens no connection."""

    MAX_LEASES = "max_leases"
    """The tenant has as many leases as it may have at a time."""

    POOL_LIMIT = "pool_limit"
    """As many pools are open as may be; the tenant's is none of them."""

    MAX_SIZE = "max_size"
    """All connections that the pool may have are on lease."""

    SHARE = "share"
    """All connections of the pool's share of its size are on lease; nodes may have the rest."""

    SERVER_BUDGET = "server_budget"
    """The pool may have more connections; the server's budget is used up."""

    CONNECTION = "connection"
    """A connection is being opened, or about to be handed out."""


class Use(NamedTuple):
    """How much of something is in use, and how much there may be; None: no limit."""

    used: int
    limit: int | None

    @property
    def is_full(self) -> bool:
        """Whether there is no more of it."""
        return self.limit is not None and self.used >= self.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """What callers wait for now.

    Attributes:
        cause: for programs.
        used, limit: how much of what binds is in use, and how much there may be; None if nothing
            is counted.
        detail: the end of a sentence that begins with "It waits for".
    """

    cause: WaitCause
    used: int | None = None
    limit: int | None = None
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingTenant:
    """A tenant with waiting callers, and all that can hold them up.

    Attributes:
        server: its name.
        is_available: whether its connections work.
        last_error: why none can be opened now; None if they can.
        is_paused: whether the pool is.
        leases: of the tenant.
        pools: open ones of its strategy while its own is none of them; else None.
        pools_setting: the setting that limits them.
        pool: connections of its pool on lease.
        is_shared_with_nodes: whether the pool may have only a share of its size.
        budget: connections of the server.
    """

    server: str
    is_available: bool
    last_error: str | None
    is_paused: bool
    leases: Use
    pools: Use | None
    pools_setting: str
    pool: Use
    is_shared_with_nodes: bool
    budget: Use

    @property
    def wait(self) -> Wait:
        """What its callers wait for; the first that applies."""
        if self.is_paused:
            return Wait(cause=WaitCause.PAUSED, detail="the pool to be resumed")
        if not self.is_available:
            return self._server_wait
        pool_cause, pool_detail = WaitCause.MAX_SIZE, _MAX_SIZE
        if self.is_shared_with_nodes:
            pool_cause, pool_detail = WaitCause.SHARE, _SHARE
        for cause, use, detail in (
            (WaitCause.MAX_LEASES, self.leases, _MAX_LEASES),
            (WaitCause.POOL_LIMIT, self.pools, _POOL_LIMIT),
            (pool_cause, self.pool, pool_detail),
            (WaitCause.SERVER_BUDGET, self.budget, _SERVER_BUDGET),
        ):
            if use is not None and use.is_full:
                used, limit = f"{use.used:,}", f"{use.limit:,}"
                text = detail.format(
                    used=used, limit=limit, server=self.server, setting=self.pools_setting
                )
                return Wait(cause=cause, used=use.used, limit=use.limit, detail=text)
        if self.last_error is not None:
            return self._server_wait
        return Wait(cause=WaitCause.CONNECTION, detail="a connection to be opened, or its turn")

    @property
    def _server_wait(self) -> Wait:
        detail = f"server {self.server}, which opens no connection: {self.last_error}"
        return Wait(cause=WaitCause.SERVER_UNAVAILABLE, detail=detail)
