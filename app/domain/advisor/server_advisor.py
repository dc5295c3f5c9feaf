"""One sizing rule for all pools of a server, and the budget that they share.

The service and the simulator drive the same ServerAdvisor. It decides each pool's size; it
resizes nothing and reads no clock.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Generic

from app.domain.advisor.fair_share import fair_level
from app.domain.advisor.observation import PoolObservation
from app.domain.advisor.rule import Memory, SizingRule
from app.domain.advisor.sizing_recommendation import (
    PoolSizingRecommendation,
    ReasonCode,
    ScalingAction,
    TrialPhase,
)

# A share of the budget: pools that offer less need no cut, because not all burst at the same time.
_FULL = 0.95
# A share of the budget: if this much is in use, a pool can only grow by taking from others.
_USED_UP = 0.9
# A grant that is larger by no more than this does not justify a resize.
_DEAD_BAND = 0.1
# In an interval like this the load is unknown too: while the service stalls, leases last longer.
# Pools that could not open what they may are a different case: a short budget causes that.
_UNKNOWN_LOAD = frozenset({ReasonCode.NOT_READY, ReasonCode.CONNECTS_FAILING, ReasonCode.LOOP_LAG})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Evaluated:
    """One pool in the present round: its observation, and the rule's advice."""

    seen: PoolObservation
    advice: PoolSizingRecommendation

    @property
    def offered(self) -> float:
        """Erlangs that its callers offer; the load it carries if the rule does not know."""
        offered = self.advice.offered_load
        return self.seen.mean_active if offered is None else offered

    @property
    def wanted(self) -> float:
        """Connections that it would hold now if it could."""
        if self.advice.action is ScalingAction.SCALE_UP:
            return self.advice.new_size
        seen = self.seen
        return max(self.offered, min(seen.max_size, seen.mean_active + seen.mean_waiting))

    @property
    def lacking(self) -> float:
        """Connections that callers waited for and the size would allow."""
        seen = self.seen
        return max(0.0, min(seen.max_size - seen.mean_open, seen.mean_waiting))

    def naming_nodes(self, advice: PoolSizingRecommendation) -> PoolSizingRecommendation:
        """Return *advice* with the part of the observation that is on nodes, if any."""
        seen = self.seen
        if not seen.is_estimated:
            return advice
        share = seen.arrivals_on_nodes / max(1, seen.arrivals)
        return advice.with_estimated(share, seen.mean_active_on_nodes)


class ServerAdvisor(Generic[Memory]):
    """Each tick: `evaluate` every pool of the server, then `allocate` the budget.

    Sizes are limits, and not all pools use theirs at the same time. The budget is short only when
    all pools together *offer* nearly as much as it has; until then no pool is cut. Then each pool
    that offers more than its max-min share is cut to that share. Waiting callers do not count as
    load: a cut makes callers wait, and must not justify itself. A pool whose observation says
    nothing is cut later.
    """

    __slots__ = ("_evaluated", "_memories", "_offered", "_trials", "rule")

    def __init__(self, rule: SizingRule[Memory]) -> None:
        self.rule = rule
        self._memories: dict[str, Memory] = {}
        self._begin_round()

    def evaluate(self, pool_id: str, observation: PoolObservation) -> PoolSizingRecommendation:
        """Recommend what the pool needs by itself; kept until `allocate`."""
        memory = self._memories.get(pool_id)
        if memory is None:
            memory = self.rule.initial_memory()
        advice, self._memories[pool_id] = self.rule.advise(memory, observation)
        self._drop(pool_id)
        evaluated = self._evaluated[pool_id] = _Evaluated(seen=observation, advice=advice)
        self._offered += evaluated.offered
        if advice.trial is not None:
            self._trials[pool_id] = evaluated
        return evaluated.naming_nodes(advice)

    def allocate(self, budget: int | None) -> Iterator[tuple[str, PoolSizingRecommendation]]:
        """Recommend sizes within *budget* for all pools evaluated since the last call.

        If *budget* is None, it is unknown and no pool is cut. While the growth of one pool is on
        trial, no other pool of the server grows.
        """
        evaluated, on_trial = self._evaluated, _on_trial(self._trials)
        level = None if budget is None else self._level(budget)
        offered = self._offered
        self._begin_round()
        # One by one: to free ten thousand at once would block the event loop.
        for pool_id in list(evaluated):
            each = evaluated.pop(pool_id)
            advice = _held_for_trial(each.advice, None if on_trial == pool_id else on_trial)
            if level is not None and budget is not None:
                share = level * each.seen.weight
                grant = max(int(share), each.seen.min_size, 1)
                is_above = each.offered > share and grant < advice.new_size
                if is_above and advice.reason_code not in _UNKNOWN_LOAD:
                    advice = _cut(advice, grant, budget, each.offered, offered)
            yield pool_id, each.naming_nodes(advice)

    def used_up_share(self, budget: int, *, nodes_lack: bool = False) -> float | None:
        """If *budget* is used up, return the connections per weight that pools can have; else None.

        It looks at the pools evaluated since the last `allocate`. While tenants on nodes wait for
        their turns (*nodes_lack*), it is used up, although fewer connections are open: those of one
        tenant close before those of the next one open.
        """
        evaluated = self._evaluated.values()
        full = _USED_UP * budget
        is_used_up = nodes_lack or sum([each.seen.mean_active for each in evaluated]) >= full
        # Connections on the move between pools are not busy, but no other pool can have them.
        if not is_used_up and sum([each.seen.mean_open for each in evaluated]) >= full:
            is_used_up = sum([each.lacking for each in evaluated]) >= 1.0
        if not is_used_up:
            return None
        return fair_level(budget, [(each.wanted, each.seen.weight) for each in evaluated])

    def forget(self, pool_id: str) -> None:
        """Drop the memory of a closed pool."""
        self._memories.pop(pool_id, None)
        self._drop(pool_id)

    def _level(self, budget: int) -> float | None:
        """Erlangs per weight that each pool may have.

        None while all together offer little enough.
        """
        if self._offered <= _FULL * budget:
            return None
        requests = [(each.offered, each.seen.weight) for each in self._evaluated.values()]
        return fair_level(_FULL * budget, requests)

    def _begin_round(self) -> None:
        self._evaluated: dict[str, _Evaluated] = {}
        self._trials: dict[str, _Evaluated] = {}
        # The load that all of them offer together.
        self._offered = 0.0

    def _drop(self, pool_id: str) -> None:
        if (evaluated := self._evaluated.pop(pool_id, None)) is not None:
            self._offered -= evaluated.offered
        self._trials.pop(pool_id, None)


