"""A pool has at most one open recommendation, and the outcome of each is known."""

from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy.exc import DBAPIError, IntegrityError
from structlog.testing import capture_logs

from app.catalog.catalog import Catalog
from app.domain.audit import ADVISOR, AuditEvent
from app.domain.errors import RecommendationClosed, RecommendationNotFound
from app.domain.pool import PoolSize
from app.domain.recommendation import RecommendationStatus
from tests.catalog.values import NOON, actions, event, ids, recommendation, refused_event
from tests.fixtures.postgres import Database


async def recorded(catalog: Catalog) -> list[AuditEvent]:
    """The audit trail, newest first, without the IDs of its events."""
    return [replace(each, id=None) for each in await catalog.audit_log.page()]


async def test_a_recommendation_is_read_as_it_was_added(catalog: Catalog) -> None:
    given = recommendation()
    await catalog.recommendations.add(given)
    assert await catalog.recommendations.get(given.id) == given
    assert await catalog.recommendations.page() == (given,)
    with pytest.raises(RecommendationNotFound):
        await catalog.recommendations.get(uuid4())


async def test_a_new_one_supersedes_the_open_one_of_its_pool(catalog: Catalog) -> None:
    first, other, second = recommendation(), recommendation("other"), recommendation(seconds=5)
    for given in (first, other):
        await catalog.recommendations.add(given)
    assert await recorded(catalog) == []
    await catalog.recommendations.add(second)
    closed = first.closed(RecommendationStatus.SUPERSEDED, ADVISOR.name, second.created_at)
    assert await catalog.recommendations.get(first.id) == closed
    assert await recorded(catalog) == [closed.closing_event(ADVISOR)]
    still_open = await catalog.recommendations.page(status=RecommendationStatus.OPEN)
    assert ids(still_open) == [second.id, other.id]


async def test_one_that_cannot_be_added_supersedes_nothing(catalog: Catalog) -> None:
    first = recommendation()
    await catalog.recommendations.add(first)
    with pytest.raises(IntegrityError):
        await catalog.recommendations.add(recommendation(id=first.id))
    assert await catalog.recommendations.page() == (first,)


async def test_the_database_itself_refuses_a_second_open_one(
    catalog: Catalog, catalog_database: Database
) -> None:
    first, second = recommendation(), recommendation(seconds=1)
    await catalog.recommendations.add(first)
    await catalog.recommendations.add(second)
    async with catalog_database.connected() as connection:
        with pytest.raises(Exception, match="recommendations_open_by_pool_key"):
            await connection.execute(
                "UPDATE recommendations SET status = 'open', closed_at = NULL WHERE id = $1",
                first.id,
            )


async def test_closing_is_for_one_and_leaves_an_event(catalog: Catalog) -> None:
    given = recommendation()
    await catalog.recommendations.add(given)
    closed = given.closed(RecommendationStatus.DISMISSED, "api", NOON)
    await catalog.recommendations.close(closed, event=event("recommendation.dismissed"))
    assert await catalog.recommendations.get(given.id) == closed
    with pytest.raises(RecommendationClosed, match="dismissed"):
        await catalog.recommendations.close(closed, event=event("no"))
    with pytest.raises(RecommendationNotFound):
        await catalog.recommendations.close(replace(closed, id=uuid4()), event=event("no"))
    assert [each.action for each in await catalog.audit_log.page()] == ["recommendation.dismissed"]


async def test_no_closing_without_its_event(catalog: Catalog) -> None:
    given = recommendation()
    await catalog.recommendations.add(given)
    closed = given.closed(RecommendationStatus.DISMISSED, "api", NOON)
    with pytest.raises(DBAPIError):
        await catalog.recommendations.close(closed, event=refused_event())
    assert await catalog.recommendations.get(given.id) == given


