"""Recent refusals: why a request was refused."""

from itertools import islice
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel

from app.api.http.authentication import REQUIRE_READ
from app.api.http.dependencies import CursorQuery, LimitQuery, PrincipalDep, of_application
from app.api.http.paging import NextCursor, decode_cursor, paginate
from app.api.http.refusals import Refusals, RefusalView
from app.api.http.strict_route import StrictRoute
from app.api.routes.events import TenantQuery

router = APIRouter(prefix="/v1/refusals", tags=["events"], route_class=StrictRoute)


class RefusalList(BaseModel):
    """A page of refusals, newest first."""

    items: list[RefusalView]
    next_cursor: NextCursor


@router.get("", dependencies=[REQUIRE_READ], summary="List recent refusals")
async def list_refusals(
    refusals: Annotated[Refusals, of_application("refusals")],
    principal: PrincipalDep,
    *,
    tenant: TenantQuery = None,
    code: Annotated[
        str | None,
        Query(pattern=r"^[a-z]+(-[a-z]+)*$", max_length=64, description="Filter by code."),
    ] = None,
    request_id: Annotated[
        str | None,
        Query(pattern=r"^[A-Za-z0-9._:-]{1,128}$", description="Filter by request ID."),
    ] = None,
    limit: LimitQuery = 100,
    cursor: CursorQuery = None,
) -> RefusalList:
    """Lists why recent requests were refused, newest first.

    The latest 50 of each tenant since the service started, from memory; the log has more. A GET
    that finds nothing (404) does not count. A key that is bound to tenants sees only theirs.
    """
    before_id = decode_cursor(cursor, int)[0] if cursor else None
    wanted = {"tenant": tenant, "code": code, "request_id": request_id}
    found = (
        refusal
        for refusal in refusals.latest(before_id)
        if principal.can_access(refusal.tenant)
        and all(value is None or getattr(refusal, name) == value for name, value in wanted.items())
    )
    page, next_cursor = paginate(list(islice(found, limit + 1)), limit, lambda each: (each.id,))
    return RefusalList(items=list(page), next_cursor=next_cursor)
