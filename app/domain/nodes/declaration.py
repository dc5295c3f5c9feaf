"""A node as an operator declares it: its address, the tenants it serves, and its limits."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from app.domain.tenant import TenantSpec

OWN_NODE = "self"
"""In the path of a request, this stands for the API key's own node; no node can have this name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSpec:
    """A node as an operator declares it.

    Attributes:
        address: host and port at which applications reach it; None: it is not shown to them.
        labels: for people.
        selector: it serves the tenants that have all these labels; if empty, all tenants.
        limits: the most connections that it may have, by server; without a limit, only the server's
            budget limits it.
    """

    name: str
    address: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    selector: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[str, int] = field(default_factory=dict)

    def serves(self, tenant: TenantSpec) -> bool:
        """Whether applications of *tenant* can connect through it.

        Never for a shared tenant: they would get the role of all shared tenants.
        """
        return not tenant.is_shared and self.selector.items() <= tenant.labels.items()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredNode:
    """A node in the catalog.

    Attributes:
        paused: its clients can connect, and wait.
        draining: no more clients can connect; once its clients have left, it returns its
            connections.
        generation: grows with every change.
    """

    spec: NodeSpec
    paused: bool
    draining: bool
    generation: int
    created_at: datetime
    updated_at: datetime
