"""Findings in the API: what needs attention, with its place and the tenants that it concerns."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC
from heapq import nsmallest
from typing import Literal

from pydantic import BaseModel, Field

from app.api.auth.principal import Principal
from app.api.views.readiness import ReadinessCheck
from app.control.monitoring.snapshot import PoolSnapshot
from app.control.nodes.fleet import Fleet
from app.control.nodes.tracked_node import TrackedNode
from app.control.time_slices import in_slices
from app.domain.isolation_checks import AuditCheck, Severity
from app.domain.nodes.node import NodeState
from app.domain.tenant import TenantId
from app.pools.manager import TenantPoolManager
from app.pools.servers.server import Server

# Beyond this many causes of a check, other causes of it and the same severity become one item.
MOST_CAUSES = 100
# Checks of an instance that are findings; there are findings of their own for the others.
_OF_SERVICE = frozenset({"catalog", "poller", "loops", "keys"})

ServiceCheck = Literal["catalog", "poller", "loops", "keys", "isolation"]
ServerCheck = Literal["server", "tenant_login", "pool_paused", "leak_suspect"]
NodeCheck = Literal["node_silent", "node_problem", "node_paused", "pooler_version", "agent_version"]

# The last part tells causes of the same check apart.
Cause = tuple[Severity, AuditCheck | ServerCheck, str | None, str]


class FindingView(BaseModel):
    """What needs attention for one cause, and the affected tenants."""

    check: AuditCheck | ServerCheck | NodeCheck | ServiceCheck = Field(
        description="A check of the isolation audit; of a server: `server`, it cannot be used, "
        "opens no new connection, or takes no writes; `tenant_login`, it refuses a tenant's login; "
        "of a pool: `pool_paused`, it grants no leases; `leak_suspect`, a tenant has held a lease "
        "for longer than the leak threshold; of a node: `node_silent`, its agent does not report; "
        "`node_problem`, something keeps it from working; `node_paused`, its clients wait; "
        "`pooler_version`, its PgBouncer is vulnerable; `agent_version`, its agent and the service "
        "are of different versions; or of the service: `catalog`, `poller`, `loops`, `keys`, as in "
        "`GET /v1/readiness`; `isolation`, audits are too old.",
        examples=["other_databases"],
    )
    severity: Severity
    server: str | None = Field(
        description="Where the cause is, and where to run the SQL; null: on several servers, on a "
        "node, or in the service.",
        examples=["local"],
    )
    nodes: list[str] = Field(
        default=[], description="The first of the nodes where the cause is, by name.", examples=[[]]
    )
    node_count: int = Field(
        default=0, description="Number of nodes where the cause is.", examples=[0]
    )
    detail: str | None = Field(
        description="The problem and its fix for the first of these tenants; of several causes, "
        "for each tenant that is named. Null for a key that is bound to tenants.",
        examples=[
            (
                "Role tenant_acme can connect to database postgres. "
                "Run: REVOKE CONNECT, TEMPORARY ON DATABASE postgres FROM PUBLIC;"
            )
        ],
    )
    count: int = Field(default=0, description="Number of tenants that it concerns.", examples=[2])
    tenants: list[str] = Field(
        default=[], description="The first of them, by ID.", examples=[["acme", "globex"]]
    )

    def add(self, tenant: str, *, named: int, details: Sequence[str] = ()) -> None:
        """Count *tenant*, and name it if it is one of the first.

        *details*: its own; those of the first tenant stand for all on one server.
        """
        self.count += 1
        if self.count <= named:
            self.tenants.append(tenant)
            if details and (self.detail is None or self.server is None):
                self.detail = " ".join(filter(None, (self.detail, *details)))


def on_servers(manager: TenantPoolManager) -> Iterator[FindingView]:
    """Servers that cannot be used as they should, before their tenants are counted."""
    for name, server in sorted(manager.servers.items()):
        if detail := _trouble(server):
            severity = Severity.WARNING if server.is_available else Severity.CRITICAL
            yield FindingView(
                check="server",
                severity=severity,
                server=name,
                detail=detail,
            )


def in_pool(pool: PoolSnapshot, tenant: TenantId) -> Iterator[tuple[Cause, str]]:
    """What concerns *tenant* in its pool, each with its cause."""
    if pause := pool.pause:
        detail = (
            f"Pool {pool.pool_id} was paused at {pause.since.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ} "
            f"by {pause.by} and grants no leases."
        )
        yield (Severity.WARNING, "pool_paused", pool.server, pause.by), detail
    if held := [each for each in pool.leak_suspects if each.tenant == tenant]:
        oldest, *others = held
        detail = (
            f"{tenant} has held a lease for {oldest.age_seconds:.0f} s, acquired at "
            f"{oldest.taken_at} (pid {oldest.pid})"
        )
        more = f", and {len(others)} more beyond the leak threshold" if others else ""
        yield (Severity.WARNING, "leak_suspect", pool.server, tenant), f"{detail}{more}."


def _trouble(server: Server) -> str | None:
    if not server.is_available:
        return f"It is unavailable: {server.last_error}"
    if server.is_degraded:
        return f"It opens no new connection: {server.last_error}"
    if server.limits is not None and server.limits.read_only:
        return "It takes no writes: its default_transaction_read_only is on."
    return None


async def on_nodes(fleet: Fleet, principal: Principal, named: int) -> list[FindingView]:
    """What to do about nodes; for a tenant-bound key, about those that serve its tenants."""
    own = principal.tenants
    found: dict[tuple[NodeCheck, str], FindingView] = {}
    causes_of: Counter[NodeCheck] = Counter()
    tenants: defaultdict[tuple[NodeCheck, str], set[str]] = defaultdict(set)
    async for name, node in in_slices(sorted(fleet.nodes.items())):
        served = node.entries.keys() if own is None else own & node.entries.keys()
        if not served and own is not None:
            continue
        details: dict[NodeCheck, str | None] = {
            "node_silent": _silence(node),
            # A server that is away is a finding of its own.
            "node_problem": fleet.own_problem(node),
            "node_paused": "It is paused: its clients wait." if node.declared.paused else None,
            "pooler_version": " ".join(node.vulnerabilities),
            "agent_version": node.version_warning,
        }
        for check, detail in details.items():
            if not detail:
                continue
            key = check, detail
            if key not in found and causes_of[check] >= MOST_CAUSES:
                key = check, ""
            if key not in found:
                causes_of[check] += 1
                found[key] = FindingView(
                    check=check,
                    severity=Severity.WARNING,
                    server=None,
                    detail=detail if own is None else None,
                )
            item = found[key]
            item.node_count += 1
            if item.node_count <= named:
                item.nodes.append(name)
            tenants[key] |= served
    for key, item in found.items():
        item.count = len(tenants[key])
        item.tenants = nsmallest(named, tenants[key])
    return list(found.values())


def _silence(node: TrackedNode) -> str | None:
    if node.state is NodeState.STALE:
        return "Its agent does not report; it may go on with the connections that it has."
    if node.state is NodeState.GONE:
        return "Its agent does not report, and it has no connections."
    return None


def in_service(results: list[ReadinessCheck]) -> Iterator[FindingView]:
    """Checks of the active instance that fail; that of audits, if they are too old."""
    for result in results:
        if not result.ok and (result.name in _OF_SERVICE or result.is_outdated):
            yield FindingView.model_validate(
                {
                    "check": result.name,
                    "severity": Severity.CRITICAL if result.required else Severity.WARNING,
                    "server": None,
                    "detail": result.detail,
                }
            )
