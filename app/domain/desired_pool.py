"""The desired state of a pool: what operators want. The catalog stores it, and the pool follows it.

A generation counts the changes of a row. It only grows, and a write that changes nothing keeps it.
The API shows it as the ETag.
"""

from dataclasses import dataclass
from datetime import datetime

from app.domain.pool import PoolSize


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """When a pool was paused, and by whom."""

    since: datetime
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredPool:
    """The desired state of a pool. A pool that was never changed has none and uses the defaults.

    Attributes:
        recycles: grows each time that nodes are to replace its connections; a node does it once for
            all that it missed.
    """

    pool_id: str
    size: PoolSize
    pause: Pause | None
    recycles: int = 0
    generation: int
    updated_at: datetime

    @property
    def paused(self) -> bool:
        """Whether it grants no leases."""
        return self.pause is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolChange:
    """A change of a pool's desired state; None leaves a field as it is."""

    min_size: int | None = None
    max_size: int | None = None
    warmup_size: int | None = None
    paused: bool | None = None
    recycle_on_nodes: bool = False

    def apply_to(self, size: PoolSize) -> PoolSize:
        """*size* with this change.

        When only max_size is given, min_size and warmup_size shrink to fit.

        Raises:
            InvalidInput: the numbers do not fit together.
        """
        max_size = size.max_size if self.max_size is None else self.max_size
        min_size = min(size.min_size, max_size) if self.min_size is None else self.min_size
        warmup = min(size.warmup_size, max_size) if self.warmup_size is None else self.warmup_size
        return PoolSize(min_size=min_size, max_size=max_size, warmup_size=warmup)
