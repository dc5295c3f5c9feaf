"""What-if: what would be recommended for a live pool with another configuration, rule or budget?

It changes nothing: a new advisor evaluates the pool's last minutes.
"""

from collections.abc import Iterable
from dataclasses import replace
from itertools import chain
from time import monotonic

from app.control.advisor.advised_pools import AdvisedPool, AdvisedPools
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
    advisor = settings.advisor()
    others: Iterable[AdvisedPool] = () if budget is None else pools
    async for each in in_slices(chain([pool], others)):
        shares_budget = each.server is pool.server and not each.is_closing
        if each is not pool and (each.pool_id == pool.pool_id or not shares_budget):
            continue
        seen = observer.recent(each.pool_id) or (observer.observe_gauges(each, monotonic()),)
        for observation in seen:
            most = observation.max_allowed
            if budget is not None:
                most = max(min(most, budget), 1)
            advisor.evaluate(each.pool_id, replace(observation, max_allowed=most))
    advices = in_slices(advisor.allocate(budget))
    [advice] = [found async for pool_id, found in advices if pool_id == pool.pool_id]
    return advice
