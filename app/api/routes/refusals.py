"""Recent refusals: why a request was refused."""

from datetime import datetime
from itertools import islice
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from app.api.http.authentication import REQUIRE_READ
from app.api.http.dependencies import CursorQuery, LimitQuery, PrincipalDep
from app.api.http.paging import NextCursor, decode_cursor, paginate
from app.api.http.refusals import Refusals
from app.api.http.strict_route import StrictRoute
from app.api.routes.events import TenantQuery

router = APIRouter(prefix="/v1/refusals", tags=["events"], route_class=StrictRoute)


class RefusalView(BaseModel):
    """A request that was answered with a problem."""

    model_config = ConfigDict(from_attributes=True)

    id: int = Field(description="Grows with each refusal.", examples=[42])
    at: datetime = Field(examples=["2026-11-20T09:12:34Z"])
    tenant: str | None = Field(
        description="The tenant in the path; null if there is none, or if the caller cannot access "
        "it.",
        examples=["acme"],
    )
    actor: str | None = Field(
        description="Name of the API key; null if the request was not authenticated.",
        examples=["checkout"],
    )
    method: str = Field(examples=["POST"])
    path: str = Field(examples=["/v1/tenants/acme/query"])
    status: int = Field(examples=[503])
    code: str = Field(description="The problem's code.", examples=["pool-timeout"])
    detail: str = Field(
        description="The problem's detail, and the first of its errors; for a failed statement, "
        "only its SQLSTATE.",
        examples=["No connection of pool acme became free in 5 s."],
    )
    request_id: str | None = Field(
        description="ID of the request, as in its response and in the log.",
        examples=["5d1c4a2e8b7f4c6d"],
    )


class RefusalList(BaseModel):
    """A page of refusals, newest first."""

    items: list[RefusalView]
    next_cursor: NextCursor


async def get_refusals(request: Request) -> Refusals:
    refusals: Refusals = request.app.state.refusals
    return refusals


@router.get("", dependencies=[REQUIRE_READ], summary="List recent refusals")
async def list_refusals(
    refusals: Annotated[Refusals, Depends(get_refusals)],
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
    return RefusalList(
        items=[RefusalView.model_validate(each) for each in page], next_cursor=next_cursor
    )
