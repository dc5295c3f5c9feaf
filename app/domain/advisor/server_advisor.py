"""One sizing rule for all pools of one server, and the one budget they share.

The service and the simulator drive the same ServerAdvisor. It decides each pool's size; it
resizes nothing and reads no clock.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from math import ceil, sqrt
from operator import attrgetter
from typing import Generic

from app.domain.advisor.fair_share import ShareRequest, divide
from app.domain.advisor.observation import PoolObservation
from app.domain.advisor.rule import Memory, SizingRule
from app.domain.advisor.sizing_recommendation import (
    PoolSizingRecommendation,
    ReasonCode,
    ScalingAction,
    TrialPhase,
)

# Square-root staffing: with so many standard deviations of a Poisson load on top, 1 % wait.
_STAFFING = 2.33
# A grant that is larger by no more than this is not worth a change of size.
_DEAD_BAND = 0.1

_GroupKey = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Evaluated:
    """One pool in the present round: its observation, and the rule's advice."""

    seen: PoolObservation
    advice: PoolSizingRecommendation

    @property
    def group_key(self) -> _GroupKey:
        """Pools with the same key are treated alike."""
        wanted = self.advice.new_size if self.advice.wanted is None else self.advice.wanted
        return wanted, self.seen.weight, self.seen.min_size


class _PoolGroup:
    """Pools that want the same, with the same weight and min_size: few groups for many pools."""

    __slots__ = ("busy", "members", "min_size", "wanted", "weight")

    def __init__(self, key: _GroupKey) -> None:
        self.wanted, self.weight, self.min_size = key
        # Each pool, and how many connections it would have busy if it had what it wants.
        self.members: dict[str, float] = {}
        self.busy = 0.0

    def add(self, pool_id: str, seen: PoolObservation) -> None:
        self.members[pool_id] = min(seen.mean_active + seen.mean_waiting, self.wanted)
        self.busy += self.members[pool_id]

    def remove(self, pool_id: str) -> None:
        self.busy -= self.members.pop(pool_id)

    @property
    def wanted_per_weight(self) -> float:
        return self.wanted / self.weight

    @property
    def request(self) -> ShareRequest:
        """What all of them want together."""
        count = len(self.members)
        return ShareRequest(
            wanted=self.wanted * count, floor=self.min_size * count, weight=self.weight * count
        )


class ServerAdvisor(Generic[Memory]):
    """Each tick: `evaluate` every pool of the server, then `allocate` the budget.

    Sizes are limits, and not all pools need theirs at the same time: the connections that many
    pools need *together* are those busy on average and a margin of the square root of that.
    While this fits the budget, nobody is cut. Else those that want most per weight are, by
    weighted max-min fairness, to what all others together leave; so nobody is cut who wants
    less than somebody else gets.
    """

    __slots__ = ("_evaluated", "_groups", "_memories", "_trials", "rule")

    def __init__(self, rule: SizingRule[Memory]) -> None:
        self.rule = rule
        self._memories: dict[str, Memory] = {}
        self._begin_round()

    def evaluate(self, pool_id: str, observation: PoolObservation) -> PoolSizingRecommendation:
        """What the pool would need by itself; kept until `allocate`."""
        memory = self._memories.get(pool_id)
        if memory is None:
            memory = self.rule.initial_memory()
        advice, self._memories[pool_id] = self.rule.advise(memory, observation)
        self._drop(pool_id)
        evaluated = self._evaluated[pool_id] = _Evaluated(seen=observation, advice=advice)
        key = evaluated.group_key
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _PoolGroup(key)
        group.add(pool_id, observation)
        if advice.trial is not None:
            self._trials[pool_id] = evaluated
        return advice

    def allocate(self, budget: int | None) -> Iterator[tuple[str, PoolSizingRecommendation]]:
        """What each pool evaluated since the last call should be, within *budget* connections.

        None means that the budget is not known; then nothing is cut. While the growth of one
        pool is on trial, no other pool of the server grows.
        """
        evaluated, on_trial = self._evaluated, _on_trial(self._trials)
        cuts = {} if budget is None else _cuts(budget, self._groups.values())
        self._begin_round()
        for pool_id, each in evaluated.items():
            advice = _held_for_trial(each.advice, None if on_trial == pool_id else on_trial)
            if pool_id in cuts and budget is not None and cuts[pool_id] < advice.new_size:
                advice = _cut(advice, cuts[pool_id], budget)
            yield pool_id, advice

    def forget(self, pool_id: str) -> None:
        """Drop the memory of a pool that is gone."""
        self._memories.pop(pool_id, None)
        self._drop(pool_id)

    def _begin_round(self) -> None:
        self._evaluated: dict[str, _Evaluated] = {}
        self._trials: dict[str, _Evaluated] = {}
        self._groups: dict[_GroupKey, _PoolGroup] = {}

    def _drop(self, pool_id: str) -> None:
        evaluated = self._evaluated.pop(pool_id, None)
        if evaluated is not None:
            group = self._groups[evaluated.group_key]
            group.remove(pool_id)
            if not group.members:
                del self._groups[evaluated.group_key]
            self._trials.pop(pool_id, None)


