"""The requests of the API, for a client to send.

Generated from openapi/openapi.json by `make openapi`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

from poolkeeper.request import ListRequest, Request, segment

if TYPE_CHECKING:
    from poolkeeper import models


def list_servers() -> ListRequest[models.ServerList, models.ServerView]:
    """List servers."""
    return ListRequest("GET", "/v1/servers")


def get_server(server: str) -> Request[models.ServerView]:
    """Get a server."""
    return Request("GET", f"/v1/servers/{segment(server)}")


def list_nodes() -> ListRequest[models.NodeList, models.NodeView]:
    """List nodes."""
    return ListRequest("GET", "/v1/nodes")


def get_node(node: str) -> Request[models.NodeView]:
    """Get a node."""
    return Request("GET", f"/v1/nodes/{segment(node)}")


def put_node(node: str, **body: Unpack[models.NodeBody]) -> Request[models.NodeView]:
    """Declare a node."""
    return Request("PUT", f"/v1/nodes/{segment(node)}", body=body)


def delete_node(node: str) -> Request[models.NodeView]:
    """Delete a node."""
    return Request("DELETE", f"/v1/nodes/{segment(node)}", sends_key=True)


def pause_node(node: str) -> Request[models.NodeView]:
    """Pause a node."""
    return Request("POST", f"/v1/nodes/{segment(node)}/pause", sends_key=True)


def resume_node(node: str) -> Request[models.NodeView]:
    """Resume a node."""
    return Request("POST", f"/v1/nodes/{segment(node)}/resume", sends_key=True)


def drain_node(node: str) -> Request[models.NodeView]:
    """Drain a node."""
    return Request("POST", f"/v1/nodes/{segment(node)}/drain", sends_key=True)


def list_node_tenants(
    node: str,
    *,
    sort: models.NodeTenantOrder | None = None,
    search: str | None = None,
    offset: int | None = None,
) -> ListRequest[models.NodeTenantList, models.NodeTenantView]:
    """List the tenants of a node."""
    return ListRequest(
        "GET",
        f"/v1/nodes/{segment(node)}/tenants",
        query={"sort": sort, "search": search, "offset": offset},
    )


def put_tenant(tenant: str, **body: Unpack[models.TenantBody]) -> Request[models.TenantView]:
    """Declare a tenant."""
    return Request("PUT", f"/v1/tenants/{segment(tenant)}", body=body)


def get_tenant(tenant: str) -> Request[models.TenantView]:
    """Get a tenant."""
    return Request("GET", f"/v1/tenants/{segment(tenant)}")


def delete_tenant(
    tenant: str, *, deadline_seconds: float | None = None
) -> Request[models.TenantDeletion]:
    """Delete a tenant."""
    return Request(
        "DELETE",
        f"/v1/tenants/{segment(tenant)}",
        query={"deadline_seconds": deadline_seconds},
        sends_key=True,
    )


def list_tenants(
    *,
    strategy: models.PoolStrategy | None = None,
    server: str | None = None,
    state: models.TenantPhase | None = None,
    search: str | None = None,
    finding: models.Severity | None = None,
    label: list[str] | None = None,
) -> ListRequest[models.TenantList, models.TenantView]:
    """List tenants."""
    return ListRequest(
        "GET",
        "/v1/tenants",
        query={
            "strategy": strategy,
            "server": server,
            "state": state,
            "search": search,
            "finding": finding,
            "label": label,
        },
    )


def provision_tenant(tenant: str, *, adopt: bool | None = None) -> Request[models.Provisioning]:
    """Provision a tenant."""
    return Request(
        "POST", f"/v1/tenants/{segment(tenant)}/provision", query={"adopt": adopt}, sends_key=True
    )


def list_findings(*, named: int | None = None) -> Request[models.FindingList]:
    """List findings."""
    return Request("GET", "/v1/findings", query={"named": named})


def rotate_credentials(
    tenant: str, *, scope: models.PoolScope | None = None
) -> Request[models.CredentialRotation]:
    """Rotate the password of a tenant's role."""
    return Request(
        "POST",
        f"/v1/tenants/{segment(tenant)}/rotate-credentials",
        query={"scope": scope},
        sends_key=True,
    )


def list_credentials(tenant: str) -> ListRequest[models.CredentialList, models.CredentialView]:
    """List a tenant's credentials."""
    return ListRequest("GET", f"/v1/tenants/{segment(tenant)}/credentials")


def create_credential(
    tenant: str, **body: Unpack[models.CredentialBody]
) -> Request[models.IssuedCredentialView]:
    """Create a credential."""
    return Request("POST", f"/v1/tenants/{segment(tenant)}/credentials", body=body, sends_key=True)


