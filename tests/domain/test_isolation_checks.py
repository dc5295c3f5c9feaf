"""The isolation policy: a thing has the same cause for all tenants, another thing another."""

from dataclasses import replace

import pytest

from app.domain.isolation_checks import (
    AuditCheck,
    Finding,
    Inspection,
    Severity,
    find_violations,
)
from app.domain.isolation_facts import RoleFacts
from app.domain.tenant import PoolStrategy

FACTS = RoleFacts(
    can_login=True,
    is_ours=True,
    attributes=("CREATEDB",),
    memberships=("hr",),
    privileged_memberships=(),
    settings=("work_mem=1GB",),
    databases=("tenants", "crm"),
    connection_limit=9,
    owner="hr",
    grantees=("sales",),
    owned_objects=0,
    can_create_temporary=False,
    public_can_create=True,
    password_version=1,
    missing_schemas=("gis",),
    unusable_schemas=("tools",),
)
Causes = set[tuple[AuditCheck, Severity, str]]


def causes(facts: RoleFacts, role: str = "tenant_acme") -> Causes:
    found = find_violations(
        Inspection(roles={role: facts}),
        PoolStrategy.PER_TENANT,
        role,
        home="tenants",
        connection_limit=7,
        password_versions={1},
        password_key="00ff",
    )
    return {(each.check, each.severity, each.cause) for each in found}


def test_the_same_thing_has_one_cause_whichever_tenant_it_concerns() -> None:
    found = causes(FACTS)
    assert found == causes(FACTS, "tenant_beta")
    assert len(found) == 10
    assert not any("acme" in cause for _, _, cause in found)


def test_a_role_that_cannot_log_in_keeps_its_tenant_out() -> None:
    found = causes(replace(FACTS, can_login=False))
    assert (AuditCheck.ROLE, Severity.CRITICAL, "") in found


def test_a_role_whose_rights_the_service_lacks_is_a_finding_of_its_own() -> None:
    found = causes(replace(FACTS, is_ours=False))
    assert (AuditCheck.ROLE, Severity.WARNING, "rights") in found


@pytest.mark.parametrize("version", [None, 1, 3])
def test_a_password_that_the_catalog_does_not_know_is_found(version: int | None) -> None:
    found = causes(replace(FACTS, password_version=version))
    assert ((AuditCheck.PASSWORD, Severity.CRITICAL, "") in found) is (version == 3)


@pytest.mark.parametrize("key", [None, "00ff", "ff00"])
def test_a_password_of_another_secret_key_is_found(key: str | None) -> None:
    found = causes(replace(FACTS, password_key=key))
    assert ((AuditCheck.SECRET_KEY, Severity.CRITICAL, "") in found) is (key == "ff00")


@pytest.mark.parametrize("privileged", [(), ("pg_read_all_data",)])
def test_a_membership_is_found_with_the_sql_that_ends_it(privileged: tuple[str, ...]) -> None:
    facts = replace(
        FACTS, memberships=("pg_read_all_data", "Finance"), privileged_memberships=privileged
    )
    found = find_violations(
        Inspection(roles={"tenant_a-b": facts}),
        PoolStrategy.PER_TENANT,
        "tenant_a-b",
        home="tenants",
        connection_limit=7,
        password_versions={1},
        password_key="00ff",
    )
    [finding] = [each for each in found if each.check is AuditCheck.MEMBERSHIPS]
    assert finding.detail.endswith('Run: REVOKE "Finance", pg_read_all_data FROM "tenant_a-b";')


@pytest.mark.parametrize(
    ("check", "other"),
    [
        (AuditCheck.ROLE_ATTRIBUTES, replace(FACTS, attributes=("CREATEROLE",))),
        (AuditCheck.MEMBERSHIPS, replace(FACTS, memberships=("finance",))),
        (AuditCheck.OTHER_DATABASES, replace(FACTS, databases=("erp",))),
        (AuditCheck.OWNERSHIP, replace(FACTS, owner=None)),
        (AuditCheck.CLOSED_TO_OTHERS, replace(FACTS, grantees=("finance",))),
    ],
)
def test_another_thing_under_the_same_check_is_another_cause(
    check: AuditCheck, other: RoleFacts
) -> None:
    assert {each for each, _, _ in causes(FACTS) ^ causes(other)} == {check}


def of_shared(facts: RoleFacts) -> tuple[Finding, ...]:
    return find_violations(
        Inspection(roles={"poolkeeper_shared": facts}),
        PoolStrategy.SHARED,
        "poolkeeper_shared",
        home="tenants",
        connection_limit=-1,
        password_versions={1},
        password_key="00ff",
    )


def test_no_finding_says_to_take_from_another_installation_what_it_needs() -> None:
    theirs = of_shared(replace(FACTS, shared_in="crm", password_version=3))
    assert AuditCheck.ROLE in {each.check for each in theirs}
    assert "crm" in "".join(each.detail for each in theirs)
    assert not {AuditCheck.OTHER_DATABASES, AuditCheck.PASSWORD} & {each.check for each in theirs}
    [databases] = [
        each
        for each in of_shared(replace(FACTS, shared_in="tenants"))
        if each.check is AuditCheck.OTHER_DATABASES
    ]
    assert "Unless another installation has shared tenants there, run: REVOKE" in databases.detail