def _on_trial(trials: Mapping[str, _Evaluated]) -> str | None:
    """The one pool that may have a growth on trial: a running one, else the longest queue."""
    if not trials:
        return None

    def rank(pool_id: str) -> tuple[bool, float, str]:
        each = trials[pool_id]
        return each.advice.trial is TrialPhase.RUNNING, each.seen.mean_waiting, pool_id

    return max(trials, key=rank)


def _cuts(budget: int, groups: Collection[_PoolGroup]) -> dict[str, int]:
    """The pools that must get less than they want, and what they get."""
    cut: list[_PoolGroup] = []
    busy, wanted, least, weight, floors = 0.0, 0, 0, 0, 0
    for group in groups:
        busy += group.busy
        wanted += group.wanted * len(group.members)
        least += group.min_size * len(group.members)
    left = budget - _needed_together(busy, wanted, least)
    if left >= 0:
        return {}
    for group in sorted(groups, key=attrgetter("wanted_per_weight"), reverse=True):
        # One more, as long as it wants more than those before it would get, or these need more.
        if cut and group.wanted_per_weight * weight <= left and floors <= left:
            break
        cut.append(group)
        weight += group.weight * len(group.members)
        floors += group.min_size * len(group.members)
        busy -= group.busy
        wanted -= group.wanted * len(group.members)
        least -= group.min_size * len(group.members)
        left = budget - _needed_together(busy, wanted, least)
    requests = [group.request for group in cut]
    grants: dict[str, int] = {}
    for group, grant in zip(cut, divide(max(0, left), requests), strict=True):
        each, more = divmod(grant, len(group.members))
        for place, pool_id in enumerate(group.members):
            grants[pool_id] = max(1, each + (place < more))
    return grants


def _needed_together(busy: float, wanted: int, least: int) -> int:
    """Connections that pools need at the same time, all of them together."""
    busy = max(0.0, busy)
    return max(least, min(wanted, ceil(busy + _STAFFING * sqrt(busy))))


def _held_for_trial(
    advice: PoolSizingRecommendation, on_trial: str | None
) -> PoolSizingRecommendation:
    """The advice, without a growth that would disturb the trial of another pool."""
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


def _cut(advice: PoolSizingRecommendation, grant: int, budget: int) -> PoolSizingRecommendation:
    """The advice with no more than *grant* connections."""
    size = advice.current_size
    if size < grant <= size * (1.0 + _DEAD_BAND):
        grant = size
    action = ScalingAction.between(size, grant)
    wanted = max(advice.wanted or 0, advice.new_size)
    held = advice.held_at(grant)
    return replace(
        held,
        action=action,
        reason_code=ReasonCode.SERVER_BUDGET,
        reason=f"{advice.reason}; the server's budget of {budget} connections grants {grant} "
        f"of the {wanted} wanted",
        evidence={**advice.evidence, "granted_size": grant, "budget": budget},
        expected=None if action is ScalingAction.STABLE else held.expected,
        wanted=wanted,
    )
