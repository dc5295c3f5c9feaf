"""Tenants are created, changed and deleted, and each change is recorded exactly once."""

import asyncio
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError

from app.catalog.catalog import Catalog
from app.domain.errors import ImmutableField, StaleVersion, TenantNotFound
from app.domain.pool import PoolSize
from app.domain.recommendation import RecommendationStatus
from app.domain.tenant import PoolStrategy, TenantId, TenantSpec
from tests.catalog.values import ACME, actions, event, ids, recommendation, refused_event, spec
from tests.fixtures.turns import counted_turns


async def test_a_saved_tenant_is_loaded_as_it_was_saved(catalog: Catalog) -> None:
    declared = spec(weight=7, max_leases=3, labels={"tier": "gold"})
    tenant, created = await catalog.tenants.save(declared, event=event())
    assert created
    assert tenant.spec == declared
    assert tenant.generation == 1
    assert tenant.provisioned_at is None
    assert not tenant.deleting
    assert tenant.created_at.utcoffset() is not None
    assert await catalog.tenants.load() == (tenant,)
    assert await actions(catalog) == ["tenant.created"]


async def test_a_change_grows_the_generation_and_keeps_the_uid(catalog: Catalog) -> None:
    first, _ = await catalog.tenants.save(spec(), event=event())
    second, created = await catalog.tenants.save(spec(weight=2), event=event("tenant.changed"))
    assert not created
    assert (second.generation, second.spec.weight, second.uid) == (2, 2, first.uid)
    assert second.updated_at > first.updated_at
    assert await actions(catalog) == ["tenant.changed", "tenant.created"]


async def test_an_identical_declaration_changes_and_records_nothing(catalog: Catalog) -> None:
    first, _ = await catalog.tenants.save(spec(labels={"a": "1", "b": "2"}), event=event())
    again = spec(labels={"b": "2", "a": "1"})
    assert await catalog.tenants.save(again, event=event("no")) == (first, False)
    assert await catalog.tenants.save(again, event=event("no"), expected_generation=1) == (
        first,
        False,
    )
    assert await actions(catalog) == ["tenant.created"]


@pytest.mark.parametrize("expected", [0, 1, 3])
async def test_another_generation_than_expected_is_stale(catalog: Catalog, expected: int) -> None:
    await catalog.tenants.save(spec(), event=event())
    current, _ = await catalog.tenants.save(spec(weight=2), event=event("tenant.changed"))
    with pytest.raises(StaleVersion):
        await catalog.tenants.save(spec(), event=event("no"), expected_generation=expected)
    assert await catalog.tenants.load() == (current,)
    assert "no" not in await actions(catalog)


async def test_a_write_whose_commit_was_not_confirmed_can_be_repeated(catalog: Catalog) -> None:
    """Its caller knows only the previous version, and expects it again."""
    await catalog.tenants.save(spec(), event=event())
    changed = spec(weight=2)
    written, _ = await catalog.tenants.save(
        changed, event=event("tenant.changed"), expected_generation=1
    )
    for _ in range(2):
        again = await catalog.tenants.save(changed, event=event("no"), expected_generation=1)
        assert again == (written, False)
    for other, expected in ((spec(weight=3), 1), (changed, 0)):
        with pytest.raises(StaleVersion):
            await catalog.tenants.save(other, event=event("no"), expected_generation=expected)
    assert await actions(catalog) == ["tenant.changed", "tenant.created"]


async def test_a_tenant_that_does_not_exist_has_generation_zero(catalog: Catalog) -> None:
    with pytest.raises(StaleVersion):
        await catalog.tenants.save(spec(), event=event(), expected_generation=1)
    _, created = await catalog.tenants.save(spec(), event=event(), expected_generation=0)
    assert created


@pytest.mark.parametrize(
    "change", [{"server": "elsewhere"}, {"strategy": PoolStrategy.PER_DATABASE}]
)
async def test_server_and_strategy_never_change(catalog: Catalog, change: dict[str, Any]) -> None:
    current, _ = await catalog.tenants.save(spec(), event=event())
    with pytest.raises(ImmutableField, match=next(iter(change))):
        await catalog.tenants.save(spec(weight=9, **change), event=event("no"))
    assert await catalog.tenants.load() == (current,)


async def test_of_many_who_expect_the_same_generation_one_wins(catalog: Catalog) -> None:
    await catalog.tenants.save(spec(), event=event())
    outcomes = await asyncio.gather(
        *(
            catalog.tenants.save(
                spec(weight=weight), event=event("tenant.changed"), expected_generation=1
            )
            for weight in range(2, 12)
        ),
        return_exceptions=True,
    )
    winners = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    losers = [outcome for outcome in outcomes if isinstance(outcome, StaleVersion)]
    assert (len(winners), len(losers)) == (1, 9)
    assert await catalog.tenants.load() == (winners[0][0],)
    assert await actions(catalog) == ["tenant.changed", "tenant.created"]


