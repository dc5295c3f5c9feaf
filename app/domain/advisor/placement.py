"""Which tenants would be better off with another kind of pool.

Own connections are wasteful for a tenant that hardly uses them: 200 tenants of 0.05 erlangs need
400 connections separately, but 13 together. In a shared pool, however, a busy tenant crowds out the
others. A placement is only suggested, never applied, because it moves the tenant's data.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from app.domain.advisor.sizing_recommendation import ReasonCode
from app.domain.tenant import PoolStrategy


class Placement(StrEnum):
    """The kind of pool that suits a tenant."""

    SHARED_POOL = "shared_pool"
    OWN_POOL = "own_pool"


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantUsage:
    """How one tenant used its pool.

    Attributes:
        strategy: the kind of pool it has.
        seconds: how long it was observed.
        offered_load: connections busy for it on average, erlangs.
        late_share: share (0..1) of its callers that waited too long or got no connection.
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
        hot_load: erlangs from which it should have its own; above cold_load.
        late_share: share (0..1) of late callers above which cold_load instead of hot_load suffices.
        min_seconds: a tenant observed for a shorter time gets no suggestion.
    """

    cold_load: float = 0.05
    hot_load: float = 0.5
    late_share: float = 0.01
    min_seconds: float = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementSuggestion:
    """Another placement, with its reason and the numbers by the names in `EVIDENCE`."""

    placement: Placement
    reason_code: ReasonCode
    reason: str
    evidence: Mapping[str, float | int | None] = field(default_factory=dict, hash=False)


def suggest_placement(config: PlacementConfig, usage: TenantUsage) -> PlacementSuggestion | None:
    """Suggest a better placement for a tenant; None if it is where it belongs.

    A tenant with a database of its own is never advised to share: a connection belongs to one
    database.
    """
    if usage.seconds < config.min_seconds:
        return None
    evidence = {"offered_load": usage.offered_load, "late_share": usage.late_share}
    load = usage.offered_load
    busy = f"keeps {load:.2g} connections busy on average (last {usage.seconds / 3600.0:.1f} h)"
    if usage.strategy is PoolStrategy.PER_TENANT and load < config.cold_load:
        return PlacementSuggestion(
            placement=Placement.SHARED_POOL,
            reason_code=ReasonCode.COLD_TENANT,
            reason=f"The tenant {busy}; the shared pool can serve it without a pool of its own",
            evidence=evidence,
        )
    if usage.strategy is not PoolStrategy.SHARED:
        return None
    if load >= config.hot_load:
        reason = f"The tenant {busy}; a pool of its own would separate it from the others"
    elif load >= config.cold_load and usage.late_share > config.late_share:
        reason = (
            f"{usage.late_share:.0%} of the tenant's callers waited too long in the shared pool, "
            f"and it {busy}; a pool of its own is worth it"
        )
    else:
        return None
    return PlacementSuggestion(
        placement=Placement.OWN_POOL,
        reason_code=ReasonCode.HOT_TENANT,
        reason=reason,
        evidence=evidence,
    )
