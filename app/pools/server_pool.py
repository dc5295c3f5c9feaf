"""A pool, as its server knows it."""

from __future__ import annotations

from typing import Protocol

from app.domain.errors import Unavailable
from app.pools.dispatcher import DispatchedPool


class AttachedPool(DispatchedPool, Protocol):
    """What a server needs to know of its pools."""

    last_answer_at: float
    """When a lease last came back clean, in monotonic seconds."""

    @property
    def is_in_use(self) -> bool:
        """Whether a connection not known to be gone is lent, or being checked."""

    @property
    def has_idle(self) -> bool:
        """Whether it has an idle connection to test."""

    async def ping(self) -> bool:
        """Test the idle connection used last; whether there is one, and it answers."""

    def server_lost(self, error: Unavailable) -> None:
        """Fail those who wait: nothing can be opened for now."""

    def server_back(self) -> None:
        """Try again to open what is missing, at once."""
