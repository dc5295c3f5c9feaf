"""Stored recommendations; each subject has at most one open recommendation."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, fields
from datetime import datetime
from math import isfinite
from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping, Update, exists, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.catalog.audit_log import record
from app.catalog.database import Store, fields_in
from app.catalog.tables import recommendations, tenants
from app.domain.advisor import (
    Confidence,
    Effect,
    Placement,
    PoolSizingRecommendation,
    ReasonCode,
    ScalingAction,
)
from app.domain.audit import ADVISOR, Actor, AuditEvent
from app.domain.errors import RecommendationClosed, RecommendationNotFound
from app.domain.pool import PoolMetrics
from app.domain.recommendation import (
    MAX_LIFETIME,
    Recommendation,
    RecommendationKind,
    RecommendationStatus,
)


class Recommendations(Store):
    async def add(self, recommendation: Recommendation) -> None:
        """Store an open one; it supersedes the open one of its subject."""
        async with self._database.transaction() as connection:
            superseded = _supersede(recommendation, ADVISOR, recommendation.created_at)
            await _close(superseded, ADVISOR, connection)
            await connection.execute(insert(recommendations), _values(recommendation))

    async def extend(self, recommendation: Recommendation) -> None:
        """Store a new expiry time of a recommendation, if it is still open."""
        column = recommendations.c
        change = (
            update(recommendations)
            .where(column.id == recommendation.id, column.status == RecommendationStatus.OPEN)
            .values(expires_at=recommendation.expires_at)
        )
        async with self._database.transaction() as connection:
            await connection.execute(change)

    async def get(self, recommendation_id: UUID) -> Recommendation:
        """Return a recommendation, open or closed.

        Raises:
            RecommendationNotFound: there is none with this id.
        """
        async with self._database.reading() as connection:
            return await _find(connection, recommendation_id)

    async def page(
        self,
        *,
        status: RecommendationStatus | None = None,
        pool_id: str | None = None,
        tenant: str | None = None,
        before: tuple[datetime, UUID] | None = None,
        limit: int = 100,
        among: Collection[str] | None = None,
    ) -> tuple[Recommendation, ...]:
        """Return the recommendations that match all filters, newest first.

        *before* is `created_at` and `id` of the last one on the previous page; *among* are tenants.
        """
        columns = recommendations.c
        equal = {columns.status: status, columns.pool_id: pool_id, columns.tenant: tenant}
        wanted = [column == value for column, value in equal.items() if value is not None]
        if among is not None:
            wanted.append(columns.tenant.in_(among))
        if before is not None:
            wanted.append(tuple_(columns.created_at, columns.id) < tuple_(*before))
        statement = (
            select(recommendations)
            .where(*wanted)
            .order_by(columns.created_at.desc(), columns.id.desc())
            .limit(limit)
        )
        return await self._database.load(statement, _recommendation)

    async def close(self, closed: Recommendation, *, event: AuditEvent | None = None) -> None:
        """Store that an open one is *closed*; record *event* in the same transaction.

        Raises:
            RecommendationNotFound: there is none with this id.
            RecommendationClosed: it was already closed.
        """
        column = recommendations.c
        change = (
            update(recommendations)
            .where(column.id == closed.id, column.status == RecommendationStatus.OPEN)
            .values(status=closed.status, closed_at=closed.closed_at, closed_by=closed.closed_by)
        )
        async with self._database.transaction() as connection:
            if not (await connection.execute(change)).rowcount:
                await _refuse_closed(connection, closed.id)
            if event is not None:
                await record(connection, event)

    async def dismissed(self, now: datetime) -> tuple[Recommendation, ...]:
        """Load dismissed ones that would not have expired by *now*, oldest first.

        Those about a tenant that was deleted since are left out: a later one may have its id.
        """
        column = recommendations.c
        lives = exists().where(
            tenants.c.id == column.tenant, tenants.c.created_at <= column.closed_at
        )
        statement = (
            select(recommendations)
            .where(
                or_(column.tenant.is_(None), lives),
                column.status == RecommendationStatus.DISMISSED,
                column.created_at > now - MAX_LIFETIME,
                column.expires_at > now,
            )
            .order_by(column.closed_at)
        )
        return await self._database.load(statement, _recommendation)

    async def expire(self, now: datetime, *, limit: int) -> int:
        """Close at most *limit* of those that have expired by *now*; return how many."""
        column = recommendations.c
        is_open = column.status == RecommendationStatus.OPEN
        some = select(column.id).where(is_open, column.expires_at <= now).limit(limit)
        expired = (
            update(recommendations)
            .where(is_open, column.id.in_(some))
            .values(status=RecommendationStatus.EXPIRED, closed_at=now, closed_by=ADVISOR.name)
        )
        async with self._database.transaction() as connection:
            return await _close(expired, ADVISOR, connection)


async def record_applied(
    applied: Recommendation, event: AuditEvent, connection: AsyncConnection
) -> None:
    """Store an *applied* recommendation, open or new, in the transaction of its change.

    Raises:
        RecommendationClosed: it was already closed.
    """
    column = recommendations.c
    await _close(_supersede(applied, event.actor, event.at), event.actor, connection)
    if applied.advice.reason_code is ReasonCode.GROWTH_UNDONE:
        await connection.execute(_undo_growth(applied.pool_id))
    values = _values(applied)
    upsert = (
        insert(recommendations)
        .values(values)
        .on_conflict_do_update(
            index_elements=[column.id],
            set_={name: values[name] for name in values if name not in ("id", "created_at")},
            where=column.status == RecommendationStatus.OPEN,
        )
    )
    if not (await connection.execute(upsert)).rowcount:
        await _refuse_closed(connection, applied.id)
    await record(connection, event)


async def _close(change: Update, actor: Actor, connection: AsyncConnection) -> int:
    """Close recommendations with *change* on behalf of *actor*; record an event for each."""
    rows = await connection.execute(change.returning(recommendations))
    events = [_recommendation(row).closing_event(actor) for row in rows.mappings()]
    await record(connection, *events)
    return len(events)


def _supersede(recommendation: Recommendation, actor: Actor, at: datetime) -> Update:
    """Close any other open recommendation for the subject of *recommendation*."""
    column = recommendations.c
    is_about = column.pool_id == recommendation.pool_id
    if recommendation.kind is RecommendationKind.PLACEMENT:
        is_about = column.tenant == recommendation.tenant
    return (
        update(recommendations)
        .where(
            is_about,
            column.id != recommendation.id,
            column.kind == recommendation.kind,
            column.status == RecommendationStatus.OPEN,
        )
        .values(status=RecommendationStatus.SUPERSEDED, closed_at=at, closed_by=actor.name)
    )


def _undo_growth(pool_id: str) -> Update:
    """Mark the latest growth applied to a pool as undone, if there is one."""
    column = recommendations.c
    last = (
        select(column.id)
        .where(
            column.pool_id == pool_id,
            column.kind == RecommendationKind.RESIZE,
            column.action == ScalingAction.SCALE_UP,
            column.status == RecommendationStatus.APPLIED,
        )
        .order_by(column.closed_at.desc())
        .limit(1)
        .scalar_subquery()
    )
    undone = {"status": RecommendationStatus.UNDONE}
    return update(recommendations).where(column.id == last).values(**undone)


async def _refuse_closed(connection: AsyncConnection, recommendation_id: UUID) -> None:
    found = await _find(connection, recommendation_id)
    raise RecommendationClosed(f"The recommendation is already {found.status}.")


async def _find(connection: AsyncConnection, recommendation_id: UUID) -> Recommendation:
    this = recommendations.c.id == recommendation_id
    rows = await connection.execute(select(recommendations).where(this))
    row = rows.mappings().one_or_none()
    if row is None:
        raise RecommendationNotFound
    return _recommendation(row)


def _values(recommendation: Recommendation) -> Mapping[str, Any]:
    advice = asdict(recommendation.advice)
    for name in ("trial", "idle_seconds", "warm_size", "offered_load"):
        del advice[name]
    advice["evidence"] = {name: _finite(value) for name, value in advice["evidence"].items()}
    values = {each.name: getattr(recommendation, each.name) for each in fields(recommendation)}
    del values["advice"], values["metrics"]
    return {**values, "kind": recommendation.kind, **advice, **asdict(recommendation.metrics)}


def _finite(value: float | None) -> float | None:
    """JSON has no infinity."""
    return value if value is None or isfinite(value) else None


def _recommendation(row: RowMapping) -> Recommendation:
    expected, placement = row["expected"], row["placement"]
    advice = fields_in(row, PoolSizingRecommendation) | {
        "action": ScalingAction(row["action"]),
        "reason_code": ReasonCode(row["reason_code"]),
        "confidence": Confidence(row["confidence"]),
        "expected": None if expected is None else Effect(**expected),
    }
    rest = fields_in(row, Recommendation) | {
        "status": RecommendationStatus(row["status"]),
        "placement": None if placement is None else Placement(placement),
    }
    metrics = PoolMetrics(**fields_in(row, PoolMetrics))
    return Recommendation(advice=PoolSizingRecommendation(**advice), metrics=metrics, **rest)
