"""Each known attack has its verdict, and succeeds as soon as its defence is removed."""

from collections.abc import Callable

import pytest

from app.domain.tenant import PoolStrategy
from tests.isolation.arena import Arena
from tests.isolation.vector import Vector, Verdict
from tests.isolation.vectors_of_roles import OF_ROLES
from tests.isolation.vectors_of_rows import OF_ROWS
from tests.isolation.vectors_of_sessions import OF_SESSIONS
from tests.isolation.vectors_of_the_server import OF_THE_SERVER

pytestmark = pytest.mark.asyncio(loop_scope="module")

VECTORS = (*OF_ROLES, *OF_ROWS, *OF_SESSIONS, *OF_THE_SERVER)
CASES = [
    pytest.param(strategy, vector, verdict, id=f"{strategy}-{vector.name.replace(' ', '-')}")
    for vector in VECTORS
    for strategy, verdict in vector.verdicts.items()
]


@pytest.mark.parametrize(("strategy", "vector", "verdict"), CASES)
async def test_an_attack_has_its_verdict_and_only_its_defence_holds_it(
    arenas: dict[PoolStrategy, Arena],
    record_property: Callable[[str, object], None],
    strategy: PoolStrategy,
    vector: Vector,
    verdict: Verdict,
) -> None:
    arena = arenas[strategy]
    if vector.extension is not None and not await _is_available(arena, vector.extension):
        pytest.skip(f"this Postgres has no {vector.extension}")
    assert await vector.succeeds(arena) is (verdict is Verdict.OPEN)
    if verdict is Verdict.HELD:
        assert vector.without is not None
        async with vector.without(arena):
            assert await vector.succeeds(arena)
    record_property("isolation verdict", f"{strategy}: {verdict}")


async def _is_available(arena: Arena, extension: str) -> bool:
    query = "SELECT count(*) FROM pg_available_extensions WHERE name = $1"
    async with arena.admin() as admin:
        return bool(await admin.fetchval(query, extension))
