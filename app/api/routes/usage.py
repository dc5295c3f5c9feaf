"""Usage: which tenants held connections, and for how long, over any stored period."""

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from app.api.http.authentication import REQUIRE_READ
from app.api.http.dependencies import (
    CatalogDep,
    CursorQuery,
    LimitQuery,
    PrincipalDep,
    provided,
)
from app.api.http.field_types import PrintableText, Timestamp
from app.api.http.paging import NextCursor, decode_sorted, invalid_cursor, paginate
from app.api.http.strict_route import StrictRoute
from app.api.routes.stats_history import EndQuery, check_order
from app.control.monitoring.poller import Poller
from app.domain.usage_report import (
    USAGE_GROUP_PATTERN,
    Grouping,
    UsageGroup,
    UsageOrder,
    UsageReport,
)

_LONGEST_LABEL = 63

router = APIRouter(prefix="/v1/usage", tags=["stats"], route_class=StrictRoute)


class UsageTotals(BaseModel):
    """The usage of all groups together."""

    groups: int = Field(description="Number of groups.", examples=[24])
    connection_seconds: float = Field(examples=[80_640.25])
    leases: int = Field(examples=[910_233])
    timeouts: int = Field(examples=[4])


class UsageItem(BaseModel):
    """The usage of a group's tenants."""

    group: str | None = Field(
        description="The tenant, pool, server or value of the label; null for tenants that were "
        "deleted since, and for those without the label.",
        examples=["acme"],
    )
    tenants: int = Field(description="Tenants of the group with stored use.", examples=[1])
    connection_seconds: float = Field(
        description="How long they held connections: the sum over all connections.",
        examples=[60_480.5],
    )
    mean_connections: float = Field(
        description="Connections held on average: `connection_seconds` per second from "
        "`covered_from` to `covered_to`.",
        examples=[0.7],
    )
    share: float = Field(description="Part of all groups' `connection_seconds`.", examples=[0.75])
    leases: int = Field(description="Leases begun.", examples=[700_111])
    timeouts: int = Field(description="Leases that timed out.", examples=[3])


class Usage(BaseModel):
    """A page of groups, those with most usage first."""

    start: datetime = Field(
        serialization_alias="from", description="As requested.", examples=["2026-11-19T00:00:00Z"]
    )
    end: datetime = Field(
        serialization_alias="to", description="As requested.", examples=["2026-11-20T00:00:00Z"]
    )
    covered_from: datetime = Field(
        description="What the figures cover: whole stored intervals.",
        examples=["2026-11-19T00:00:00Z"],
    )
    covered_to: datetime = Field(
        description="End of that, exclusive; the same as `covered_from` if nothing is stored.",
        examples=["2026-11-20T00:00:00Z"],
    )
    group_by: str = Field(examples=["tenant"])
    totals: UsageTotals
    items: list[UsageItem]
    next_cursor: NextCursor


@router.get(
    "",
    dependencies=[REQUIRE_READ],
    summary="List how long tenants held connections",
)
async def list_usage(
    catalog: CatalogDep,
    poller: Annotated[Poller, provided(Poller)],
    principal: PrincipalDep,
    *,
    start: Annotated[
        Timestamp | None,
        Query(alias="from", description="Start, RFC 3339; 24 hours before the end if omitted."),
    ] = None,
    end: EndQuery = None,
    group_by: Annotated[
        PrintableText,
        Query(
            pattern=USAGE_GROUP_PATTERN,
            max_length=len("label:") + _LONGEST_LABEL,
            description="`tenant`, `pool`, `server`, or `label:` and the name of a label.",
            examples=["tenant", "label:plan"],
        ),
    ] = "tenant",
    sort: Annotated[UsageOrder, Query(description="Sort key.")] = UsageOrder.LONGEST,
    limit: LimitQuery = 50,
    cursor: CursorQuery = None,
) -> Usage:
    """Lists how long tenants held connections, from samples that survive a restart.

    It counts leases of the service's own pools. It does not include transactions on nodes; a
    tenant's history has them in `on_nodes`.

    A running lease counts while it runs. Both ends of the period move back to a whole minute; to a
    whole hour if the period is longer than a day or minutes are no longer stored; to a whole day
    (UTC) if it is longer than 31 days or hours are no longer stored. `covered_from` and
    `covered_to` are the result. The latest minute is included when it is complete. Tenants count
    towards their present pool, server and label. A key that is bound to tenants sees only theirs.
    Reports are made one after the other; one that takes too long answers 504 `query-timeout`.
    """
    now = datetime.now(UTC)
    after = None
    if cursor:
        since, until, after = _decoded(cursor, sort)
        # Every page has the same period, whatever the time is.
        start, end = start or since, end or until
    end = end or now
    start = start or end - timedelta(days=1)
    check_order(start, end)
    kind, _, label = group_by.partition(":")
    report = await catalog.usage_reports.make(
        start=start,
        end=min(end, poller.stored_until or now),
        grouping=Grouping(kind),
        label=label,
        order=sort,
        after=after,
        limit=limit + 1,
        among=principal.tenants,
    )
    period = (start.timestamp(), end.timestamp())
    page, next_cursor = paginate(
        report.groups,
        limit,
        lambda row: (sort.value, *period, float(sort.sign * getattr(row, sort.measure)), row.place),
    )
    return Usage(
        start=start,
        end=end,
        covered_from=report.period.start,
        covered_to=report.period.end,
        group_by=group_by,
        totals=UsageTotals(groups=report.group_count, **asdict(report.total)),
        items=[_item(row, report) for row in page],
        next_cursor=next_cursor,
    )


def _decoded(cursor: str, sort: UsageOrder) -> tuple[datetime, datetime, tuple[float, str]]:
    """The period of a list, and where its previous page ended."""
    start, end, rank, place = decode_sorted(cursor, sort, float, float, float, str)
    try:
        return datetime.fromtimestamp(start, UTC), datetime.fromtimestamp(end, UTC), (rank, place)
    except (ValueError, OverflowError, OSError) as error:
        raise invalid_cursor() from error


def _item(row: UsageGroup, report: UsageReport) -> UsageItem:
    seconds = (report.period.end - report.period.start).total_seconds()
    total = report.total.connection_seconds
    return UsageItem(
        **asdict(row),
        mean_connections=row.connection_seconds / seconds if seconds else 0.0,
        share=row.connection_seconds / total if total else 0.0,
    )
