"""Tiering: which tenants would be better off with another kind of pool.

Connections of its own cost a tenant most when it hardly uses them: 200 tenants of 0.05 erlangs
need 400 connections by themselves, but 13 together. A shared pool in turn lets a busy tenant
crowd out the others. Only suggested, never applied: moving a tenant moves its data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from app.domain.advisor.sizing_recommendation import ReasonCode
from app.domain.tenant import PoolStrategy


class Placement(StrEnum):
    """Where a tenant should go."""

    SHARED_POOL = "move_to_shared"
    OWN_POOL = "move_to_own"


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantUsage:
    """What one tenant asked of its pool, for long enough to judge by.

    Attributes:
        strategy: the kind of pool it has.
        seconds: how long it was watched.
        offered_load: connections busy for it on average, erlangs.
        late_share: share (0..1) of its callers that waited too long or in vain.
    """

    strategy: PoolStrategy
    seconds: float
    offered_load: float
    late_share: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementConfig:
    """When a tenant is cold or hot; between the two it stays where it is.

    Attributes:
        cold_load: erlangs below which a tenant needs no connections of its own.
        hot_load: erlangs from which on it should have some, above cold_load.
        late_share: share (0..1) of late callers from which on less load is enough: cold_load.
        least_seconds: nothing is said about a tenant watched for less.
    """

    cold_load: float = 0.05
    hot_load: float = 0.5
    late_share: float = 0.01
    min_seconds: float = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementSuggestion:
    """A suggestion for a person.

    Attributes:
        move: where to.
        reason_code: for programs.
        reason: one sentence for a person.
        evidence: the numbers it rests on, by the names in `EVIDENCE`.
    """

    placement: Placement
    reason_code: ReasonCode
    reason: str
    evidence: Mapping[str, float | int | None] = field(default_factory=dict, hash=False)


def suggest_placement(config: PlacementConfig, load: TenantUsage) -> PlacementSuggestion | None:
    """Where a tenant would be better off; None when it is where it belongs.

    A tenant with a database of its own is never told to share: a connection belongs to one
    database.
    """
    if load.seconds < config.min_seconds:
        return None
    evidence = {"offered_load": load.offered_load, "late_share": load.late_share}
    hours = f"over the last {load.seconds / 3600.0:.1f} h"
    busy = f"keeps {load.offered_load:.2g} connections busy on average {hours}"
    if load.strategy is PoolStrategy.PER_TENANT and load.offered_load < config.cold_load:
        return PlacementSuggestion(
            placement=Placement.SHARED_POOL,
            reason_code=ReasonCode.COLD_TENANT,
            reason=f"the tenant {busy}: the shared pool would carry it without one of its own",
            evidence=evidence,
        )
    if load.strategy is not PoolStrategy.SHARED:
        return None
    if load.offered_load >= config.hot_load:
        reason = f"the tenant {busy}: a pool of its own would keep it and the others apart"
    elif load.offered_load >= config.cold_load and load.late_share > config.late_share:
        reason = (
            f"{load.late_share:.0%} of the tenant's callers waited too long in the shared pool, "
            f"and it {busy}: it is worth a pool of its own"
        )
    else:
        return None
    return PlacementSuggestion(
        placement=Placement.OWN_POOL,
        reason_code=ReasonCode.HOT_TENANT,
        reason=reason,
        evidence=evidence,
    )
