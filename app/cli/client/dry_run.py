"""What the service says of a plan's steps, each by its own dry run; nothing is changed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Event
from typing import Any

from app.cli.client.api_client import ApiError
from app.cli.client.exit_status import ExitStatus
from app.cli.client.manifest import Stage, Step, Verb
from app.cli.client.workers import patiently, work_in_parallel

_FATAL = (ExitStatus.UNREACHABLE, ExitStatus.FORBIDDEN)
# How the service refuses a step of a tenant for which these were not done.
_REFUSED_WITHOUT = {Verb.CREATE: "tenant-not-found", Verb.PROVISION: "not-provisioned"}
_NO_BUDGET = "connection-budget-exceeded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A step, and what its dry run found.

    Attributes:
        refusal: why the step would be refused; None if it would not.
        plan: the service's plan; None if it can judge the step only after earlier ones.
    """

    step: Step
    refusal: str | None = None
    plan: Mapping[str, Any] | None = None

    @property
    def document(self) -> Mapping[str, Any]:
        return {
            "verb": self.step.verb,
            "tenant": self.step.tenant,
            "summary": self.step.summary,
            "body": self.step.body,
            "refusal": self.refusal,
            "plan": self.plan,
        }


def unchecked(steps: Iterable[Step]) -> list[Check]:
    """*steps* without a dry run: only those that the plan itself refuses."""
    return [
        Check(step=step, refusal=step.summary if step.verb is Verb.REFUSE else None)
        for step in steps
    ]


def check(
    steps: Sequence[Step], dry_run: Callable[[Step], Mapping[str, Any]], *, threads: int
) -> list[Check]:
    """The checks of *steps*, in their order; *dry_run* asks the service about one.

    Raises:
        ApiError: the service is unreachable, or refuses the API key.
    """
    stop = Event()
    expected = _expected_refusals(steps)
    checks: dict[Step, Check] = {}

    def ask(step: Step) -> None:
        checks[step] = _check(step, expected[step], dry_run, stop)

    work_in_parallel(ask, steps, threads=threads, stop=stop)
    return [checks[step] for step in steps]


def _expected_refusals(steps: Sequence[Step]) -> Mapping[Step, set[str]]:
    """The codes with which each step is refused only because earlier ones were not done."""
    frees_budget = any(
        step.stage is Stage.FIRST and "min_size" in (step.body or {}) for step in steps
    )
    before: defaultdict[str, set[str]] = defaultdict(set)
    expected = {}
    for step in steps:
        raises = frees_budget and step.stage is Stage.RAISE_MIN_SIZE
        expected[step] = before[step.tenant] | ({_NO_BUDGET} if raises else set())
        if step.verb in _REFUSED_WITHOUT:
            before[step.tenant].add(_REFUSED_WITHOUT[step.verb])
    return expected


def _check(
    step: Step, expected: set[str], dry_run: Callable[[Step], Mapping[str, Any]], stop: Event
) -> Check:
    is_of_new_tenant = _REFUSED_WITHOUT[Verb.CREATE] in expected
    if step.verb is Verb.PROVISION and is_of_new_tenant:
        return Check(step=step)  # the service would refuse it, and count that
    try:
        return Check(step=step, plan=patiently(partial(dry_run, step), stop))
    except ApiError as error:
        if error.exit_status in _FATAL:
            raise
        return Check(step=step, refusal=None if error.code in expected else str(error))
