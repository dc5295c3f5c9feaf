"""The isolation policy: what each strategy promises, and which facts violate it.

Pure: `app.pools.isolation.inspection` reads the facts from Postgres; the same facts always give the
same findings.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from app.domain.identifier import quoted
from app.domain.isolation_facts import ExcessGrant, RelationFacts, RoleFacts
from app.domain.tenant import OBJECT_PREFIX, PoolStrategy

# Every cluster has these databases. They hold no data unless somebody put some there.
_MAINTENANCE_DATABASES = frozenset({"postgres", "template1"})
_MAX_NAMES = 5


class Assurance(StrEnum):
    """What a tenant's isolation protects against."""

    TRUSTED_SQL = "trusted_sql"
    """A forgotten WHERE in SQL written by people we trust; not hostile SQL."""

    ROLE = "role"
    """Hostile SQL: Postgres itself keeps the tenant's own login role in its schema."""

    DATABASE = "database"
    """Hostile SQL. Only the names of databases and roles are visible to others."""


class Severity(StrEnum):
    WARNING = "warning"
    """The promise holds, but a safeguard is missing or was disabled."""

    CRITICAL = "critical"
    """The promise is broken until this is fixed."""

    NOT_CHECKED = "not_checked"
    """Postgres did not answer the check: it is unknown whether the promise holds."""


class AuditCheck(StrEnum):
    """A check of the isolation audit. A finding's detail says what is wrong and how to fix it."""

    ROLE = "role"
    SECRET_KEY = "secret_key"  # noqa: S105 - the name of a check
    PASSWORD = "password"  # noqa: S105 - the name of a check
    ROLE_ATTRIBUTES = "role_attributes"
    MEMBERSHIPS = "memberships"
    OWNERSHIP = "ownership"
    SETTINGS = "settings"
    OTHER_DATABASES = "other_databases"
    CONNECTION_LIMIT = "connection_limit"
    CLOSED_TO_OTHERS = "closed_to_others"
    PUBLIC_SCHEMA = "public_schema"
    TEMPORARY_TABLES = "temporary_tables"
    ROW_SECURITY = "row_security"
    RLS_BYPASS = "rls_bypass"
    EXTENSION_SCHEMAS = "extension_schemas"


_ONE_POOL_EACH = (PoolStrategy.PER_TENANT, PoolStrategy.PER_DATABASE)
_ONE_DATABASE = (PoolStrategy.SHARED, PoolStrategy.PER_TENANT)
# Checks that apply to some strategies only.
_NEEDED_BY: dict[AuditCheck, tuple[PoolStrategy, ...]] = {
    AuditCheck.CONNECTION_LIMIT: _ONE_POOL_EACH,
    AuditCheck.CLOSED_TO_OTHERS: _ONE_POOL_EACH,
    AuditCheck.PUBLIC_SCHEMA: _ONE_DATABASE,
    AuditCheck.TEMPORARY_TABLES: (PoolStrategy.SHARED,),
    AuditCheck.ROW_SECURITY: (PoolStrategy.SHARED,),
    AuditCheck.RLS_BYPASS: (PoolStrategy.SHARED,),
    AuditCheck.EXTENSION_SCHEMAS: (PoolStrategy.PER_TENANT,),
}
_ASSURANCES = {
    PoolStrategy.SHARED: Assurance.TRUSTED_SQL,
    PoolStrategy.PER_TENANT: Assurance.ROLE,
    PoolStrategy.PER_DATABASE: Assurance.DATABASE,
}


def assurance_of(strategy: PoolStrategy) -> Assurance:
    return _ASSURANCES[strategy]


