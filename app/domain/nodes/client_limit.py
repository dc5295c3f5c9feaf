"""Whether a node has room for more clients."""

from collections.abc import Iterable

from app.domain.nodes.report import EntryReport

# A pooler also counts logins under way and its agent's connections, which a report does not have.
_LEAST_ROOM, _LEAST_SHARE = 2, 0.05


def crowding(entries: Iterable[EntryReport], most: int) -> str:
    """Say that clients have used up the *most* that the node may have, and whose most are."""
    total, (largest, tenant) = 0, (0, "")
    for entry in entries:
        total += entry.clients
        largest, tenant = max((largest, tenant), (entry.clients, entry.name))
    if not total or most - total > max(_LEAST_ROOM, _LEAST_SHARE * most):
        return ""
    return (
        f"It has {total:,} clients and may have {most:,} (--max-clients), then it refuses more. "
        f"Tenant {tenant} has {largest:,} of them."
    )
