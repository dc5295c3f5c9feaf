"""Provisioning: idempotent, repeatable, recorded."""

from __future__ import annotations

import pytest

from app.control.tenants import provisioning
from app.domain.errors import (
    ServerUnavailable,
)
from tests.fixtures.control import PERSON, Control, spec_of


async def test_provisioning_twice_is_provisioning_once(control: Control) -> None:
    await control.declarations.put(spec_of("acme"), PERSON)
    first, objects = await control.provisioning.provision(control.state("acme"), PERSON)
    second, again = await control.provisioning.provision(control.state("acme"), PERSON)
    assert objects == again == ["role tenant_acme", "schema tenant_acme"]
    assert first.provisioned_at == second.provisioned_at
    assert await control.actions() == ["tenant.created", "tenant.provisioned"]


async def test_provisioning_that_takes_too_long_may_be_tried_again(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    await control.declarations.put(spec_of("acme"), PERSON)
    with monkeypatch.context() as patched:
        patched.setattr(provisioning, "_PROVISION_DEADLINE", 0.0)
        with pytest.raises(ServerUnavailable):
            await control.provisioning.provision(control.state("acme"), PERSON)
    await control.provisioning.provision(control.state("acme"), PERSON)


async def test_adopting_existing_objects_is_recorded_every_time(control: Control) -> None:
    await control.tenant("acme")
    await control.provisioning.provision(control.state("acme"), PERSON, adopt=True)
    assert (await control.actions()).count("tenant.provisioned") == 2