async def test_of_many_who_create_a_tenant_one_does(catalog: Catalog) -> None:
    outcomes = await asyncio.gather(
        *(catalog.tenants.save(spec(), event=event()) for _ in range(10))
    )
    assert sorted(created for _, created in outcomes) == [False] * 9 + [True]
    assert len({tenant.uid for tenant, _ in outcomes}) == 1
    assert await actions(catalog) == ["tenant.created"]


async def test_being_provisioned_is_remembered_once(catalog: Catalog) -> None:
    declared, _ = await catalog.tenants.save(spec(), event=event())
    first = await catalog.tenants.mark_provisioned(ACME, event=event("tenant.provisioned"))
    again = await catalog.tenants.mark_provisioned(ACME, event=event("no"))
    assert first.provisioned_at is not None
    assert first.generation == declared.generation
    assert again == first
    assert await actions(catalog) == ["tenant.provisioned", "tenant.created"]


async def test_being_deleted_is_remembered_once(catalog: Catalog) -> None:
    await catalog.tenants.save(spec(), event=event())
    first = await catalog.tenants.mark_deleting(ACME, event=event("tenant.deleting"))
    again = await catalog.tenants.mark_deleting(ACME, event=event("no"))
    assert first.deleting
    assert again == first
    assert await actions(catalog) == ["tenant.deleting", "tenant.created"]


async def test_nothing_can_be_marked_that_does_not_exist(catalog: Catalog) -> None:
    with pytest.raises(TenantNotFound, match="acme"):
        await catalog.tenants.mark_provisioned(ACME, event=event())
    with pytest.raises(TenantNotFound, match="acme"):
        await catalog.tenants.mark_deleting(ACME, event=event())
    assert await actions(catalog) == []


async def test_a_deleted_tenant_leaves_closed_recommendations_and_no_open_one(
    catalog: Catalog,
) -> None:
    for tenant in ("acme", "other"):
        await catalog.tenants.save(spec(tenant), event=event())
        await catalog.pools.save(tenant, PoolSize(), pause=None, event=event("pool.created"))
    past, present = recommendation(), recommendation(seconds=1)
    others, shared = recommendation("other"), recommendation("shared@local")
    for advice in (past, present, others, shared):
        await catalog.recommendations.add(advice)
    await catalog.tenants.delete(ACME, event=event("tenant.deleted"))
    await catalog.tenants.delete(ACME, event=event("no"))
    assert [tenant.spec.id for tenant in await catalog.tenants.load()] == ["other"]
    assert [pool.pool_id for pool in await catalog.pools.load()] == ["other"]
    still_open = await catalog.recommendations.page(status=RecommendationStatus.OPEN)
    assert set(ids(still_open)) == {others.id, shared.id}
    assert ids(await catalog.recommendations.page(tenant="acme")) == [past.id]
    assert (await actions(catalog))[0] == "tenant.deleted"


async def test_a_successor_of_the_same_name_is_another_tenant(catalog: Catalog) -> None:
    first, _ = await catalog.tenants.save(spec(), event=event())
    await catalog.tenants.delete(ACME, event=event("tenant.deleted"))
    second, created = await catalog.tenants.save(spec(), event=event())
    assert created
    assert second.uid != first.uid


async def test_no_change_without_its_event(catalog: Catalog) -> None:
    """If the event cannot be written, the change has not happened either."""
    unwritten = refused_event()
    with pytest.raises(DBAPIError):
        await catalog.tenants.save(spec("new"), event=unwritten)
    before, _ = await catalog.tenants.save(spec(), event=event())
    with pytest.raises(DBAPIError):
        await catalog.tenants.save(spec(weight=2), event=unwritten)
    with pytest.raises(DBAPIError):
        await catalog.tenants.mark_provisioned(ACME, event=unwritten)
    with pytest.raises(DBAPIError):
        await catalog.tenants.mark_deleting(ACME, event=unwritten)
    with pytest.raises(DBAPIError):
        await catalog.tenants.delete(ACME, event=unwritten)
    assert await catalog.tenants.load() == (before,)
    assert catalog.available


async def test_tenants_are_loaded_by_id(catalog: Catalog) -> None:
    names = [f"t{number:04}" for number in range(40)]
    for name in reversed(names):
        await catalog.tenants.save(spec(name), event=event())
    assert [tenant.spec.id for tenant in await catalog.tenants.load()] == names
    assert isinstance((await catalog.tenants.load())[0].spec.id, TenantId)


async def test_others_have_their_turn_while_many_are_loaded(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"t{number:03}" for number in range(250)]
    for name in names:
        await catalog.tenants.save(spec(name), event=event())
    async with counted_turns() as turns:
        monkeypatch.setattr(TenantSpec, "from_dict", turns.counted(TenantSpec.from_dict))
        loaded = await catalog.tenants.load()
    assert [tenant.spec.id for tenant in loaded] == names
    assert turns.calls == len(names)
    assert turns.most <= 100
