"""Locks by name."""

import asyncio

from app.control.keyed_locks import KeyedLocks
from tests.fixtures.locks import inherited


async def test_a_lock_that_somebody_has_or_is_about_to_get_is_not_waited_for() -> None:
    locks = KeyedLocks()
    async with inherited(locks, "acme"), asyncio.timeout(180):
        async with locks.hold_if_free("acme") as is_ours:
            assert not is_ours
        async with locks.hold_if_free("acme") as is_ours:
            assert not is_ours
            assert locks.is_held("acme")
    for _ in range(2):
        async with locks.hold_if_free("acme") as is_ours:
            assert is_ours
            assert locks.is_held("acme")
    assert not locks.is_held("acme")