def checks_of(strategy: PoolStrategy) -> tuple[AuditCheck, ...]:
    return tuple(each for each in AuditCheck if strategy in _NEEDED_BY.get(each, PoolStrategy))


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A check that failed or could not run.

    Attributes:
        cause: distinguishes several findings of the same check. One cause that affects all tenants
            of a server has the same value for each of them.
    """

    check: AuditCheck
    severity: Severity
    detail: str
    cause: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class IsolationReport:
    """The findings of a tenant's last audit. All other checks passed."""

    findings: tuple[Finding, ...]
    checked_at: datetime
    checked_at_monotonic: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """The facts read from one server, and those that could not be read.

    Attributes:
        relations: tables and views that the shared role can use.
        security_definer_functions: those that the shared role can call and that set no search_path.
        unchecked: why a check could not run for any role.
        unchecked_roles: why nothing could be read about a role, by name.
    """

    roles: Mapping[str, RoleFacts] = field(default_factory=dict)
    relations: Sequence[RelationFacts] = ()
    security_definer_functions: Sequence[str] = ()
    excess_grants: Sequence[ExcessGrant] = ()
    unchecked: Mapping[AuditCheck, str] = field(default_factory=dict)
    unchecked_roles: Mapping[str, str] = field(default_factory=dict)


def find_violations(
    inspection: Inspection,
    strategy: PoolStrategy,
    role: str,
    *,
    home: str,
    connection_limit: int,
    password_versions: Collection[int],
    password_key: str,
    uid: str | None = None,
) -> tuple[Finding, ...]:
    """Find what violates *strategy* for the tenants that log in as *role*.

    *home* is the database they work in, *connection_limit* the role's intended limit, or -1, and
    *password_versions* those that its password may have, *password_key* the fingerprint of the
    secret key. *uid* is that of its only tenant.
    """
    unchecked = inspection.unchecked
    if role in inspection.unchecked_roles:
        unchecked = dict.fromkeys(checks_of(strategy), inspection.unchecked_roles[role])
    facts = inspection.roles.get(role)
    if facts is None:
        found = [_critical(AuditCheck.ROLE, f"Role {role} does not exist. Provision the tenant.")]
    elif uid is not None and facts.tenant_uid not in (None, uid):
        found = [_of_another_tenant(role)]
    else:
        found = list(_of_role(role, facts))
        if strategy is PoolStrategy.SHARED and facts.shared_in not in (None, home):
            found.append(_taken_over(role, facts, home))
        else:
            found += _of_password(role, facts, password_versions, password_key)
            found += _of_databases(role, facts, home)
        if strategy is PoolStrategy.SHARED:
            found += _of_shared_role(role, facts, home)
            found += _of_relations(role, inspection)
        else:
            kind = "schema" if strategy is PoolStrategy.PER_TENANT else "database"
            found += _of_home(role, facts, kind, connection_limit)
            found += _of_extension_schemas(role, facts)
        if strategy is not PoolStrategy.PER_DATABASE and facts.public_can_create:
            found.append(
                _critical(
                    AuditCheck.PUBLIC_SCHEMA,
                    "Everyone can create objects in schema public. "
                    "Run: REVOKE CREATE ON SCHEMA public FROM PUBLIC;",
                )
            )
    return (
        *(finding for finding in found if finding.check not in unchecked),
        *(
            Finding(
                check=check,
                severity=Severity.NOT_CHECKED,
                detail=f"Not checked: {reason}",
                cause=reason,
            )
            for check, reason in unchecked.items()
            if check in checks_of(strategy)
        ),
    )


def _of_role(role: str, facts: RoleFacts) -> Iterator[Finding]:
    if not facts.can_login:
        is_own = role.startswith(OBJECT_PREFIX)
        why = ", as after a deletion of its tenant" if is_own else ""
        detail = f"Role {role} cannot log in{why}. Provision the tenant."
        yield _critical(AuditCheck.ROLE, detail)
    if not facts.is_ours:
        yield _warning(
            AuditCheck.ROLE,
            f"The service lacks the rights of role {role}: it cannot repair what it owns, and "
            "can end its sessions only as a member of pg_signal_backend. Provision the tenant.",
            "rights",
        )
    if facts.attributes:
        no_attributes = " ".join(f"NO{attribute}" for attribute in facts.attributes)
        yield _critical(
            AuditCheck.ROLE_ATTRIBUTES,
            f"Role {role} has {', '.join(facts.attributes)}. "
            f"Run: ALTER ROLE {quoted(role)} {no_attributes};",
            no_attributes,
        )
    tenants = [name for name in facts.memberships if name.startswith(OBJECT_PREFIX)]
    groups = ", ".join(quoted(name) for name in sorted(facts.memberships)[:_MAX_NAMES])
    revoke = f"Run: REVOKE {groups} FROM {quoted(role)};"
    if facts.privileged_memberships or tenants:
        names = _listed([*facts.privileged_memberships, *tenants])
        yield _critical(AuditCheck.MEMBERSHIPS, f"Role {role} can act as {names}. {revoke}", names)
    elif facts.memberships:
        names = _listed(facts.memberships)
        yield _warning(
            AuditCheck.MEMBERSHIPS,
            f"Role {role} is a member of {names} and has their privileges. {revoke}",
            names,
        )
    if facts.settings:
        yield _warning(
            AuditCheck.SETTINGS,
            f"All sessions of role {role} had {_listed(facts.settings)} set. "
            "Poolkeeper resets this.",
        )


