"""ServerAdvisor: one rule for all pools of one server, and the one budget they share.

What both the service and the simulator drive. It decides what each pool should be; it
resizes nothing, and reads no clock.
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

_Kind = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judged:
    """One pool in the present round: what was seen of it, and what the rule said."""

    seen: PoolObservation
    advice: PoolSizingRecommendation

    @property
    def kind(self) -> _Kind:
        """Pools of one kind are treated alike."""
        wanted = self.advice.new_size if self.advice.wanted is None else self.advice.wanted
        return wanted, self.seen.weight, self.seen.min_size


class _Alike:
    """Pools that want the same, with the same weight and min_size: few kinds for many pools."""

    __slots__ = ("busy", "members", "min_size", "wanted", "weight")

    def __init__(self, kind: _Kind) -> None:
        self.wanted, self.weight, self.min_size = kind
        # Each pool, and how many connections it would have busy if it had what it wants.
        self.members: dict[str, float] = {}
        self.busy = 0.0

    def add(self, pool_id: str, seen: PoolObservation) -> None:
        self.members[pool_id] = min(seen.mean_active + seen.mean_waiting, self.wanted)
        self.busy += self.members[pool_id]

    def remove(self, pool_id: str) -> None:
        self.busy -= self.members.pop(pool_id)

    @property
    def greed(self) -> float:
        """What each wants, per weight."""
        return self.wanted / self.weight

    @property
    def claim(self) -> ShareRequest:
        """What all of them want."""
        count = len(self.members)
        return ShareRequest(
            wanted=self.wanted * count, floor=self.min_size * count, weight=self.weight * count
        )


class ServerAdvisor(Generic[Memory]):
    """Each tick: `judge` every pool of the server, then `settle` what they get.

    Sizes are limits, and not all pools need theirs at the same time: the connections that many
    pools need *together* are those busy on average and a margin of the square root of that.
    While this fits the budget, nobody is cut. Else those that want most per weight are, by
    weighted max-min fairness, to what all others together leave; so nobody is cut who wants
    less than somebody else gets.
    """

    __slots__ = ("_alike", "_memories", "_round", "_trials", "rule")

    def __init__(self, rule: SizingRule[Memory]) -> None:
        """Judge by *rule*; nothing seen yet."""
        self.rule = rule
        self._memories: dict[str, Memory] = {}
        self._begin_round()

    def evaluate(self, pool_id: str, observation: PoolObservation) -> PoolSizingRecommendation:
        """What the pool would need by itself; remembered until `settle`."""
        memory = self._memories.get(pool_id)
        if memory is None:
            memory = self.rule.initial_memory()
        advice, self._memories[pool_id] = self.rule.advise(memory, observation)
        self._drop(pool_id)
        judged = self._round[pool_id] = _Judged(seen=observation, advice=advice)
        kind = judged.kind
        alike = self._alike.get(kind)
        if alike is None:
            alike = self._alike[kind] = _Alike(kind)
        alike.add(pool_id, observation)
        if advice.trial is not None:
            self._trials[pool_id] = judged
        return advice

    def allocate(self, budget: int | None) -> Iterator[tuple[str, PoolSizingRecommendation]]:
        """What each pool judged since the last call should be, within *budget* connections.

        None means that the budget is not known; then nothing is cut. While the growth of one
        pool is on trial, no other pool of the server grows.
        """
        judged, on_trial = self._round, _on_trial(self._trials)
        cuts = {} if budget is None else _cuts(budget, self._alike.values())
        self._begin_round()
        for pool_id, each in judged.items():
            advice = _held(each.advice, None if on_trial == pool_id else on_trial)
            if pool_id in cuts and budget is not None and cuts[pool_id] < advice.new_size:
                advice = _cut(advice, cuts[pool_id], budget)
            yield pool_id, advice

    def forget(self, pool_id: str) -> None:
        """Drop what is remembered of a pool that is gone."""
        self._memories.pop(pool_id, None)
        self._drop(pool_id)

    def _begin_round(self) -> None:
        self._round: dict[str, _Judged] = {}
        self._trials: dict[str, _Judged] = {}
        self._alike: dict[_Kind, _Alike] = {}

    def _drop(self, pool_id: str) -> None:
        judged = self._round.pop(pool_id, None)
        if judged is not None:
            alike = self._alike[judged.kind]
            alike.remove(pool_id)
            if not alike.members:
                del self._alike[judged.kind]
            self._trials.pop(pool_id, None)


def _on_trial(trials: Mapping[str, _Judged]) -> str | None:
    """The one pool that may have a growth on trial: whose runs, else whose queue is longest."""
    if not trials:
        return None

    def rank(pool_id: str) -> tuple[bool, float, str]:
        judged = trials[pool_id]
        return judged.advice.trial is TrialPhase.RUNNING, judged.seen.mean_waiting, pool_id

    return max(trials, key=rank)


def _cuts(budget: int, kinds: Collection[_Alike]) -> dict[str, int]:
    """The pools that must get less than they want, and what they get."""
    greedy: list[_Alike] = []
    busy, wanted, least, weight, floors = 0.0, 0, 0, 0, 0
    for kind in kinds:
        busy += kind.busy
        wanted += kind.wanted * len(kind.members)
        least += kind.min_size * len(kind.members)
    left = budget - _together(busy, wanted, least)
    if left >= 0:
        return {}
    for kind in sorted(kinds, key=attrgetter("greed"), reverse=True):
        # One more, as long as it wants more than those before it would get, or these need more.
        if greedy and kind.greed * weight <= left and floors <= left:
            break
        greedy.append(kind)
        weight += kind.weight * len(kind.members)
        floors += kind.min_size * len(kind.members)
        busy -= kind.busy
        wanted -= kind.wanted * len(kind.members)
        least -= kind.min_size * len(kind.members)
        left = budget - _together(busy, wanted, least)
    claims = [kind.claim for kind in greedy]
    grants: dict[str, int] = {}
    for kind, grant in zip(greedy, divide(max(0, left), claims), strict=True):
        each, more = divmod(grant, len(kind.members))
        for place, pool_id in enumerate(kind.members):
            grants[pool_id] = max(1, each + (place < more))
    return grants


def _together(busy: float, wanted: int, least: int) -> int:
    """Connections that pools need at a time, all of them together."""
    busy = max(0.0, busy)
    return max(least, min(wanted, ceil(busy + _STAFFING * sqrt(busy))))


def _held(advice: PoolSizingRecommendation, on_trial: str | None) -> PoolSizingRecommendation:
    """The advice, without a growth that would disturb the trial of another pool."""
    if on_trial is None or advice.action is not ScalingAction.SCALE_UP:
        return advice
    reason = (
        f"{advice.reason}; held at {advice.current_size} while the growth of {on_trial} is on trial"
    )
    return replace(
        advice,
        action=ScalingAction.STABLE,
        new_size=advice.current_size,
        reason_code=ReasonCode.HELD_FOR_TRIAL,
        reason=reason,
        expected=None,
        trial=None,
    )


def _cut(advice: PoolSizingRecommendation, grant: int, budget: int) -> PoolSizingRecommendation:
    """The advice with no more than *grant* connections."""
    size = advice.current_size
    if size < grant <= size * (1.0 + _DEAD_BAND):
        grant = size
    action = ScalingAction.STABLE
    if grant != size:
        action = ScalingAction.SCALE_UP if grant > size else ScalingAction.SCALE_DOWN
    wanted = max(advice.wanted or 0, advice.new_size)
    reason = (
        f"wanted {wanted}, granted {grant}: server budget of {budget} connections; {advice.reason}"
    )
    expected = advice.expected
    if action is ScalingAction.STABLE:
        expected = None
    elif expected is not None:
        expected = replace(expected, late_share_after=None, connections_after=grant)
    return replace(
        advice,
        action=action,
        new_size=grant,
        reason_code=ReasonCode.SERVER_BUDGET,
        reason=reason,
        evidence={**advice.evidence, "granted_size": grant, "budget": budget},
        expected=expected,
        wanted=wanted,
    )
