"""A dry run of steps that depend on others: judged as if applied, or reported as unknown."""

from collections.abc import Mapping
from typing import Any

import pytest

from app.cli.client.api_client import ApiError
from app.cli.client.dry_run import Check, check
from app.cli.client.exit_status import ExitStatus
from app.cli.client.manifest import Manifest, Step, plan

POOL = {"desired": {"min_size": 2, "max_size": 20, "warmup_size": 0}}
TENANT = {
    "strategy": "per_tenant",
    "server": "local",
    "state": "provisioned",
    "weight": 1,
    "max_leases": None,
    "labels": {},
    "advisor_mode": None,
    "isolation": {"checks": []},
}
REFUSED = {
    "absent": "tenant-not-found",
    "declared": "not-provisioned",
    "greedy": "connection-budget-exceeded",
    "wrong": "validation-failed",
}


def dry_run(step: Step) -> Mapping[str, Any]:
    """Responds like a service with two pools that keep connections."""
    name = step.tenant.partition("-")[0]
    if step.verb == "resize" and name in REFUSED:
        raise ApiError(f"No: {name}.", ExitStatus.REFUSED, http_status=409, code=REFUSED[name])
    return {"dry_run": True, "plan": [], "warnings": []}


def checks(**min_sizes: int) -> dict[tuple[str, str], Check]:
    """The checks of a file that gives these tenants these min_sizes, by verb and tenant."""
    pool = "{strategy: per_tenant, pool: {min_size: %d}}"
    tenants = ", ".join(f"{name}: {pool % size}" for name, size in min_sizes.items())
    manifest = Manifest.parse(f"tenants: {{{tenants}}}")
    actual = {
        name: TENANT | {"state": "declared" if name == "declared" else "provisioned"}
        for name in min_sizes
        if name != "absent"
    }
    steps = plan(manifest, actual, dict.fromkeys(actual, POOL), prune=False)
    found = check(steps, dry_run, threads=2)
    return {(each.step.verb.value, each.step.tenant): each for each in found}


def test_what_can_be_done_now_is_known() -> None:
    found = checks(roomy=3)["resize", "roomy"]
    assert (found.refusal, found.unknown) == (None, None)
    assert found.plan is not None


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("absent", "The tenant does not exist yet."),
        ("declared", "The tenant is not provisioned yet."),
    ],
)
def test_a_size_of_a_tenant_that_is_not_there_yet_is_unknown(name: str, reason: str) -> None:
    found = checks(**{name: 3})["resize", name]
    assert (found.refusal, found.unknown, found.plan) == (None, reason, None)


def test_what_is_always_wrong_is_refused_even_before_the_tenant_exists() -> None:
    found = checks(wrong=3)["resize", "wrong"]
    assert (found.refusal, found.unknown) == ("No: wrong.", None)


def test_a_size_that_does_not_fit_is_refused_if_nothing_of_the_file_makes_room() -> None:
    assert checks(greedy=50)["resize", "greedy"].refusal == "No: greedy."


def test_a_size_that_fits_only_after_others_shrink_is_unknown() -> None:
    found = checks(greedy=50, thrifty=1)
    assert found["resize", "greedy"].refusal is None
    assert "other pools of this file" in str(found["resize", "greedy"].unknown)
    assert found["resize", "thrifty"].unknown is None


def test_sizes_that_fit_alone_may_not_fit_together() -> None:
    found = checks(a=30, b=30, c=30)
    assert found["resize", "a"].unknown is None
    for name in ("b", "c"):
        assert found["resize", name].plan is not None
        assert "other pools of this file" in str(found["resize", name].unknown)


def test_what_does_not_fit_alone_does_not_fit_beside_others_that_grow() -> None:
    assert checks(a=30, greedy=50)["resize", "greedy"].refusal == "No: greedy."


def test_the_document_says_what_is_unknown() -> None:
    assert checks(a=30, b=30)["resize", "b"].document["unknown"]
