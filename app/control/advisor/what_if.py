"""What-if: what would be recommended for a live pool with another configuration, rule or budget?

It changes nothing: a new advisor evaluates the pool's last minutes.
"""

from dataclasses import replace
from time import monotonic

from app.control.advisor.advised_pools import AdvisedPools
from app.control.advisor.observer import Observer
from app.control.time_slices import in_slices
from app.domain.advisor import PoolSizingRecommendation
from app.domain.advisor_settings import AdvisorSettings
from app.domain.errors import PoolNotFound
from app.pools.tenant_state import TenantState


async def what_if(
    pools: AdvisedPools,
    observer: Observer,
    state: TenantState,
    settings: AdvisorSettings,
    *,
    budget: int | None,
) -> PoolSizingRecommendation:
    """Recommend a size for the tenant's pool with *settings*, from its last minutes.

    With a *budget*, all pools of the server are evaluated, and share it.

    Raises:
        PoolNotFound: the pool is neither open nor on a node.
    """
    pool = pools.find(state.tenant.spec.pool_id)
    if pool is None:
        raise PoolNotFound(f"Pool {state.tenant.spec.pool_id} is not open.")
    advisor, evaluated = settings.advisor(), [pool]
    if budget is not None:
        evaluated += [
            other
            for other in pools
            if other.server is pool.server
            and other.pool_id != pool.pool_id
            and not other.is_closing
        ]
    async for each in in_slices(evaluated):
        seen = observer.recent(each.pool_id) or (observer.observe_gauges(each, monotonic()),)
        for observation in seen:
            most = observation.max_allowed
            if budget is not None:
                most = max(min(most, budget), 1)
            advisor.evaluate(each.pool_id, replace(observation, max_allowed=most))
    return dict(advisor.allocate(budget))[pool.pool_id]
