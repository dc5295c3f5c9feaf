"""Tiering: who is told to share, who to have a pool of its own, and who is left alone."""

import pytest

from app.domain.advisor import Move, ReasonCode, TenantLoad, TieringConfig, suggest
from app.domain.tenant import PoolStrategy

CONFIG = TieringConfig()
SHARED, OWN, DATABASE = PoolStrategy.SHARED, PoolStrategy.PER_TENANT, PoolStrategy.PER_DATABASE


@pytest.mark.parametrize(
    ("strategy", "load", "late", "move"),
    [
        (OWN, 0.049, 0.0, Move.TO_SHARED),
        (OWN, 0.05, 0.0, None),
        (OWN, 9.0, 0.5, None),
        (DATABASE, 0.0, 0.0, None),
        (SHARED, 0.49, 0.0, None),
        (SHARED, 0.5, 0.0, Move.TO_OWN),
        (SHARED, 0.05, 0.011, Move.TO_OWN),
        (SHARED, 0.05, 0.01, None),
        (SHARED, 0.04, 0.5, None),
    ],
)
def test_only_the_clearly_cold_and_the_clearly_hot_are_told_to_move(
    strategy: PoolStrategy, load: float, late: float, move: Move | None
) -> None:
    seen = TenantLoad(strategy=strategy, seconds=3600.0, offered_load=load, late_share=late)
    suggestion = suggest(CONFIG, seen)
    assert (suggestion and suggestion.move) is move


def test_nothing_is_said_before_an_hour_was_seen() -> None:
    load = TenantLoad(strategy=OWN, seconds=3599.0, offered_load=0.0)
    assert suggest(CONFIG, load) is None


def test_a_suggestion_has_its_reason() -> None:
    load = TenantLoad(strategy=SHARED, seconds=7200.0, offered_load=2.5, late_share=0.03)
    suggestion = suggest(CONFIG, load)
    assert suggestion is not None
    assert suggestion.reason_code is ReasonCode.HOT_TENANT
    assert suggestion.reason == (
        "the tenant keeps 2.5 connections busy on average over the last 2.0 h: "
        "a pool of its own would keep it and the others apart"
    )
    assert suggestion.evidence == {"offered_load": 2.5, "late_share": 0.03}