def get_credential(tenant: str, credential: str) -> Request[models.CredentialView]:
    """Get a credential."""
    return Request("GET", f"/v1/tenants/{segment(tenant)}/credentials/{segment(credential)}")


def revoke_credential(tenant: str, credential: str) -> Request[models.CredentialView]:
    """Revoke a credential."""
    return Request(
        "DELETE", f"/v1/tenants/{segment(tenant)}/credentials/{segment(credential)}", sends_key=True
    )


def put_tenant_pool(
    tenant: str, *, scope: models.PoolScope | None = None, **body: Unpack[models.PoolBody]
) -> Request[models.PoolView]:
    """Open or resize a tenant's pool."""
    return Request("PUT", f"/v1/tenants/{segment(tenant)}/pool", query={"scope": scope}, body=body)


def get_tenant_pool(tenant: str) -> Request[models.PoolView]:
    """Get a tenant's pool."""
    return Request("GET", f"/v1/tenants/{segment(tenant)}/pool")


def evict_pool(
    tenant: str,
    *,
    mode: models.EvictionMode | None = None,
    scope: models.PoolScope | None = None,
    deadline_seconds: float | None = None,
) -> Request[models.PoolEviction]:
    """Evict a tenant's pool."""
    return Request(
        "DELETE",
        f"/v1/tenants/{segment(tenant)}/pool",
        query={"mode": mode, "scope": scope, "deadline_seconds": deadline_seconds},
        sends_key=True,
    )


def pause_pool(tenant: str, *, scope: models.PoolScope | None = None) -> Request[models.PoolView]:
    """Pause a tenant's pool."""
    return Request(
        "POST", f"/v1/tenants/{segment(tenant)}/pool/pause", query={"scope": scope}, sends_key=True
    )


def resume_pool(tenant: str, *, scope: models.PoolScope | None = None) -> Request[models.PoolView]:
    """Resume a tenant's pool."""
    return Request(
        "POST", f"/v1/tenants/{segment(tenant)}/pool/resume", query={"scope": scope}, sends_key=True
    )


def drain_pool(
    tenant: str, *, scope: models.PoolScope | None = None, deadline_seconds: float | None = None
) -> Request[models.PoolDrain]:
    """Drain a tenant's pool."""
    return Request(
        "POST",
        f"/v1/tenants/{segment(tenant)}/pool/drain",
        query={"scope": scope, "deadline_seconds": deadline_seconds},
        sends_key=True,
    )


def recycle_pool(
    tenant: str, *, scope: models.PoolScope | None = None
) -> Request[models.PoolRecycling]:
    """Replace a pool's connections."""
    return Request(
        "POST",
        f"/v1/tenants/{segment(tenant)}/pool/recycle",
        query={"scope": scope},
        sends_key=True,
    )


def check_pool(tenant: str, *, scope: models.PoolScope | None = None) -> Request[models.PoolCheck]:
    """Test a pool's connections."""
    return Request(
        "POST", f"/v1/tenants/{segment(tenant)}/pool/check", query={"scope": scope}, sends_key=True
    )


def list_pools(
    *,
    sort: models.PoolOrder | None = None,
    strategy: models.PoolStrategy | None = None,
    server: str | None = None,
    search: str | None = None,
    offset: int | None = None,
) -> ListRequest[models.PoolList, models.PoolView]:
    """List open, paused and awaited pools."""
    return ListRequest(
        "GET",
        "/v1/pools",
        query={
            "sort": sort,
            "strategy": strategy,
            "server": server,
            "search": search,
            "offset": offset,
        },
    )


def evict_expired_pools() -> Request[models.Sweep]:
    """Evict idle pools."""
    return Request("POST", "/v1/pools/evict-expired", sends_key=True)


def list_leases(
    *,
    state: models.CallerState | None = None,
    tenant: str | None = None,
    pool: str | None = None,
    server: str | None = None,
    sort: models.LeaseOrder | None = None,
) -> ListRequest[models.LeaseList, models.LeaseView]:
    """List leases and waiting callers."""
    return ListRequest(
        "GET",
        "/v1/leases",
        query={"state": state, "tenant": tenant, "pool": pool, "server": server, "sort": sort},
    )


def run_query(tenant: str, **body: Unpack[models.QueryBody]) -> Request[models.QueryResult]:
    """Run statements as a tenant."""
    return Request("POST", f"/v1/tenants/{segment(tenant)}/query", body=body)


def run_statements(
    tenant: str, **body: Unpack[models.QueryBody]
) -> Request[models.QueryBatchResult]:
    """Run several statements as a tenant, in one transaction."""
    return Request("POST", f"/v1/tenants/{segment(tenant)}/query", body=body)


