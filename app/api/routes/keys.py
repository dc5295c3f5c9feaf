"""The API keys: their names and what they permit. A key itself is stored nowhere."""

from datetime import UTC, datetime
from typing import Self

from fastapi import APIRouter
from pydantic import BaseModel, Field

from app.api.auth.api_key import ApiKey
from app.api.auth.key_scope import KeyScope
from app.api.http.authentication import REQUIRE_ADMIN_ALL
from app.api.http.dependencies import AuthenticatorDep
from app.api.http.strict_route import StrictRoute

router = APIRouter(prefix="/v1/keys", tags=["keys"], route_class=StrictRoute)


class KeyView(BaseModel):
    """An API key, without its secret."""

    name: str = Field(description="Its name in the log and the audit trail.", examples=["checkout"])
    scopes: list[KeyScope] = Field(examples=[["operate"]])
    tenants: list[str] | None = Field(
        description="The only tenants that it can access; null: all.", examples=[["acme"]]
    )
    node: str | None = Field(
        description="The node whose agent uses it; null: it is not a node's key.", examples=[None]
    )
    created_at: datetime = Field(examples=["2026-11-20T09:00:00Z"])
    expires_at: datetime | None = Field(
        description="Null: it never expires.", examples=["2027-11-20T09:00:00Z"]
    )
    expired: bool = Field(description="Whether it has expired.", examples=[False])
    last_used_at: datetime | None = Field(
        description="Precise to a minute; null: not since `uses_since`.",
        examples=["2026-11-20T09:12:34Z"],
    )
    requests_per_second: int | None = Field(
        description="Its own rate limit; null: the service's.", examples=[100]
    )

    @classmethod
    def of(cls, key: ApiKey, last_used_at: datetime | None) -> Self:
        expired = key.expires_at is not None and key.expires_at <= datetime.now(UTC)
        stored = key.model_dump(exclude={"id", "sha256"})
        return cls(**stored, expired=expired, last_used_at=last_used_at)


class KeyNames(BaseModel):
    """All API keys by name."""

    required: bool = Field(
        description="Whether requests need a key; otherwise local programs have full access.",
        examples=[True],
    )
    uses_since: datetime = Field(
        description="When the active instance began to note uses: as it started or took over. What "
        "was used before is not known.",
        examples=["2026-11-20T09:00:00Z"],
    )
    items: list[KeyView]


@router.get("", dependencies=REQUIRE_ADMIN_ALL, summary="List API keys")
async def list_keys(authenticator: AuthenticatorDep) -> KeyNames:
    """Lists the API keys' names, scopes, tenants and last uses; never a key, its ID or its hash.

    `poolkeeper keys` creates and revokes them, on the service's machine. A key that is bound to
    tenants answers 403.
    """
    keys = authenticator.keys
    return KeyNames(
        required=keys.is_enforced,
        uses_since=authenticator.uses_since,
        items=[KeyView.of(key, authenticator.last_used_at(key)) for key in keys.all()],
    )
