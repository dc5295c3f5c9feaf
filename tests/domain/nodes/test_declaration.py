"""Which tenants a node serves, and what is known of its pooler."""

import pytest

from app.domain.nodes.declaration import NodeSpec
from app.domain.nodes.weaknesses import vulnerabilities, weaknesses
from app.domain.tenant import PoolStrategy
from tests.catalog.values import spec

GOLD = {"plan": "gold", "zone": "a"}


@pytest.mark.parametrize(
    ("selector", "strategy", "is_served"),
    [
        ({}, PoolStrategy.PER_TENANT, True),
        ({"plan": "gold"}, PoolStrategy.PER_DATABASE, True),
        (GOLD, PoolStrategy.PER_TENANT, True),
        (GOLD | {"other": "x"}, PoolStrategy.PER_TENANT, False),
        ({"plan": "gold", "zone": "b"}, PoolStrategy.PER_TENANT, False),
        ({"other": "x"}, PoolStrategy.PER_TENANT, False),
        ({}, PoolStrategy.SHARED, False),
    ],
)
def test_a_node_serves_tenants_with_all_its_labels_and_a_role_of_their_own(
    selector: dict[str, str], strategy: PoolStrategy, *, is_served: bool
) -> None:
    node = NodeSpec(name="edge", selector=selector)
    assert node.serves(spec(labels=GOLD, strategy=strategy)) is is_served


@pytest.mark.parametrize(
    ("engine", "count", "vulnerable"),
    [
        ("PgBouncer 1.18", 7, 3),
        ("PgBouncer 1.16.1", 5, 1),
        ("PgBouncer 1.20.1", 7, 3),
        ("PgBouncer 1.21", 5, 2),
        ("PgBouncer 1.25.1", 2, 2),
        ("PgBouncer 1.25.2", 1, 1),
        ("PgBouncer 1.26.1", 0, 0),
        ("another 1.0", 0, 0),
    ],
)
def test_versions_with_known_weaknesses_are_warned_of(
    engine: str, count: int, vulnerable: int
) -> None:
    assert len(weaknesses(engine)) == count
    assert weaknesses(engine)[:vulnerable] == vulnerabilities(engine)