def _on_trial(trials: Mapping[str, _Evaluated]) -> str | None:
    """Choose the pool that may have a growth on trial: a running trial, or the longest queue."""
    if not trials:
        return None

    def rank(pool_id: str) -> tuple[bool, float, str]:
        each = trials[pool_id]
        return each.advice.trial is TrialPhase.RUNNING, each.seen.mean_waiting, pool_id

    return max(trials, key=rank)


def _held_for_trial(
    advice: PoolSizingRecommendation, on_trial: str | None
) -> PoolSizingRecommendation:
    """Return the advice without a growth that would disturb another pool's trial."""
    if on_trial is None or advice.action is not ScalingAction.SCALE_UP:
        return advice
    size = advice.current_size
    return replace(
        advice,
        action=ScalingAction.STABLE,
        new_size=size,
        reason_code=ReasonCode.HELD_FOR_TRIAL,
        reason=f"{advice.reason}; staying at {size} while the growth of {on_trial} is on trial",
        expected=None,
        trial=None,
    )


def grown_within(
    advice: PoolSizingRecommendation, share: float, budget: int
) -> PoolSizingRecommendation:
    """Return the advice without growth beyond the pool's *share* of a used-up *budget*.

    With any larger size, its callers would wait for connections that other pools hold.
    """
    if advice.action is not ScalingAction.SCALE_UP or share >= advice.new_size:
        return advice
    size, grant = advice.current_size, int(share)
    if grant <= size * (1.0 + _DEAD_BAND):
        grant = size
    reason = (
        f"{advice.reason}; but the server's budget of {budget} connections is used up, and "
        f"this pool's fair share is {max(1, int(share))}"
    )
    return _granted(advice, grant, budget, reason)


def _cut(
    advice: PoolSizingRecommendation, grant: int, budget: int, offered: float, of_all: float
) -> PoolSizingRecommendation:
    """Limit the advice to *grant* connections; *offered*: erlangs of this pool and of all."""
    size = advice.current_size
    if size < grant <= size * (1.0 + _DEAD_BAND):
        grant = size
    wanted = max(advice.wanted or 0, advice.new_size)
    if grant < size:
        # The rule's own advice is no reason to have fewer connections than now.
        reason = (
            f"On average all pools together need {of_all:.0f} connections of the server's budget "
            f"of {budget}, and this one {offered:.1f}: its fair share is {grant}"
        )
    else:
        reason = (
            f"{advice.reason}; the server's budget of {budget} connections grants {grant} of the "
            f"{wanted} wanted"
        )
    return replace(_granted(advice, grant, budget, reason), wanted=wanted)


def _granted(
    advice: PoolSizingRecommendation, grant: int, budget: int, reason: str
) -> PoolSizingRecommendation:
    """The advice with the size that the budget grants."""
    action = ScalingAction.between(advice.current_size, grant)
    held = advice.held_at(grant)
    return replace(
        held,
        action=action,
        reason_code=ReasonCode.SERVER_BUDGET,
        reason=reason,
        evidence={**advice.evidence, "granted_size": grant, "budget": budget},
        expected=None if action is ScalingAction.STABLE else held.expected,
    )