def get_stats(
    *,
    sort: models.TenantOrder | None = None,
    pool: str | None = None,
    search: str | None = None,
    offset: int | None = None,
) -> ListRequest[models.ServiceStats, models.TenantStats]:
    """Get the service's statistics."""
    return ListRequest(
        "GET", "/v1/stats", query={"sort": sort, "pool": pool, "search": search, "offset": offset}
    )


def get_tenant_stats(tenant: str) -> Request[models.TenantStats]:
    """Get a tenant's statistics."""
    return Request("GET", f"/v1/tenants/{segment(tenant)}/stats")


def get_service_stats_history(
    *, from_: str | None = None, to: str | None = None, step_seconds: int | None = None
) -> Request[models.ServiceHistory]:
    """Get the service's past statistics."""
    return Request(
        "GET", "/v1/stats/history", query={"from": from_, "to": to, "step_seconds": step_seconds}
    )


def get_tenant_stats_history(
    tenant: str, *, from_: str | None = None, to: str | None = None, step_seconds: int | None = None
) -> Request[models.StatsHistory]:
    """Get a tenant's past statistics."""
    return Request(
        "GET",
        f"/v1/tenants/{segment(tenant)}/stats/history",
        query={"from": from_, "to": to, "step_seconds": step_seconds},
    )


def get_pool_stats_history(
    pool_id: str,
    *,
    from_: str | None = None,
    to: str | None = None,
    step_seconds: int | None = None,
) -> Request[models.StatsHistory]:
    """Get a pool's past statistics."""
    return Request(
        "GET",
        f"/v1/pools/{segment(pool_id)}/stats/history",
        query={"from": from_, "to": to, "step_seconds": step_seconds},
    )


def list_usage(
    *,
    from_: str | None = None,
    to: str | None = None,
    group_by: str | None = None,
    sort: models.UsageOrder | None = None,
) -> ListRequest[models.Usage, models.UsageItem]:
    """List how long tenants held connections."""
    return ListRequest(
        "GET", "/v1/usage", query={"from": from_, "to": to, "group_by": group_by, "sort": sort}
    )


def get_advisor() -> Request[models.AdvisorView]:
    """Get the advisor."""
    return Request("GET", "/v1/advisor")


def put_advisor(**body: Unpack[models.AdvisorBody]) -> Request[models.AdvisorView]:
    """Change the advisor."""
    return Request("PUT", "/v1/advisor", body=body)


def evaluate_advisor(**body: Unpack[models.EvaluateBody]) -> Request[models.Evaluation]:
    """Evaluate a what-if."""
    return Request("POST", "/v1/advisor/evaluate", body=body, sends_key=True)


def list_recommendations(
    *,
    status: models.RecommendationStatus | None = None,
    tenant: str | None = None,
    pool: str | None = None,
) -> ListRequest[models.RecommendationList, models.RecommendationView]:
    """List recommendations."""
    return ListRequest(
        "GET", "/v1/recommendations", query={"status": status, "tenant": tenant, "pool": pool}
    )


def get_recommendation(id_: str) -> Request[models.RecommendationView]:
    """Get a recommendation."""
    return Request("GET", f"/v1/recommendations/{segment(id_)}")


def apply_recommendation(id_: str) -> Request[models.RecommendationView]:
    """Apply a recommendation."""
    return Request("POST", f"/v1/recommendations/{segment(id_)}/apply", sends_key=True)


def dismiss_recommendation(id_: str) -> Request[models.RecommendationView]:
    """Dismiss a recommendation."""
    return Request("POST", f"/v1/recommendations/{segment(id_)}/dismiss", sends_key=True)


def list_events(
    *,
    tenant: str | None = None,
    pool: str | None = None,
    action: str | None = None,
    actor: str | None = None,
    origin: models.Origin | None = None,
    since: str | None = None,
) -> ListRequest[models.EventList, models.EventView]:
    """List events."""
    return ListRequest(
        "GET",
        "/v1/events",
        query={
            "tenant": tenant,
            "pool": pool,
            "action": action,
            "actor": actor,
            "origin": origin,
            "since": since,
        },
    )


def list_refusals(
    *, tenant: str | None = None, code: str | None = None, request_id: str | None = None
) -> ListRequest[models.RefusalList, models.RefusalView]:
    """List recent refusals."""
    return ListRequest(
        "GET", "/v1/refusals", query={"tenant": tenant, "code": code, "request_id": request_id}
    )


def list_keys() -> Request[models.KeyNames]:
    """List API keys."""
    return Request("GET", "/v1/keys")


def get_about() -> Request[models.About]:
    """Get the version."""
    return Request("GET", "/v1/about")


def get_readiness() -> Request[models.Readiness]:
    """Check the active instance."""
    return Request("GET", "/v1/readiness")


def list_instances() -> ListRequest[models.InstanceList, models.InstanceView]:
    """List the service's instances."""
    return ListRequest("GET", "/v1/instances")
