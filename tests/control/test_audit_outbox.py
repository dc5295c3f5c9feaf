"""Audit events that wait for the catalog: when memory is full, the busiest loses its oldest."""

from collections import Counter
from dataclasses import replace

import pytest

from app.catalog.catalog import Catalog
from app.control import audit_outbox
from app.control.audit_outbox import AuditOutbox
from app.domain.audit import AuditEvent
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


async def test_more_tenants_than_there_is_room_for_lose_the_oldest(outbox: AuditOutbox) -> None:
    for number in range(1000):
        outbox.enqueue(numbered(number, f"t{number}"))
    numbers = [int(each.reason or 0) for each in outbox.pending]
    assert numbers == list(range(1000 - len(numbers), 1000))
    assert len(numbers) >= 90