def _of_password(
    role: str, facts: RoleFacts, versions: Collection[int], key: str
) -> Iterator[Finding]:
    """Compare what the password was derived from.

    Its version may differ since a restore or a failover of either side lost one.
    """
    is_own = role.startswith(OBJECT_PREFIX)
    tenant = role.removeprefix(OBJECT_PREFIX) if is_own else "TENANT --shared"
    version = facts.password_version
    if facts.password_key not in (None, key):
        yield _critical(
            AuditCheck.SECRET_KEY,
            f"Role {role} has a password of another secret key, so the service cannot log in. "
            "Start the service with that key; if it is lost, or was replaced on purpose, run for "
            f"each tenant: poolkeeper tenants rotate {tenant}",
        )
    if version is not None and version not in versions:
        yield _critical(
            AuditCheck.PASSWORD,
            f"Role {role} has version {version} of its password, the catalog version "
            f"{min(versions)}: a restore or a failover undid a rotation, and the role cannot log "
            "in. The service makes up for it. If it stays so, run: poolkeeper tenants rotate "
            f"{tenant}",
        )


def _taken_over(role: str, facts: RoleFacts, home: str) -> Finding:
    """Not the symptoms: to repair these would break what the other installation needs."""
    return _critical(
        AuditCheck.ROLE,
        f"Role {role} serves the shared tenants of database {facts.shared_in}, not of {home}: "
        "another installation on this server has taken it over, and only one can have shared "
        f"tenants. If {home} was renamed, provision a shared tenant with adopt=true.",
    )


def _of_another_tenant(role: str) -> Finding:
    """Nothing else: what its own tenant needs must not be undone."""
    return _critical(
        AuditCheck.ROLE,
        f"Role {role} was provisioned for another tenant of the same id: the catalog was restored "
        "from a backup, or another installation has that tenant. Its present data may be in "
        "another place, as after a move. If it is here, provision the tenant with adopt=true; else "
        "delete it.",
    )


def _of_databases(role: str, facts: RoleFacts, home: str) -> Iterator[Finding]:
    others = sorted({name for name in facts.databases if name != home})
    if others:
        is_harmless = _MAINTENANCE_DATABASES.issuperset(others)
        databases = ", ".join(map(quoted, others[:_MAX_NAMES]))
        # Its tenants are in one database, unless an earlier version let two installations use it.
        is_own = role.startswith(OBJECT_PREFIX)
        run = "Run" if is_own else "Unless another installation has shared tenants there, run"
        yield Finding(
            check=AuditCheck.OTHER_DATABASES,
            severity=Severity.WARNING if is_harmless else Severity.CRITICAL,
            detail=f"Role {role} can connect to database {_listed(others)}. "
            f"{run}: REVOKE CONNECT ON DATABASE {databases} FROM PUBLIC, {quoted(role)}; "
            + (
                ""
                if is_harmless
                else "Roles that log in there by a right of PUBLIC need one of their own first. "
            )
            + "If only your provider can do that, keep no data there and name it in the setting "
            "open_databases of the server.",
            cause=databases,
        )


def _of_home(role: str, facts: RoleFacts, kind: str, connection_limit: int) -> Iterator[Finding]:
    if facts.owner != role:
        owner = f"belongs to {facts.owner}" if facts.owner else "does not exist"
        detail = f"The {kind} {role} {owner}. Provision the tenant."
        yield _critical(AuditCheck.OWNERSHIP, detail, owner)
    if "PUBLIC" in facts.grantees:
        yield _critical(
            AuditCheck.CLOSED_TO_OTHERS,
            f"Everyone can enter the {kind} {role}. Poolkeeper revokes this.",
        )
    elif facts.grantees:
        names = _listed(facts.grantees)
        yield _warning(AuditCheck.CLOSED_TO_OTHERS, f"{names} can enter the {kind} {role}.", names)
    if facts.connection_limit != connection_limit:
        yield _warning(
            AuditCheck.CONNECTION_LIMIT,
            f"The connection limit of role {role} was {facts.connection_limit}. "
            f"Poolkeeper sets it to {connection_limit}.",
        )


