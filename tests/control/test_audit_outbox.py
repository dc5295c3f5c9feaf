"""Audit events that wait for the catalog: when memory is full, the busiest loses its oldest."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest

from app.catalog.catalog import Catalog
from app.control import audit_outbox
from app.control.audit_outbox import AuditOutbox
from app.domain.audit import AuditEvent
from app.domain.errors import CatalogUnavailable
from tests.catalog.values import event


@pytest.fixture
def outbox(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> AuditOutbox:
    """One with room for a hundred events."""
    monkeypatch.setattr(audit_outbox, "_CAPACITY", 100)
    monkeypatch.setattr(audit_outbox, "_BATCH", 10)
    return AuditOutbox(catalog)


def numbered(number: int, tenant: str | None) -> AuditEvent:
    return replace(event(), tenant=tenant, pool=None, reason=str(number))


def kept(outbox: AuditOutbox, tenant: str | None) -> list[int]:
    return [int(each.reason or 0) for each in outbox.pending if each.tenant == tenant]


async def test_one_tenants_load_drops_no_event_of_another(outbox: AuditOutbox) -> None:
    outbox.enqueue(*(numbered(number, "quiet") for number in range(5)))
    outbox.enqueue(numbered(0, None))
    for number in range(1000):
        outbox.enqueue(numbered(number, "busy"))
        assert len(outbox.pending) <= 100
    assert kept(outbox, "quiet") == [0, 1, 2, 3, 4]
    assert kept(outbox, None) == [0]
    newest = kept(outbox, "busy")
    assert newest == list(range(1000 - len(newest), 1000))
    assert len(outbox.pending) + outbox.dropped == 1006
    await outbox.flush()
    assert outbox.pending == ()


async def test_those_who_are_equally_busy_lose_as_many(outbox: AuditOutbox) -> None:
    for number in range(1000):
        outbox.enqueue(numbered(number, f"t{number % 3}"))
    counts = Counter(each.tenant for each in outbox.pending)
    assert max(counts.values()) - min(counts.values()) <= 10
    assert len(outbox.pending) >= 90 - 3


async def test_no_more_events_are_dropped_than_a_batch_needs_room(outbox: AuditOutbox) -> None:
    outbox.enqueue(*(numbered(number, f"t{number % 51}") for number in range(101)))
    assert outbox.dropped == 11
    # Each tenant keeps its newest, and the newest of the others have the rest of the room.
    numbers = [int(each.reason or 0) for each in outbox.pending]
    assert numbers == list(range(11, 101))


async def test_flushes_that_fail_together_keep_the_order_of_events(
    outbox: AuditOutbox, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, tried = asyncio.Event(), list[int]()

    async def fail(events: Sequence[AuditEvent]) -> None:
        tried.append(len(events))
        await go.wait()
        raise CatalogUnavailable

    monkeypatch.setattr(catalog.audit_log, "append", fail)
    async with asyncio.TaskGroup() as flushes:
        for first in (0, 10, 20):
            outbox.enqueue(*(numbered(first + number, "acme") for number in range(10)))
            flushes.create_task(outbox.flush(), name=f"flush from {first}")
            await asyncio.sleep(0)
        assert len(outbox.pending) == 30
        go.set()
    assert kept(outbox, "acme") == list(range(30))
    assert tried == [10]  # nobody waits for the catalog once for each of the others


async def test_events_that_are_being_stored_count_as_kept(
    outbox: AuditOutbox, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = asyncio.Event()

    async def fail(_: Sequence[AuditEvent]) -> None:
        await go.wait()
        raise CatalogUnavailable

    monkeypatch.setattr(catalog.audit_log, "append", fail)
    async with asyncio.TaskGroup() as flushes:
        for number in range(1000):
            outbox.enqueue(numbered(number, "busy"))
            if number % 100 == 0:
                flushes.create_task(outbox.flush(), name=f"flush at {number}")
                await asyncio.sleep(0)
            assert len(outbox.pending) <= 100
        go.set()
    numbers = kept(outbox, "busy")
    assert numbers == sorted(numbers)
    assert len(numbers) + outbox.dropped == 1000


async def test_a_flush_that_is_cancelled_leaves_its_events_to_the_next(
    outbox: AuditOutbox, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = asyncio.Event()

    async def hang(_: Sequence[AuditEvent]) -> None:
        begun.set()
        await asyncio.Event().wait()

    outbox.enqueue(*(numbered(number, "acme") for number in range(30)))
    with monkeypatch.context() as patched:
        patched.setattr(catalog.audit_log, "append", hang)
        cancelled = asyncio.create_task(outbox.flush(), name="flush that is cancelled")
        await begun.wait()
    waiting = asyncio.create_task(outbox.flush(), name="flush that waits")
    await asyncio.sleep(0)
    cancelled.cancel()
    await waiting
    assert cancelled.cancelled()
    assert outbox.pending == ()
    stored = await catalog.audit_log.page(tenant="acme")
    assert [each.reason for each in stored] == [str(number) for number in reversed(range(30))]


async def test_more_tenants_than_there_is_room_for_lose_the_oldest(outbox: AuditOutbox) -> None:
    for number in range(1000):
        outbox.enqueue(numbered(number, f"t{number}"))
    numbers = [int(each.reason or 0) for each in outbox.pending]
    assert numbers == list(range(1000 - len(numbers), 1000))
    assert len(numbers) >= 90
