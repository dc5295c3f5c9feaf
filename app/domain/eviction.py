"""Why and how pools were closed: the facts of evictions."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class EvictionReason(StrEnum):
    """Why a pool was closed."""

    IDLE = "idle"
    """It was unused for longer than the idle timeout."""

    LRU = "lru"
    """It was the least recently used one when another needed its place."""

    REQUESTED = "requested"
    """A person asked for it; leases had time to end."""

    FORCED = "forced"
    """A person asked for it at once: its leases were cut."""

    DELETED = "deleted"
    """Its tenant was deleted."""

    DRAINED = "drained"
    """A person had it drained."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Eviction:
    """One pool closed: how many connections that closed, and how many leases it cut."""

    pool_id: str
    reason: EvictionReason
    closed: int = 0
    cut: int = 0

    @property
    def is_notable(self) -> bool:
        """Whether it is worth an audit event: not if only a slot without connections moved on."""
        return self.reason is not EvictionReason.LRU or self.closed > 0 or self.cut > 0
