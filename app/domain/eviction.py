"""Evictions: why and how pools were closed."""

from dataclasses import dataclass
from enum import StrEnum


class EvictionReason(StrEnum):
    """Why a pool was closed."""

    IDLE = "idle"
    """It was unused for longer than the idle timeout."""

    LRU = "lru"
    """It was the least recently used pool when another needed its place."""

    REQUESTED = "requested"
    """A person asked for it; leases had time to end."""

    FORCED = "forced"
    """A person asked for it at once: its leases were cut."""

    DELETED = "deleted"
    """Its tenant was deleted."""

    DRAINED = "drained"
    """A person drained it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Eviction:
    """A closed pool: how many connections were closed, and how many leases were cut."""

    pool_id: str
    reason: EvictionReason
    closed: int = 0
    cut: int = 0

    @property
    def is_notable(self) -> bool:
        """Whether it deserves an audit event. Handing on a slot without connections does not."""
        return self.reason is not EvictionReason.LRU or self.closed > 0 or self.cut > 0