def _of_extension_schemas(role: str, facts: RoleFacts) -> Iterator[Finding]:
    if facts.writable_schemas:
        names = _listed(facts.writable_schemas)
        yield _critical(
            AuditCheck.EXTENSION_SCHEMAS,
            f"Role {role} can create objects in schema {names}, which other tenants use. "
            f"Run: REVOKE CREATE ON SCHEMA {names} FROM PUBLIC, {quoted(role)};",
        )
    if facts.missing_schemas:
        commands = " ".join(f"CREATE SCHEMA {name};" for name in facts.missing_schemas)
        yield _warning(
            AuditCheck.EXTENSION_SCHEMAS,
            f"Schema {_listed(facts.missing_schemas)} does not exist. Run: {commands}",
            "missing",
        )
    if facts.unusable_schemas:
        yield _warning(
            AuditCheck.EXTENSION_SCHEMAS,
            f"Role {role} lacked USAGE on schema {_listed(facts.unusable_schemas)}. "
            "Poolkeeper grants it.",
        )


def _of_shared_role(role: str, facts: RoleFacts, home: str) -> Iterator[Finding]:
    if facts.owned_objects:
        yield _critical(
            AuditCheck.OWNERSHIP,
            f"Role {role} owns {facts.owned_objects} objects, and an owner can switch row-level "
            f"security off. Run: REASSIGN OWNED BY {role} TO another_role;",
        )
    if facts.can_create_temporary:
        yield _critical(
            AuditCheck.TEMPORARY_TABLES,
            f"Role {role} can create temporary tables, which hide tables of the same name. "
            f"Run: REVOKE TEMPORARY ON DATABASE {quoted(home)} FROM PUBLIC, {role};",
        )


def _of_relations(role: str, inspection: Inspection) -> Iterator[Finding]:
    relations, functions = inspection.relations, inspection.security_definer_functions
    unprotected = [
        each.name
        for each in relations
        if each.kind in "rp" and not (each.rls_enabled and each.rls_forced)
    ]
    unfiltered = [
        f"{policy} on {each.name}" for each in relations for policy in each.unfiltered_policies
    ]
    if unprotected:
        yield _critical(
            AuditCheck.ROW_SECURITY,
            f"Row-level security is not enabled and forced on {_listed(unprotected)}. "
            "`poolkeeper rls-sql` prints the SQL.",
        )
    elif unfiltered:
        yield _warning(
            AuditCheck.ROW_SECURITY,
            f"These policies do not check app.tenant_id: {_listed(unfiltered)}.",
        )
    bypasses = [
        each.name
        for each in relations
        if each.kind in "fm" or each.can_truncate or each.bypasses_rls
    ]
    if bypasses:
        yield _critical(
            AuditCheck.RLS_BYPASS,
            f"Row-level security does not bind role {role} on {_listed(bypasses)}: each is a "
            "materialized view, a foreign table, a view whose owner bypasses it, or the role can "
            "TRUNCATE it.",
        )
    elif functions:
        yield _warning(
            AuditCheck.RLS_BYPASS,
            f"These SECURITY DEFINER functions set no search_path: {_listed(functions)}.",
        )


def _listed(names: Iterable[str]) -> str:
    """Join *names* for a sentence; only the first few of very many."""
    every = sorted(set(names))
    more = len(every) - _MAX_NAMES
    return ", ".join(every[:_MAX_NAMES]) + (f" and {more} more" if more > 0 else "")


def _critical(check: AuditCheck, detail: str, cause: str = "") -> Finding:
    return Finding(check=check, severity=Severity.CRITICAL, detail=detail, cause=cause)


def _warning(check: AuditCheck, detail: str, cause: str = "") -> Finding:
    return Finding(check=check, severity=Severity.WARNING, detail=detail, cause=cause)
