"""Asks the service about each step of a plan, by a dry run; nothing is changed."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from threading import Event
from typing import Any

from app.cli.client.api_client import ApiError
from app.cli.client.exit_status import ExitStatus
from app.cli.client.manifest import Stage, Step, Verb
from app.cli.client.parallel_requests import patiently, work_in_parallel

_FATAL = (ExitStatus.UNREACHABLE, ExitStatus.FORBIDDEN)
# Refusals that only mean that earlier steps for the tenant are not done yet, and their meaning.
_REFUSED_WITHOUT = {
    Verb.CREATE: ("tenant-not-found", "The tenant does not exist yet."),
    Verb.PROVISION: ("not-provisioned", "The tenant is not provisioned yet."),
}
_NO_BUDGET = "connection-budget-exceeded"
_BUDGET = "Whether min_size fits depends on other pools of this file, which change first."


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A step and the result of its dry run.

    Attributes:
        refusal: why the step would be refused; None if it would not, as far as known.
        unknown: why this is only known after earlier steps; None if it is known.
        plan: the service's plan, if the step could be done now.
    """

    step: Step
    refusal: str | None = None
    unknown: str | None = None
    plan: Mapping[str, Any] | None = None

    @property
    def document(self) -> Mapping[str, Any]:
        shown = {name: getattr(self.step, name) for name in ("verb", "tenant", "summary", "body")}
        return {**shown, "refusal": self.refusal, "unknown": self.unknown, "plan": self.plan}


def unchecked(steps: Iterable[Step]) -> list[Check]:
    """*steps* without dry runs: only refusals by the plan itself are known."""
    return [
        Check(step=step, refusal=step.summary if step.verb is Verb.REFUSE else None)
        for step in steps
    ]


def check(
    steps: Sequence[Step], dry_run: Callable[[Step], Mapping[str, Any]], *, threads: int
) -> list[Check]:
    """Check *steps*, in their order; *dry_run* asks the service about a step.

    Raises:
        ApiError: the service is unreachable, or refuses the API key.
    """
    stop = Event()
    expected = _expected_refusals(steps)
    # The first of them is judged together with what others have then, or less.
    raising = [step for step in steps if step.stage is Stage.RAISE_MIN_SIZE]
    may_not_fit = set(raising[1:])
    checks: dict[Step, Check] = {}

    def ask(step: Step) -> None:
        found = _check(step, expected[step], dry_run, stop)
        if found.plan is not None and step in may_not_fit:
            found = replace(found, unknown=_BUDGET)
        checks[step] = found

    work_in_parallel(ask, steps, threads=threads, stop=stop)
    return [checks[step] for step in steps]


def refusing(checks: Iterable[Check], reasons: Mapping[str, str]) -> list[Check]:
    """Return *checks* with these *reasons* why a pool cannot be resized, by tenant."""
    return [
        replace(each, refusal=reasons[each.step.tenant], unknown=None, plan=None)
        if each.step.verb is Verb.RESIZE and not each.refusal and each.step.tenant in reasons
        else each
        for each in checks
    ]


def _expected_refusals(steps: Sequence[Step]) -> Mapping[Step, Mapping[str, str]]:
    """The codes, with their meaning, that only say that earlier steps are not done, by step."""
    frees_budget = any(
        step.stage is Stage.FIRST and "min_size" in (step.body or {}) for step in steps
    )
    before: defaultdict[str, dict[str, str]] = defaultdict(dict)
    expected = {}
    for step in steps:
        expected[step] = dict(before[step.tenant])
        if frees_budget and step.stage is Stage.RAISE_MIN_SIZE:
            expected[step][_NO_BUDGET] = _BUDGET
        if step.verb in _REFUSED_WITHOUT:
            code, meaning = _REFUSED_WITHOUT[step.verb]
            before[step.tenant][code] = meaning
    return expected


def _check(
    step: Step,
    expected: Mapping[str, str],
    dry_run: Callable[[Step], Mapping[str, Any]],
    stop: Event,
) -> Check:
    code, meaning = _REFUSED_WITHOUT[Verb.CREATE]
    if step.verb is Verb.PROVISION and code in expected:
        # The service would refuse it, and count the refusal.
        return Check(step=step, unknown=meaning)
    try:
        found = patiently(partial(dry_run, step), stop)
    except ApiError as error:
        if error.exit_status in _FATAL:
            raise
        unknown = expected.get(error.code or "")
        return Check(step=step, refusal=None if unknown else str(error), unknown=unknown)
    return Check(step=step, plan=found)
