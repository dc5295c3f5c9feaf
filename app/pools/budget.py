"""One server's connections: how many there may be and are, and which pools want more.

Only counts; what follows from them is decided by `dispatch`. The sum of open, connecting and
closing connections never exceeds the limit, unless the limit was lowered.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

from app.pools.usage import Contenders

P = TypeVar("P")


class ConnectionBudget(Generic[P]):
    """At most *limit* connections on one server, shared by its pools.

    Attributes:
        limit: most connections of all pools together, 0 until the server was asked.
        used: connections open, connecting or closing.
        closing: those of them that close.
        is_frozen: whether nothing is taken from any pool, since nothing can be opened instead.
        unsatisfied: pools that want more connections than they have, the longest first.
        contenders: the tenants that hold or await a connection.
        last_use: when each pool last had a connection come to rest; the latest is the last.
    """

    def __init__(self, limit: int = 0) -> None:
        self.limit = limit
        self.used = 0
        self.closing = 0
        self.is_frozen = False
        self.contenders = Contenders()
        self.unsatisfied: OrderedDict[P, None] = OrderedDict()
        self.last_use: OrderedDict[P, float] = OrderedDict()

    def __repr__(self) -> str:
        return (
            f"<ConnectionBudget: {self.used} of {self.limit}, {self.closing} closing, "
            f"{len(self.unsatisfied)} pools unsatisfied>"
        )

    @property
    def free(self) -> int:
        """Places that are left; below 0 after the limit was lowered."""
        return self.limit - self.used

    @property
    def promised(self) -> int:
        """Places that are free, or will be without anybody's further doing."""
        return self.limit - self.used + self.closing

    @property
    def is_exhausted(self) -> bool:
        """Whether there is no connection left to take."""
        return self.used >= self.limit

    @property
    def is_contended(self) -> bool:
        """Whether some pool wants a connection and could not have it."""
        return bool(self.unsatisfied)

    def set_limit(self, limit: int) -> None:
        """Change the limit; connections above it are not cut, but none is opened."""
        self.limit = limit

    def freeze(self, *, frozen: bool) -> None:
        """Take nothing from any pool while nothing can be opened in its place."""
        self.is_frozen = frozen

    def begin_open(self) -> None:
        """Count a connection that is being opened."""
        self.used += 1

    def give_back(self) -> None:
        """A counted connection is not there (any more)."""
        self.used -= 1

    def begin_close(self) -> None:
        """A counted connection is being closed."""
        self.closing += 1

    def end_close(self) -> None:
        """A connection that was being closed is gone from the server."""
        self.closing -= 1
        self.used -= 1

    def note_use(self, pool: P, now: float) -> None:
        """A connection of *pool* has come to rest *now*: it is the last to close for others."""
        self.last_use[pool] = now
        self.last_use.move_to_end(pool)

    def note_demand(self, pool: P, *, unsatisfied: bool) -> None:
        """Note whether *pool* wants more connections than it has."""
        if unsatisfied:
            self.unsatisfied.setdefault(pool)
        else:
            self.unsatisfied.pop(pool, None)

    def note_served(self, pool: P) -> None:
        """*pool* got a place: pools that want as much are served by turns."""
        self.unsatisfied.move_to_end(pool)

    def forget(self, pool: P) -> None:
        """*pool* has closed."""
        self.unsatisfied.pop(pool, None)
        self.last_use.pop(pool, None)