@pytest.mark.parametrize("is_known", [True, False])
async def test_an_applied_one_and_its_change_are_stored_together(
    catalog: Catalog, *, is_known: bool
) -> None:
    given, other = recommendation(), recommendation(seconds=-1)
    await catalog.recommendations.add(given if is_known else other)
    applied = given.closed(RecommendationStatus.APPLIED, "advisor", NOON)
    size = PoolSize(max_size=10)

    async def apply(recorded: AuditEvent) -> None:
        await catalog.pools.save("acme", size, pause=None, event=None, applied=(applied, recorded))

    with pytest.raises(DBAPIError), capture_logs() as logged:
        await apply(refused_event())
    assert not logged
    assert await catalog.pools.load() == ()
    [unchanged] = await catalog.recommendations.page()
    assert unchanged == (given if is_known else other)
    with capture_logs() as logged:
        await apply(event("recommendation.applied"))
    superseded = [] if is_known else ["recommendation.superseded"]
    assert await actions(catalog) == ["recommendation.applied", *superseded]
    assert [each["action"] for each in logged] == [*superseded, "recommendation.applied"]
    [desired] = await catalog.pools.load()
    assert desired.size == size
    assert await catalog.recommendations.get(given.id) == applied
    assert await catalog.recommendations.page(status=RecommendationStatus.OPEN) == ()
    with pytest.raises(RecommendationClosed, match="applied"):
        await apply(event("no"))


async def test_recommendations_expire(catalog: Catalog) -> None:
    early, late = recommendation(), recommendation("other", seconds=60)
    await catalog.recommendations.add(early)
    await catalog.recommendations.add(late)
    now = NOON + timedelta(minutes=10)
    assert await catalog.recommendations.expire(now, limit=2) == 1
    expired = early.closed(RecommendationStatus.EXPIRED, ADVISOR.name, now)
    assert await catalog.recommendations.get(early.id) == expired
    assert await recorded(catalog) == [expired.closing_event(ADVISOR)]
    assert await catalog.recommendations.expire(now, limit=2) == 0
    assert await catalog.recommendations.get(late.id) == late


async def test_no_more_expire_at_once_than_asked_for(catalog: Catalog) -> None:
    given = [recommendation(f"t{number}") for number in range(5)]
    for each in given:
        await catalog.recommendations.add(each)
    now = NOON + timedelta(minutes=10)
    expired = [await catalog.recommendations.expire(now, limit=2) for _ in range(4)]
    assert expired == [2, 2, 1, 0]
    closed = {event.pool for event in await recorded(catalog)}
    assert closed == {each.pool_id for each in given}


async def test_one_that_is_repeated_expires_later_but_not_if_it_is_closed(
    catalog: Catalog,
) -> None:
    given = recommendation()
    await catalog.recommendations.add(given)
    longer = replace(given, expires_at=NOON + timedelta(hours=1))
    await catalog.recommendations.extend(longer)
    assert await catalog.recommendations.get(given.id) == longer
    closed = longer.closed(RecommendationStatus.DISMISSED, "api", NOON)
    await catalog.recommendations.close(closed)
    await catalog.recommendations.extend(replace(given, expires_at=NOON + timedelta(hours=2)))
    assert await catalog.recommendations.get(given.id) == closed


async def test_pages_hold_still_while_recommendations_arrive(catalog: Catalog) -> None:
    """Also when several were made at the same moment."""
    given = [recommendation(f"t{number}", seconds=number // 3) for number in range(10)]
    for each in given:
        await catalog.recommendations.add(each)
    seen = []
    before = None
    while page := await catalog.recommendations.page(before=before, limit=2):
        seen += ids(page)
        before = (page[-1].created_at, page[-1].id)
        await catalog.recommendations.add(recommendation(seconds=60))
    newest_first = sorted(given, key=lambda each: (each.created_at, each.id), reverse=True)
    assert seen == [each.id for each in newest_first]


async def test_filters_narrow_the_list(catalog: Catalog) -> None:
    old, new = recommendation(), recommendation(seconds=1)
    shared = recommendation("shared@local", seconds=2)
    for each in (old, new, shared):
        await catalog.recommendations.add(each)
    page = catalog.recommendations.page
    assert ids(await page(pool_id="acme")) == [new.id, old.id]
    assert ids(await page(tenant="acme")) == [new.id, old.id]
    assert ids(await page(pool_id="shared@local")) == [shared.id]
    assert ids(await page(status=RecommendationStatus.SUPERSEDED)) == [old.id]
    assert ids(await page(status=RecommendationStatus.OPEN, pool_id="acme")) == [new.id]
    assert await page(status=RecommendationStatus.APPLIED) == ()
