"""Which of a file's `min_size` cannot fit a server's budget together.

Pure. What pools outside the file keep is not counted, so more of them may be refused.
"""

from collections import defaultdict
from collections.abc import Mapping

from app.cli.client.manifest import Document, Manifest


def too_many(
    manifest: Manifest,
    actual: Mapping[str, Document],
    pools: Mapping[str, Document],
    budgets: Mapping[str, int],
) -> Mapping[str, str]:
    """Return why a larger min_size will be refused, by tenant.

    Pools change as `apply` changes them: smaller ones first, then the larger ones by tenant id.

    Args:
        actual, pools: the service's tenants and their pools, by tenant.
        budgets: the connection budget of each server.
    """
    kept: defaultdict[str, int] = defaultdict(int)
    raised: list[tuple[str, str, int, int]] = []
    for tenant, declared in sorted(manifest.tenants.items()):
        found = actual.get(tenant, {})
        if "shared" in {declared.strategy, found.get("strategy")} or declared.pool is None:
            continue
        only = next(iter(budgets)) if len(budgets) == 1 else ""
        server = declared.server or found.get("server") or only
        now: int = pools[tenant]["desired"]["min_size"] if tenant in pools else 0
        wanted = now if declared.pool.min_size is None else declared.pool.min_size
        if server in budgets:
            kept[server] += min(now, wanted)
            if wanted > now:
                raised.append((tenant, server, now, wanted))
    refused = {}
    for tenant, server, now, wanted in raised:
        others = kept[server] - now
        if others + wanted <= budgets[server]:
            kept[server] = others + wanted
        else:
            refused[tenant] = (
                f"min_size {wanted} does not fit: other pools of this file keep {others} of the "
                f"{budgets[server]} connections of server {server}."
            )
    return refused
