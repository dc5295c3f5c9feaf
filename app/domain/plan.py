"""What to do so that a pool becomes what is wanted of it.

Pure: the same wish and the same pool always give the same steps. A dry run shows exactly
these; the Keeper and the Reconciler carry them out.
"""

from __future__ import annotations

from dataclasses import dataclass

from app.domain.desired_state import DesiredPool
from app.domain.pool import PoolSize


@dataclass(frozen=True, slots=True, kw_only=True)
class ActualPool:
    """What an open pool is now."""

    size: PoolSize
    paused: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """Open the pool with this size, paused or not."""

    size: PoolSize
    paused: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Resize:
    """Change an open pool's size."""

    before: PoolSize
    after: PoolSize


@dataclass(frozen=True, slots=True)
class Pause:
    """Lend nothing more until resumed."""


@dataclass(frozen=True, slots=True)
class Resume:
    """Lend again."""


Step = Open | Resize | Pause | Resume


def pool_steps(
    desired: DesiredPool | None, actual: ActualPool | None, *, open_now: bool = False
) -> list[Step]:
    """Steps from *actual* (None when the pool is not open) to *desired* (None: nothing asked).

    Three cases:

    1. Nothing is asked of the pool: it stays as it is.
    2. It is not open: it is opened if it keeps connections (min_size) or somebody asks for it
       now; every other pool opens on its first use.
    3. It is open: size first, so that a resumed pool serves with its new one.
    """
    if desired is None:
        return []
    if actual is None:
        wanted = open_now or (desired.size.min_size > 0 and not desired.paused)
        return [Open(size=desired.size, paused=desired.paused)] if wanted else []
    steps: list[Step] = []
    if actual.size != desired.size:
        steps.append(Resize(before=actual.size, after=desired.size))
    if actual.paused is not desired.paused:
        steps.append(Pause() if desired.paused else Resume())
    return steps
