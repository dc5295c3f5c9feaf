"""Usage reports: who held connections, and for how long, summed up from stored samples."""

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Double,
    FromClause,
    Numeric,
    Select,
    and_,
    case,
    cast,
    collate,
    func,
    literal,
    or_,
    select,
    union_all,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from app.catalog.database import Store
from app.catalog.samples import SAMPLE_TABLES
from app.catalog.tables import tenants
from app.domain.history import ResolutionTimes
from app.domain.period import Period, stored_period
from app.domain.tenant import PoolStrategy, shared_pool_id
from app.domain.usage_report import Grouping, UsageGroup, UsageOrder, UsageReport, UsageSums

_SUMS = ("connection_seconds", "leases", "timeouts")
# The precision of a sum of seconds: later digits depend on the order in which rows are added.
_DECIMALS = 3


class UsageReports(Store):
    """Builds reports. May raise CatalogUnavailable, and QueryTimeout for too long a period."""

    async def make(
        self,
        *,
        start: datetime,
        end: datetime,
        grouping: Grouping,
        label: str | None = None,
        order: UsageOrder = UsageOrder.LONGEST,
        after: tuple[float, str] | None = None,
        limit: int,
        among: Collection[str] | None = None,
    ) -> UsageReport:
        """Return up to *limit* groups of tenants that used connections from *start* to *end*.

        Args:
            start, end: see `stored_period`.
            label: the label whose values are the groups, if *grouping* is LABEL.
            after: the measure times the order's sign, and the place, of the last group on the
                previous page.
            among: count only these tenants.
        """
        async with self._database.reporting() as connection:
            period = await _stored_period(connection, start, end)
            if not period.parts:
                return UsageReport(period=period)
            groups = _groups(_by_tenant(period, among), grouping, label)
            rows = (await connection.execute(_page(groups, order, after, limit))).all()
        if not rows:
            return UsageReport(period=period)
        values = [row._asdict() for row in rows]
        return UsageReport(
            period=period,
            groups=tuple(
                UsageGroup(**{name: each[name] for name in ("group", "tenants", "place", *_SUMS)})
                for each in values
            ),
            group_count=values[0]["group_count"],
            total=UsageSums(**{name: values[0][f"total_{name}"] for name in _SUMS}),
        )


async def _stored_period(connection: AsyncConnection, start: datetime, end: datetime) -> Period:
    columns = []
    for table in SAMPLE_TABLES.values():
        columns += [
            select(each(table.c.at)).where(table.c.at < end).scalar_subquery()
            for each in (func.min, func.max)
        ]
    found = tuple((await connection.execute(select(*columns))).one())
    oldest: ResolutionTimes = dict(zip(SAMPLE_TABLES, found[::2], strict=True))
    newest: ResolutionTimes = dict(zip(SAMPLE_TABLES, found[1::2], strict=True))
    return stored_period(start, end, oldest, newest)


def _by_tenant(period: Period, among: Collection[str] | None) -> FromClause:
    """The usage of each tenant; pools of several tenants are left out."""
    parts = []
    for resolution, start, end in period.parts:
        columns = SAMPLE_TABLES[resolution].c
        rows = select(
            columns.subject,
            columns.connection_seconds,
            columns.acquired.label("leases"),
            columns.timeouts,
        ).where(columns.at >= start, columns.at < end)
        if among is None:
            parts.append(rows.where(columns.subject.not_like("%@%")))
        else:
            parts.append(rows.where(columns.subject.in_(among)))
    stored = union_all(*parts).subquery("stored")
    sums = [func.sum(stored.c[name]).label(name) for name in _SUMS]
    return select(stored.c.subject, *sums).group_by(stored.c.subject).subquery("used")


def _groups(used: FromClause, grouping: Grouping, label: str | None) -> FromClause:
    declared = tenants.c
    kinds: dict[Grouping, ColumnElement[str | None]] = {
        Grouping.TENANT: used.c.subject,
        Grouping.POOL: case(
            (declared.strategy == PoolStrategy.SHARED, shared_pool_id("") + declared.server),
            else_=declared.id,
        ),
        Grouping.SERVER: declared.server,
        Grouping.LABEL: declared.labels[label].astext,
    }
    group = kinds[grouping].label("group")
    seconds = cast(func.sum(used.c.connection_seconds), Numeric)
    joined = used.outerjoin(tenants, declared.id == used.c.subject)
    return (
        select(
            group,
            func.count().label("tenants"),
            cast(func.round(seconds, _DECIMALS), Double).label("connection_seconds"),
            *(func.sum(used.c[name]).label(name) for name in ("leases", "timeouts")),
        )
        .select_from(joined)
        .group_by(group)
        .subquery("groups")
    )


def _page(
    groups: FromClause, order: UsageOrder, after: tuple[float, str] | None, limit: int
) -> Select[Any]:
    totals = (func.sum(groups.c[name]).over().label(f"total_{name}") for name in _SUMS)
    # Short and printable, whatever the label is.
    place = collate(func.md5(func.coalesce(literal("=") + groups.c.group, "")), "C").label("place")
    summed = select(groups, place, *totals, func.count().over().label("group_count"))
    rows = summed.subquery("summed")
    rank = cast(rows.c[order.measure], Double) * order.sign
    page = select(rows).order_by(rank, rows.c.place).limit(limit)
    if after is None:
        return page
    return page.where(or_(rank > after[0], and_(rank == after[0], rows.c.place > after[1])))
