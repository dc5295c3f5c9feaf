"""Which sizes a pool can have, and the defaults of each strategy."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import InvalidInput
from app.domain.pool import MAX_POOL_SIZE, Percentiles, PoolConfig, PoolSize, PoolState
from app.domain.tenant import PoolStrategy


@pytest.mark.parametrize(
    ("min_size", "max_size", "warmup_size"),
    [(0, 1, 0), (1, 1, 1), (0, 5, 5), (5, 5, 0), (0, MAX_POOL_SIZE, 1), (3, 8, 1)],
)
def test_sizes_that_fit_together_are_taken(min_size: int, max_size: int, warmup_size: int) -> None:
    size = PoolSize(min_size=min_size, max_size=max_size, warmup_size=warmup_size)
    assert (size.min_size, size.max_size, size.warmup_size) == (min_size, max_size, warmup_size)


@pytest.mark.parametrize(
    ("min_size", "max_size", "warmup_size", "culprit"),
    [
        (0, 0, 0, "max_size"),
        (0, -1, 0, "max_size"),
        (0, MAX_POOL_SIZE + 1, 0, "max_size"),
        (-1, 5, 1, "min_size"),
        (6, 5, 1, "min_size"),
        (0, 5, -1, "warmup_size"),
        (0, 5, 6, "warmup_size"),
    ],
)
def test_sizes_no_pool_could_keep_are_refused_by_name(
    min_size: int, max_size: int, warmup_size: int, culprit: str
) -> None:
    with pytest.raises(InvalidInput, match=f"^{culprit} must"):
        PoolSize(min_size=min_size, max_size=max_size, warmup_size=warmup_size)


def test_changing_a_size_checks_it_again() -> None:
    with pytest.raises(InvalidInput, match="min_size"):
        replace(PoolSize(min_size=4, max_size=5), max_size=3)


def test_the_config_of_a_strategy_is_built_from_its_limits() -> None:
    config = PoolConfig.per_tenant(100, 5, warmup_size=2, idle_timeout=600.0)
    assert config.strategy is PoolStrategy.PER_TENANT
    assert (config.max_pools, config.pool_size) == (100, 5)
    assert config.warmup_size == 2
    assert config.idle_timeout == 600.0


@pytest.mark.parametrize(
    ("config", "strategy", "max_pools", "pool_size"),
    [
        (PoolConfig(), PoolStrategy.SHARED, 1, 20),
        (PoolConfig.shared(), PoolStrategy.SHARED, 1, 20),
        (PoolConfig.shared(7), PoolStrategy.SHARED, 1, 7),
        (PoolConfig.per_tenant(), PoolStrategy.PER_TENANT, 100, 5),
        (PoolConfig.per_tenant(3, 4), PoolStrategy.PER_TENANT, 3, 4),
        (PoolConfig.per_database(), PoolStrategy.PER_DATABASE, 50, 5),
        (PoolConfig.per_database(3, 4), PoolStrategy.PER_DATABASE, 3, 4),
    ],
)
def test_each_strategy_has_its_caps(
    config: PoolConfig, strategy: PoolStrategy, max_pools: int, pool_size: int
) -> None:
    assert config.strategy is strategy
    assert (config.max_pools, config.pool_size) == (max_pools, pool_size)


@pytest.mark.parametrize(
    "config", [PoolConfig.shared(), PoolConfig.per_tenant(), PoolConfig.per_database()]
)
def test_every_strategy_has_the_published_defaults(config: PoolConfig) -> None:
    assert config.warmup_size == 1
    assert config.idle_timeout == 300.0
    assert config.max_lifetime == 1800.0
    assert config.health_check
    assert config.health_check_interval == 30.0
    assert config.acquire_timeout == 5.0


@given(pool_size=st.integers(1, MAX_POOL_SIZE), warmup_size=st.integers(0, MAX_POOL_SIZE))
def test_the_default_size_is_always_one_a_pool_can_have(pool_size: int, warmup_size: int) -> None:
    size = PoolConfig.per_tenant(100, pool_size, warmup_size=warmup_size).default_size
    assert (size.min_size, size.max_size) == (0, pool_size)
    assert size.warmup_size == min(warmup_size, pool_size)


def test_a_pool_goes_through_six_states_beside_that_of_its_server() -> None:
    assert [str(state) for state in PoolState if state is not PoolState.UNAVAILABLE] == [
        "initializing",
        "warming_up",
        "ready",
        "paused",
        "draining",
        "closed",
    ]


def test_percentiles_of_nothing_are_unknown() -> None:
    assert Percentiles() == Percentiles(p50_ms=None, p95_ms=None, p99_ms=None)
