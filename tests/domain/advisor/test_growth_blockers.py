"""When an observation says nothing about the size, and when growth would not help."""

from typing import Any

import pytest

from app.domain.advisor import DemandConfig, ReasonCode, ServerLoad
from app.domain.advisor.growth_blockers import growth_blocker, is_io_bound, unreliable_observation
from app.domain.pool import PoolState
from tests.domain.advisor.observations import histogram, seen

CONFIG = DemandConfig()
ON_NODES = {"arrivals_on_nodes": 10, "mean_active_on_nodes": 4.0}


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        ({"state": PoolState.PAUSED}, ReasonCode.NOT_READY),
        ({"state": PoolState.DRAINING}, ReasonCode.NOT_READY),
        ({"state": PoolState.CLOSED}, ReasonCode.NOT_READY),
        ({"state": PoolState.WARMING_UP}, ReasonCode.NOT_READY),
        ({"interrupted": True}, ReasonCode.NOT_READY),
        ({"connect_failures": 1}, ReasonCode.CONNECTS_FAILING),
        ({"loop_lag_seconds": 0.101, "arrivals": 1}, ReasonCode.LOOP_LAG),
        ({"loop_lag_seconds": 0.15, "rate": 2.0, "late": 10}, ReasonCode.LOOP_LAG),
        ({"loop_lag_seconds": 0.15, "rate": 2.2, **ON_NODES}, ReasonCode.LOOP_LAG),
        ({"mean_open": 7.9, "opened": 7, "waiting": 1.0}, ReasonCode.OPEN_BELOW_TARGET),
    ],
)
def test_an_observation_that_says_nothing_has_its_reason(
    facts: dict[str, Any], code: ReasonCode
) -> None:
    blocker = unreliable_observation(CONFIG, seen(10, **facts), is_resized=False)
    assert blocker is not None
    assert blocker.reason_code is code


@pytest.mark.parametrize(
    ("facts", "is_resized"),
    [
        ({}, False),
        ({"loop_lag_seconds": 0.1, "arrivals": 1}, False),
        ({"loop_lag_seconds": 9.0}, False),
        # Callers on nodes do not wait for this process, and no stall explains waits of seconds.
        ({"loop_lag_seconds": 9.0, "rate": 2.0, **ON_NODES, "waiting": 9.0}, False),
        ({"loop_lag_seconds": 0.15, "rate": 2.0, "wait": histogram((9.8, 10))}, False),
        ({"mean_open": 2.0, "opened": 2}, False),
        ({"mean_open": 2.0, "opened": 2, "waiting": 0.9}, False),
        ({"mean_open": 8.0, "opened": 2, "waiting": 30.0}, False),
        ({"mean_open": 2.0, "opened": 10, "waiting": 30.0}, False),
        ({"mean_open": 2.0, "opened": 2, "waiting": 30.0}, True),
        # Nobody else can open the share of places without callers.
        ({"mean_open": 7.0, "opened": 7, "waiting": 30.0, "idle_places": 2}, False),
    ],
)
def test_an_ordinary_observation_passes(facts: dict[str, Any], *, is_resized: bool) -> None:
    assert unreliable_observation(CONFIG, seen(10, **facts), is_resized=is_resized) is None


@pytest.mark.parametrize(
    ("load", "code"),
    [
        ({"idle_in_transaction_share": 0.31}, ReasonCode.IDLE_IN_TRANSACTION),
        ({"cores": 4, "running": 4.0}, ReasonCode.CPU_BOUND),
        ({"lock_share": 0.26}, ReasonCode.LOCK_CONTENTION),
        ({"client_write_share": 0.26}, ReasonCode.SLOW_READER),
        ({"cores": None, "running": 400.0}, None),
        ({"cores": 4, "running": 3.9}, None),
        ({"lock_share": 0.25, "idle_in_transaction_share": 0.3, "client_write_share": 0.25}, None),
        ({"io_share": 0.9}, None),
    ],
)
def test_a_database_at_its_limit_blocks_growth(
    load: dict[str, Any], code: ReasonCode | None
) -> None:
    blocker = growth_blocker(CONFIG, seen(10, server=ServerLoad(samples=3, **load)))
    assert (blocker and blocker.reason_code) is code


def test_a_database_without_samples_blocks_nothing() -> None:
    assert growth_blocker(CONFIG, seen(10)) is None
    assert growth_blocker(CONFIG, seen(10, server=ServerLoad(lock_share=1.0))) is None
    assert not is_io_bound(CONFIG, seen(10, server=ServerLoad(io_share=1.0)))


def test_suspected_leaks_block_growth() -> None:
    blocker = growth_blocker(CONFIG, seen(10, leak_suspects=1))
    assert blocker is not None
    assert blocker.reason_code is ReasonCode.LEAK_SUSPECTED
    assert blocker.explanation.startswith("1 lease has been held")


def test_waiting_for_disks_only_slows_growth() -> None:
    assert is_io_bound(CONFIG, seen(10, server=ServerLoad(samples=1, io_share=0.26)))
    assert not is_io_bound(CONFIG, seen(10, server=ServerLoad(samples=1, io_share=0.25)))
