"""The plan that makes a service match a file of tenants."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.cli.client.manifest import Manifest, ManifestError, Step, Verb, plan
from app.text.printable import is_printable

NAMES = st.sampled_from(["acme", "beta", "gamma", "delta"])
STRATEGIES = st.sampled_from(["shared", "per_tenant", "per_database"])
SIZES = st.integers(1, 9)
DECLARED = st.fixed_dictionaries(
    {"strategy": STRATEGIES, "weight": st.integers(1, 5)},
    optional={
        "labels": st.dictionaries(st.sampled_from("ab"), st.sampled_from("xy")),
        "max_leases": st.none() | st.integers(1, 5),
        "advisor_mode": st.none() | st.sampled_from(["off", "apply"]),
        "provision": st.booleans(),
        "pool": st.fixed_dictionaries({}, optional={"max_size": SIZES, "min_size": SIZES}),
    },
)


def tenant(**spec: Any) -> dict[str, Any]:
    """A tenant as the service returns it."""
    return {
        "strategy": "per_tenant",
        "server": "local",
        "weight": 1,
        "max_leases": None,
        "labels": {},
        "advisor_mode": None,
        "isolation": {"checks": []},
        "state": "provisioned",
        **spec,
    }


def steps(text: str, actual: dict[str, Any], *, prune: bool = False) -> list[tuple[str, str, str]]:
    """Verb, tenant and summary of each step."""
    found = plan(Manifest.parse(text), actual, {}, prune=prune)
    return [(step.verb.value, step.tenant, step.summary) for step in found]


def test_a_new_tenant_is_created_and_provisioned() -> None:
    assert [step[:2] for step in steps("tenants: {acme: {strategy: shared}}", {})] == [
        ("create", "acme"),
        ("provision", "acme"),
    ]


def test_a_tenant_that_matches_needs_no_step() -> None:
    assert steps("tenants: {acme: {strategy: per_tenant}}", {"acme": tenant()}) == []


@pytest.mark.parametrize(
    ("check", "severity", "strategy", "verbs"),
    [
        ("role", "critical", "per_tenant", ["provision"]),
        ("role", "critical", "shared", ["provision"]),
        ("ownership", "critical", "per_tenant", ["provision"]),
        ("ownership", "critical", "shared", []),
        ("role", "not_checked", "per_tenant", []),
        ("other_databases", "critical", "per_tenant", []),
    ],
)
def test_a_tenant_whose_objects_are_gone_is_provisioned_again(
    check: str, severity: str, strategy: str, verbs: list[str]
) -> None:
    failed = {"name": check, "ok": False, "severity": severity}
    actual = tenant(strategy=strategy, isolation={"checks": [failed]})
    found = steps("tenants: {acme: {}}", {"acme": actual})
    assert [verb for verb, _, _ in found] == verbs


def test_a_change_shows_old_and_new_values() -> None:
    found = steps("tenants: {acme: {weight: 3, labels: {plan: gold}}}", {"acme": tenant()})
    assert found == [("change", "acme", "weight 1 → 3, labels {} → {plan: gold}")]


def test_a_change_of_an_immutable_field_is_refused() -> None:
    found = steps("tenants: {acme: {strategy: shared, weight: 2}}", {"acme": tenant()})
    assert found == [("refuse", "acme", "strategy per_tenant → shared: cannot be changed")]


def test_only_prune_deletes_and_skips_tenants_that_are_being_deleted() -> None:
    actual = {"old": tenant(), "going": tenant(state="deleting")}
    assert steps("tenants: {}", actual) == []
    assert steps("tenants: {}", actual, prune=True) == [("delete", "old", "per_tenant on local")]


def test_an_empty_file_declares_nothing() -> None:
    assert Manifest.parse("").tenants == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tenants: [", "Invalid YAML: line 1, column 11: "),
        ("tenants:\n  a: {}\n  Y_2: {}", "tenants.Y_2.[key]: Must be 1 to 48 of a-z, 0-9 and"),
        ("tenants: {a: {}, a: {}}", "a is a duplicate"),
        ("tenants: {a: {size: 3}}", "tenants.a.size: There is no such field."),
        ("tenants: {a: {weight: '3'}}", "tenants.a.weight: Must be a whole number."),
        ("tenants: {a: {weight: 0}}", "tenants.a.weight: Must be 1 or more."),
        ("tenants: {a: {strategy: own}}", "tenants.a.strategy: Must be 'shared', 'per_tenant' or"),
        ("tenants: {a: {provision: maybe}}", "tenants.a.provision: Must be true or false."),
        ("tenants: {a: {labels: {x: 1}}}", "tenants.a.labels.x: Must be text."),
        ("tenants: {no: {}}", "no must be quoted"),
        ("tenants: {2026-01-01: {}}", "2026-01-01 must be quoted"),
        ("tenants: {[a]: {}}", "a key must be quoted"),
        ("tenants: {a: 3}", "tenants.a"),
        ("- acme", "file: Must be an object of names and values."),
        ("pools: {}", "pools"),
        ("tenants: !!python/object/apply:os.getcwd []", "Invalid YAML"),
        ("tenants: {a: {weight: 2001-13-45}}", "Invalid YAML"),
        ('tenants: {a: {weight: !!int ""}}', "Invalid YAML"),
        ("tenants: {a: {weight: !!bool x}}", "Invalid YAML"),
        ("tenants: {a: {weight: !!timestamp x}}", "Invalid YAML"),
        ("tenants: {a: {weight: %s}}" % ("9" * 5000), "Invalid YAML"),
        ("tenants: {a: false}", "tenants.a"),
        ("tenants: {a: []}", "tenants.a"),
        ("tenants: &a {b: *a}", "tenants.b.b"),
        ("[" * 5000, "Invalid YAML"),
        ('tenants: {a: {labels: {x: "\\e[2J"}}}', "Must not contain control characters."),
        ('tenants: {a: {labels: {x: "\\L"}}}', "Must not contain control characters."),
        ('tenants: {a: {labels: {"\\u202e": x}}}', "Must not contain control characters."),
        ('tenants: {"a\\e[2J": {}}', "tenants.a\\x1b[2J"),
    ],
)
def test_an_invalid_file_is_refused_with_the_location_of_the_error(text: str, message: str) -> None:
    with pytest.raises(ManifestError) as refusal:
        Manifest.parse(text)
    assert message in str(refusal.value)
    assert all(is_printable(line) for line in str(refusal.value).split("\n"))


def test_merged_keys_may_be_repeated() -> None:
    text = "tenants: {a: &a {strategy: shared, weight: 2}, b: {<<: *a, weight: 3}}"
    found = Manifest.parse(text).tenants
    assert (found["b"].strategy, found["a"].weight, found["b"].weight) == ("shared", 2, 3)


def test_a_key_that_expands_exponentially_is_refused_at_once() -> None:
    lines = ["x: &x0 [l]"]
    lines += [f"y{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 9)}]" for n in range(1, 30)]
    with pytest.raises(ManifestError) as refusal:
        Manifest.parse("\n".join([*lines, "tenants: {? *x29 : {}}"]))
    assert len(str(refusal.value)) < 200


class Service:
    """A model of the service, as far as plans change it."""

    def __init__(self) -> None:
        self.tenants: dict[str, dict[str, Any]] = {}
        self.pools: dict[str, dict[str, Any]] = {}

    def execute(self, step: Step) -> None:
        """Apply one step."""
        body = dict(step.body or {})
        match step.verb:
            case Verb.CREATE:
                self.tenants[step.tenant] = tenant(**body, state="declared")
                self.pools[step.tenant] = {"desired": {}}
            case Verb.CHANGE:
                self.tenants[step.tenant] = tenant(**body, state=self.tenants[step.tenant]["state"])
            case Verb.PROVISION:
                self.tenants[step.tenant]["state"] = "provisioned"
            case Verb.RESIZE:
                self.pools[step.tenant]["desired"] |= body
            case Verb.DELETE:
                del self.tenants[step.tenant]
            case Verb.REFUSE:
                pass


@given(
    first=st.dictionaries(NAMES, DECLARED),
    second=st.dictionaries(NAMES, DECLARED),
    prune=st.booleans(),
)
def test_after_executing_a_plan_only_refusals_remain(
    first: dict[str, Any], second: dict[str, Any], *, prune: bool
) -> None:
    service = Service()
    for declared in (first, second):
        manifest = Manifest.model_validate({"tenants": declared})
        for step in plan(manifest, service.tenants, service.pools, prune=prune):
            service.execute(step)
        left = plan(manifest, service.tenants, service.pools, prune=prune)
        assert {step.verb for step in left} <= {Verb.REFUSE}
        if prune:
            assert service.tenants.keys() == declared.keys()
