"""What an owner does to its own objects costs at most its own report, and no other's."""

import asyncio

import pytest

from app.domain.errors import ProvisioningFailed
from app.domain.isolation_checks import AuditCheck, Severity
from tests.fixtures.control import PERSON, Control
from tests.fixtures.postgres import Database
from tests.isolation.test_excess_grants import OPEN, audited, neighbours

_REACHABLE = f"""
CREATE TABLE kept (tenant_id text, body text);
GRANT ALL ON kept TO PUBLIC;
CREATE VIEW seen AS SELECT * FROM kept;
GRANT ALL ON seen TO PUBLIC;
CREATE MATERIALIZED VIEW stored AS SELECT * FROM kept;
GRANT SELECT ON stored TO PUBLIC;
CREATE FUNCTION mine() RETURNS int SECURITY DEFINER LANGUAGE sql AS 'SELECT 1';
GRANT EXECUTE ON FUNCTION mine TO PUBLIC;
GRANT USAGE ON SCHEMA {OPEN} TO PUBLIC
"""


async def test_what_a_tenant_opens_in_its_schema_is_not_charged_to_the_shared_role(
    control: Control,
) -> None:
    well = await neighbours(control)
    await control.tenant("open")
    async with control.manager.lease("open") as connection:
        await connection.execute(_REACHABLE)
    assert await audited(control) == {
        **well,
        "open": {AuditCheck.CLOSED_TO_OTHERS: Severity.CRITICAL},
    }


async def test_an_owner_in_the_middle_of_a_change_blocks_no_other_repair(
    control: Control,
) -> None:
    well = await neighbours(control)
    for name in ("open", "other"):
        await control.tenant(name)
        async with control.manager.lease(name) as connection:
            await connection.execute(f"GRANT USAGE ON SCHEMA tenant_{name} TO PUBLIC")
            await connection.execute("ALTER ROLE CURRENT_USER SET work_mem = '1MB'")
    async with control.manager.lease("open") as connection:
        await connection.execute(f"GRANT USAGE ON SCHEMA {OPEN} TO tenant_other")
        await connection.execute("ALTER ROLE CURRENT_USER SET work_mem = '2MB'")
        await audited(control)
        found = await audited(control)
        assert found["other"] == {}
        assert set(found["open"]) == {AuditCheck.SETTINGS, AuditCheck.CLOSED_TO_OTHERS}
    await audited(control)
    assert await audited(control) == {**well, "open": {}, "other": {}}


async def test_provisioning_says_so_if_a_tenants_own_transaction_blocks_it(
    control: Control,
) -> None:
    await control.tenant("open")
    async with control.manager.lease("open") as connection, asyncio.timeout(180):
        await connection.execute(f"GRANT USAGE ON SCHEMA {OPEN} TO PUBLIC")
        with pytest.raises(ProvisioningFailed, match="still open"):
            await control.provisioning.provision(control.state("open"), PERSON)
    await control.provisioning.provision(control.state("open"), PERSON)


async def test_of_a_huge_setting_only_its_beginning_is_fetched(control: Control) -> None:
    await control.tenant("open")
    async with control.manager.lease("open") as connection:
        await connection.execute("""DO $$ BEGIN
            EXECUTE format('ALTER ROLE CURRENT_USER SET application_name = %L',
                repeat('x', 2000000));
        END $$""")
    assert await audited(control) == {"open": {AuditCheck.SETTINGS: Severity.WARNING}}
    report = control.manager.tenants.state("open").isolation
    assert report is not None
    [finding] = report.findings
    assert "application_name=xxx" in finding.detail
    assert len(finding.detail) < 200
    assert await audited(control) == {"open": {}}


async def test_a_table_that_stays_locked_blocks_its_own_checks_only(
    control: Control, database: Database
) -> None:
    well = await neighbours(control)
    async with database.connected() as admin, admin.transaction():
        await admin.execute(
            """
            GRANT USAGE ON SCHEMA public TO poolkeeper_shared;
            CREATE TABLE public.notes (tenant_id text);
            CREATE POLICY own ON public.notes
                USING (tenant_id = current_setting('app.tenant_id', true));
            ALTER TABLE public.notes ENABLE ROW LEVEL SECURITY;
            ALTER TABLE public.notes FORCE ROW LEVEL SECURITY;
            GRANT SELECT ON public.notes TO poolkeeper_shared;
            """
        )
    async with database.connected() as admin, admin.transaction():
        await admin.execute("LOCK TABLE public.notes IN ACCESS EXCLUSIVE MODE")
        unchecked = dict.fromkeys(
            (AuditCheck.ROW_SECURITY, AuditCheck.RLS_BYPASS), Severity.NOT_CHECKED
        )
        assert await audited(control) == {**well, "neighbour-shared": unchecked}
    assert await audited(control) == well


async def test_a_setting_that_a_role_repeats_is_reset_each_time_and_recorded_once(
    control: Control,
) -> None:
    await control.tenant("open")
    for _ in range(2):
        async with control.manager.lease("open") as connection:
            await connection.execute("ALTER ROLE CURRENT_USER SET work_mem = '1MB'")
        assert await audited(control) == {"open": {AuditCheck.SETTINGS: Severity.WARNING}}
        assert await audited(control) == {"open": {}}
    actions = [each.action for each in control.audit_outbox.pending]
    assert actions == ["pool.role_settings_reset"]
