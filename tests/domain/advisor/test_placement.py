"""Placement: who is advised to share, who to have its own pool, and who gets no advice."""

import pytest

from app.domain.advisor import (
    Placement,
    PlacementConfig,
    ReasonCode,
    TenantUsage,
    suggest_placement,
)
from app.domain.tenant import PoolStrategy

CONFIG = PlacementConfig()
SHARED, OWN, DATABASE = PoolStrategy.SHARED, PoolStrategy.PER_TENANT, PoolStrategy.PER_DATABASE


@pytest.mark.parametrize(
    ("strategy", "load", "late", "placement"),
    [
        (OWN, 0.049, 0.0, Placement.SHARED_POOL),
        (OWN, 0.05, 0.0, None),
        (OWN, 9.0, 0.5, None),
        (DATABASE, 0.0, 0.0, None),
        (SHARED, 0.49, 0.0, None),
        (SHARED, 0.5, 0.0, Placement.OWN_POOL),
        (SHARED, 0.05, 0.011, Placement.OWN_POOL),
        (SHARED, 0.05, 0.01, None),
        (SHARED, 0.04, 0.5, None),
    ],
)
def test_only_the_clearly_cold_and_the_clearly_hot_are_advised_to_move(
    strategy: PoolStrategy, load: float, late: float, placement: Placement | None
) -> None:
    seen = TenantUsage(strategy=strategy, seconds=3600.0, offered_load=load, late_share=late)
    suggestion = suggest_placement(CONFIG, seen)
    assert (suggestion and suggestion.placement) is placement


def test_nothing_is_suggested_before_an_hour_was_seen() -> None:
    load = TenantUsage(strategy=OWN, seconds=3599.0, offered_load=0.0)
    assert suggest_placement(CONFIG, load) is None


def test_a_suggestion_has_its_reason() -> None:
    load = TenantUsage(strategy=SHARED, seconds=7200.0, offered_load=2.5, late_share=0.03)
    suggestion = suggest_placement(CONFIG, load)
    assert suggestion is not None
    assert suggestion.reason_code is ReasonCode.HOT_TENANT
    assert suggestion.reason == (
        "The tenant keeps 2.5 connections busy on average (last 2.0 h); "
        "a pool of its own would separate it from the others"
    )
    assert suggestion.evidence == {"offered_load": 2.5, "late_share": 0.03}
