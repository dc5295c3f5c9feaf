"""A plan in progress: concurrency, order, and what is known when it stops."""

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.cli.client.api_client import ApiError
from app.cli.client.execution import Execution
from app.cli.client.exit_status import ExitStatus
from app.cli.client.manifest import Manifest, Stage, Step, Verb, plan

BUDGET = 12
SIZES = st.integers(0, BUDGET)


def steps_of(*tenants: str, verbs: Sequence[Verb] = (Verb.CREATE, Verb.PROVISION)) -> list[Step]:
    return [
        Step(verb=verb, tenant=tenant, summary="", stage=_STAGES.get(verb, Stage.FIRST))
        for tenant in tenants
        for verb in verbs
    ]


_STAGES = {Verb.RESIZE: Stage.RAISE_MIN_SIZE, Verb.DELETE: Stage.DELETE}


def execution(execute: Callable[[Step], object]) -> Execution:
    return Execution(execute, on_end=lambda _: None)


def refusal(message: str = "Refused.", status: int = 409) -> ApiError:
    return ApiError(message, ExitStatus.REFUSED, http_status=status)


def test_as_many_tenants_as_wanted_are_in_progress_and_not_more() -> None:
    together = threading.Barrier(4, timeout=60)
    running: Counter[str] = Counter()
    most = 0

    def execute(step: Step) -> None:
        nonlocal most
        running[step.tenant] += 1
        most = max(most, running.total())
        together.wait()
        running[step.tenant] -= 1
        together.wait()

    steps = steps_of(*"abcdefgh", verbs=[Verb.CREATE])
    run = execution(execute)
    run.run(steps, threads=4)
    assert (most, run.exit_status) == (4, 0)
    assert run.summarize(steps, []).created == [*"abcdefgh"]


def test_steps_of_a_tenant_are_in_order_and_stages_one_after_the_other() -> None:
    ended: list[Step] = []
    verbs = (Verb.CREATE, Verb.PROVISION, Verb.RESIZE, Verb.DELETE)
    steps = steps_of(*"dcba", verbs=verbs)
    execution(ended.append).run(steps, threads=3)
    assert [step.stage for step in ended] == sorted(step.stage for step in steps)
    for tenant in "abcd":
        assert [step.verb for step in ended if step.tenant == tenant] == list(verbs)
    assert [step.tenant for step in ended if step.verb is Verb.RESIZE] == [*"abcd"]


def test_the_same_failure_again_and_again_stops_it() -> None:
    def execute(step: Step) -> None:
        raise refusal(f"Role {step.tenant} is missing.")

    steps = steps_of(*(f"t{number}" for number in range(9)))
    run = execution(execute)
    run.run(steps, threads=1)
    summary = run.summarize(steps, [])
    assert [each.tenant for each in summary.failed] == ["t0", "t1", "t2", "t3", "t4"]
    assert summary.unfinished == ["t5", "t6", "t7", "t8"]
    assert run.exit_status == ExitStatus.REFUSED


def test_a_failure_now_and_then_stops_nothing() -> None:
    def execute(step: Step) -> None:
        if step.tenant in "acegik":
            raise refusal()

    steps = steps_of(*"abcdefghijkl")
    run = execution(execute)
    run.run(steps, threads=1)
    summary = run.summarize(steps, ["z"])
    assert (summary.created, len(summary.failed)) == ([*"bdfhjl"], 6)
    assert (summary.unchanged, summary.stopped) == (["z"], None)
    assert run.exit_status == ExitStatus.PARTIAL


def test_a_tenant_that_is_created_and_not_provisioned_counts_as_both() -> None:
    def execute(step: Step) -> None:
        if step.tenant == "a" and step.verb is Verb.PROVISION:
            raise refusal("Its objects exist.")

    steps = steps_of("a", "b")
    run = execution(execute)
    run.run(steps, threads=1)
    summary = run.summarize(steps, [])
    assert summary.created == ["a", "b"]
    assert [(each.tenant, each.step) for each in summary.failed] == [("a", Verb.PROVISION)]


def test_a_tenant_without_a_response_is_neither_done_nor_failed() -> None:
    def execute(step: Step) -> None:
        if step.verb is Verb.PROVISION:
            raise ApiError("Cannot reach it.", ExitStatus.UNREACHABLE)

    steps = steps_of("a", "b")
    run = execution(execute)
    run.run(steps, threads=1)
    summary = run.summarize(steps, [])
    assert (summary.unanswered, summary.unfinished) == (["a"], ["b"])
    assert (summary.created, summary.failed) == ([], [])
    assert run.exit_status == ExitStatus.UNREACHABLE
    assert summary.stopped == "Cannot reach it. Run the command again."


def test_a_rate_limit_only_delays_a_step() -> None:
    sent: Counter[str] = Counter()

    def execute(step: Step) -> None:
        sent[step.tenant] += 1
        if sent[step.tenant] < 8:
            raise refusal(status=429)

    steps = steps_of("a", "b", verbs=[Verb.CREATE])
    run = execution(execute)
    run.run(steps, threads=2)
    assert run.summarize(steps, []).created == ["a", "b"]


def test_an_error_in_the_program_is_not_lost_in_a_thread() -> None:
    def execute(_: Step) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        execution(execute).run(steps_of("a", "b"), threads=2)


class Service:
    """A model of the service: a budget that must hold all `min_size` together."""

    def __init__(self, sizes: dict[str, int]) -> None:
        self.min_sizes: defaultdict[str, int] = defaultdict(int, sizes)
        self._lock = threading.Lock()

    def execute(self, step: Step) -> None:
        if step.verb is not Verb.RESIZE:
            return
        [wanted] = (step.body or {}).values()
        assert isinstance(wanted, int)
        with self._lock:
            others = sum(self.min_sizes.values()) - self.min_sizes[step.tenant]
            if wanted > self.min_sizes[step.tenant] and others + wanted > BUDGET:
                raise refusal(f"min_size {wanted} does not fit")
            self.min_sizes[step.tenant] = wanted

    def apply(self, wanted: dict[str, int]) -> Execution:
        declared = {name: {"pool": {"min_size": size}} for name, size in wanted.items()}
        manifest = Manifest.model_validate({"tenants": declared})
        steps = plan(manifest, dict.fromkeys(wanted, _TENANT), self._pools(), prune=False)
        run = execution(self.execute)
        run.run(steps, threads=3)
        return run

    def _pools(self) -> dict[str, Any]:
        return {name: {"desired": {"min_size": size}} for name, size in self.min_sizes.items()}


_TENANT = {
    "strategy": "per_tenant",
    "server": "local",
    "state": "provisioned",
    "weight": 1,
    "max_leases": None,
    "labels": {},
    "advisor_mode": None,
    "isolation": {"checks": []},
}


@given(data=st.data(), before=st.dictionaries(st.sampled_from("abcde"), SIZES, min_size=1))
def test_the_order_of_the_file_does_not_matter(data: st.DataObject, before: dict[str, int]) -> None:
    """Nor in a file that does not fit: the same tenants are refused."""
    wanted = {name: data.draw(SIZES) for name in before}
    shuffled = dict(data.draw(st.permutations(list(wanted.items()))))
    first, second = Service(before), Service(before)
    first_run, second_run = first.apply(wanted), second.apply(shuffled)
    assert first.min_sizes == second.min_sizes
    assert first_run.exit_status == second_run.exit_status
    if sum(wanted.values()) <= BUDGET:
        assert first.min_sizes == wanted
