"""The audit trail is complete, newest first, and its pages are stable while it grows."""

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy.exc import DBAPIError

from app.catalog.catalog import Catalog
from app.domain.audit import POLLER, Actor, AuditEvent, Origin
from tests.catalog.values import NOON, event, refused_event


async def test_an_event_is_read_as_it_was_written(catalog: Catalog) -> None:
    full = event(
        "pool.resized",
        pool="acme",
        reason="8 waiting",
        before={"max_size": 5},
        after={"max_size": 10, "labels": {"ü": [1, None]}},
    )
    bare = AuditEvent(at=NOON, actor=Actor(name="poller"), action="pool.evicted")
    await catalog.audit_log.append([full, bare])
    second, first = await catalog.audit_log.page()
    assert (replace(first, id=None), replace(second, id=None)) == (full, bare)
    assert first.id is not None
    assert second.id is not None
    assert first.id < second.id


async def test_nothing_of_an_event_is_copied_to_store_it(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy of hundreds of events would block the event loop."""
    monkeypatch.setattr("copy.deepcopy", None)
    await catalog.audit_log.append([event(before={"labels": {"plan": "gold"}}, after={})])
    [stored] = await catalog.audit_log.page()
    assert stored.before == {"labels": {"plan": "gold"}}


async def test_events_are_appended_together_or_not_at_all(catalog: Catalog) -> None:
    await catalog.audit_log.append([])
    with pytest.raises(DBAPIError):
        await catalog.audit_log.append([event(), refused_event()])
    assert await catalog.audit_log.page() == ()


async def test_pages_hold_still_while_events_arrive(catalog: Catalog) -> None:
    await catalog.audit_log.append([event(f"first.{number}") for number in range(10)])
    seen: list[str] = []
    before_id = None
    while page := await catalog.audit_log.page(before_id=before_id, limit=3):
        seen += [recorded.action for recorded in page]
        before_id = page[-1].id
        await catalog.audit_log.append([event("later"), event("later")])
    assert seen == [f"first.{number}" for number in reversed(range(10))]


async def test_filters_narrow_the_trail(catalog: Catalog) -> None:
    await catalog.audit_log.append(
        [
            event("pool.paused", pool="acme"),
            event("pool.resumed", pool="acme", at=NOON + timedelta(hours=1)),
            event("pool.paused", tenant="other", pool="shared@local"),
        ]
    )

    async def found(**filters: object) -> list[str]:
        page = await catalog.audit_log.page(**filters)  # type: ignore[arg-type]
        return [f"{recorded.tenant} {recorded.action}" for recorded in page]

    assert await found(tenant="acme") == ["acme pool.resumed", "acme pool.paused"]
    assert await found(pool="shared@local") == ["other pool.paused"]
    assert await found(action="pool.paused") == ["other pool.paused", "acme pool.paused"]
    assert await found(since=NOON + timedelta(hours=1)) == ["acme pool.resumed"]
    assert await found(tenant="acme", action="pool.paused") == ["acme pool.paused"]
    assert await found(tenant="nobody") == []


async def test_what_the_service_does_by_itself_can_be_left_out(catalog: Catalog) -> None:
    evicted = AuditEvent(at=NOON, actor=POLLER, action="pool.evicted")
    resized = AuditEvent(at=NOON, actor=Actor(name="ops"), action="pool.resized")
    await catalog.audit_log.append([evicted, resized])
    for origin, action in [(Origin.REQUEST, "pool.resized"), (Origin.SERVICE, "pool.evicted")]:
        assert [each.action for each in await catalog.audit_log.page(origin=origin)] == [action]
