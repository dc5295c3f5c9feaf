"""Which names a tenant can have, and which pool serves it."""

import string
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import InvalidTenantId
from app.domain.tenant import (
    RESERVED_IDS,
    AdvisorMode,
    PoolStrategy,
    TenantId,
    TenantSpec,
    shared_pool_id,
)

# Postgres truncates longer names, so two tenants could share one object.
LONGEST_NAME_BYTES = 63
INNER = string.ascii_lowercase + string.digits + "-"


def is_a_free_slug(text: str) -> bool:
    """The design's rule again, letter by letter and without a regular expression."""
    return (
        1 <= len(text) <= 48
        and all(letter in INNER for letter in text)
        and "-" not in (text[0], text[-1])
        and text not in RESERVED_IDS
        and not text.startswith("pg-")
    )


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "7",
        "acme",
        "tenant-1",
        "a-b",
        "a--b",
        "0-0",
        "a" * 48,
        "a" + "-" * 46 + "b",
        "pg",
        "pgx",
    ],
)
def test_a_slug_is_a_tenant_id(text: str) -> None:
    assert TenantId(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "-",
        "-a",
        "a-",
        "a" * 49,
        "a" + "-" * 47 + "b",
        "A",
        "Acme",
        "a_b",
        "a.b",
        "a b",
        "a@b",
        "a/b",
        'a"b',
        "a'b",
        "a;b",
        "a\n",
        "\na",
        "a\nb",
        "a\r\n",
        "a\0",
        "\u00e9",
        "\u00df",
        "\u0131",
        "\u017f",
        "\u0663",
        "a\u0663",
        "\uff13",
        "\u00b2",
        "a\u200b",
        "a\u2010b",
    ],
)
def test_anything_else_is_none(text: str) -> None:
    with pytest.raises(InvalidTenantId, match="1 to 48 characters"):
        TenantId(text)


@pytest.mark.parametrize("text", [*sorted(RESERVED_IDS), "pg-catalog", "pg-toast", "pg-0"])
def test_a_reserved_name_is_refused_by_its_name(text: str) -> None:
    with pytest.raises(InvalidTenantId, match=f"The name {text} is reserved"):
        TenantId(text)


@given(st.text(max_size=60) | st.text(INNER + "A_\n", max_size=60))
def test_exactly_the_free_slugs_are_accepted(text: str) -> None:
    try:
        tenant = TenantId(text)
    except InvalidTenantId:
        assert not is_a_free_slug(text)
    else:
        assert is_a_free_slug(text)
        assert len(tenant.object_name.encode()) <= LONGEST_NAME_BYTES


def test_the_longest_id_still_has_an_object_name_that_postgres_keeps_whole() -> None:
    assert len(TenantId("a" * 48).object_name.encode()) <= LONGEST_NAME_BYTES


def test_a_tenants_objects_are_named_after_it() -> None:
    assert TenantId("test").object_name == "tenant_test"


def test_no_tenants_object_name_is_one_of_postgres() -> None:
    assert TenantId("pg").object_name == "tenant_pg"


def test_a_shared_tenant_leases_from_the_servers_pool() -> None:
    spec = TenantSpec(id=TenantId("acme"), server="main", strategy=PoolStrategy.SHARED)
    assert spec.is_shared
    assert spec.pool_id == shared_pool_id("main") == "shared@main"


@pytest.mark.parametrize("strategy", [PoolStrategy.PER_TENANT, PoolStrategy.PER_DATABASE])
def test_any_other_tenant_has_a_pool_of_its_own(strategy: PoolStrategy) -> None:
    spec = TenantSpec(id=TenantId("acme"), server="main", strategy=strategy)
    assert not spec.is_shared
    assert spec.pool_id == "acme"


@pytest.mark.parametrize("server", ["", "a", "local", "shared"])
def test_no_tenant_can_be_called_like_a_shared_pool(server: str) -> None:
    with pytest.raises(InvalidTenantId):
        TenantId(shared_pool_id(server))


def test_a_tenant_counts_once_and_has_no_cap_by_default() -> None:
    spec = TenantSpec(id=TenantId("acme"), server="main", strategy=PoolStrategy.SHARED)
    assert (spec.weight, spec.max_leases, dict(spec.labels)) == (1, None, {})


def test_a_spec_survives_its_dictionary() -> None:
    spec = TenantSpec(
        id=TenantId("acme"),
        server="local",
        strategy=PoolStrategy.SHARED,
        weight=3,
        labels={"plan": "gold"},
        advisor_mode=AdvisorMode.APPLY,
    )
    assert TenantSpec.from_dict({**spec.as_dict(), "generation": 1}) == spec
    assert TenantSpec.from_dict(replace(spec, advisor_mode=None).as_dict()).advisor_mode is None
