"""A screen's content as requests to the service: no more than its lines have room for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.client import NOT_FOUND, SERVICE_UNAVAILABLE

from app.cli.client.api_client import ApiClient, ApiError, Document, path_segment
from app.cli.client.live.lists import LiveRows

_MOST_ROWS = 500
_REFUSALS = 5
_LEASES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class ListQuery:
    """A part of a list."""

    of: LiveRows
    sort: str
    search: str
    offset: int
    rows: int

    def fetch(self, client: ApiClient) -> Listing:
        limit = max(1, min(self.rows, _MOST_ROWS))
        stats = client.page("/v1/stats", limit=1, fields="tenant")
        page = self.of.page(
            client, sort=self.sort, search=self.search, offset=self.offset, limit=limit
        )
        return Listing(
            query=self,
            stats=stats,
            instances=_instances(client),
            items=page["items"],
            matches=page["matches"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The result of a `ListQuery`.

    Attributes:
        stats: the service's statistics.
        instances: None while the catalog is away, which knows them.
    """

    query: ListQuery
    stats: Document
    instances: Sequence[Document] | None
    items: Sequence[Document]
    matches: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantQuery:
    """Everything about one tenant."""

    tenant: str

    def fetch(self, client: ApiClient) -> TenantReport:
        path = f"/v1/tenants/{path_segment(self.tenant)}"
        return TenantReport(
            query=self,
            stats=client.get("/v1/stats", limit=1, fields="tenant"),
            instances=_instances(client),
            tenant=client.get(path),
            numbers=client.get(f"{path}/stats"),
            pool=_unless(NOT_FOUND, lambda: client.get(f"{path}/pool")),
            leases=client.page("/v1/leases", tenant=self.tenant, limit=_LEASES),
            refusals=list(client.items("/v1/refusals", tenant=self.tenant, limit=_REFUSALS)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantReport:
    """The result of a `TenantQuery`.

    Attributes:
        instances: None while the catalog is away, which knows them.
        numbers: the tenant's statistics.
        pool: None while it is not open and was never changed.
        leases: the oldest leases, and the callers that wait longest.
    """

    query: TenantQuery
    stats: Document
    instances: Sequence[Document] | None
    tenant: Document
    numbers: Document
    pool: Document | None
    leases: Document
    refusals: Sequence[Document]


def _instances(client: ApiClient) -> Sequence[Document] | None:
    page = _unless(SERVICE_UNAVAILABLE, lambda: client.page("/v1/instances"))
    return None if page is None else page["items"]


def _unless(status: int, fetch: Callable[[], Document]) -> Document | None:
    """The document; None if the service answers with *status*."""
    try:
        return fetch()
    except ApiError as error:
        if error.http_status != status:
            raise
        return None
