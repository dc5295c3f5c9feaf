"""One caller that waits for a connection."""

import asyncio
from dataclasses import KW_ONLY, dataclass

from app.pools.borrower import Borrower
from app.pools.connection import PooledConnection
from app.pools.tenant_state import TenantState


@dataclass(slots=True, eq=False, repr=False)
class Waiter:
    """A waiting caller, and the future that it awaits.

    Attributes:
        since, deadline: start and deadline of its wait, in monotonic seconds.
        borrower: who waits, if known.
        slot_seconds: how long it had already waited until the pool could be opened.
    """

    tenant_state: TenantState
    future: asyncio.Future[PooledConnection]
    _: KW_ONLY
    since: float
    deadline: float
    borrower: Borrower | None = None
    slot_seconds: float = 0.0

    @property
    def asked_at(self) -> float:
        """When it asked for a lease, in monotonic seconds."""
        return self.borrower.asked_at if self.borrower else self.since - self.slot_seconds

    @property
    def handed(self) -> PooledConnection | None:
        """The connection that it was given; None if it was not served."""
        future = self.future
        if not future.done() or future.cancelled() or future.exception() is not None:
            return None
        return future.result()

    def fail(self, error: Exception) -> None:
        """Wake the caller with *error*, unless it was served or has given up."""
        if not self.future.done():
            self.future.set_exception(error)
