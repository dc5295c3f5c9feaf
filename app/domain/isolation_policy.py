"""From facts about a tenant's role to findings: what breaks its strategy's promise, and how badly.

Pure: the same facts always give the same findings.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from app.domain.isolation import AuditCheck, Finding, Severity, checks_of
from app.domain.tenant import OBJECT_PREFIX, PoolStrategy

# Every cluster has them, and they hold no data unless somebody put some there.
_MAINTENANCE = frozenset({"postgres", "template1"})
_MOST_NAMES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtensionSchemas:
    """Which of the schemas for extensions are not as a role needs them.

    Attributes:
        missing: those that do not exist.
        closed: those that the role may not use.
        open: those that it may create objects in.
    """

    missing: tuple[str, ...] = ()
    not_usable: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()


_NO_SCHEMAS = ExtensionSchemas()


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleFacts:
    """What Postgres says of a tenant's login role and of what it lives in.

    Attributes:
        can_login: whether it may log in.
        powers: its attributes that no tenant may have, as Postgres names them.
        granted: roles it can act as, however indirectly.
        mighty: those of them with such attributes, and Postgres' own.
        settings: what is set for its sessions beside what Poolkeeper sets.
        databases: databases it may connect to, less those that tenants own: what an owner opens
            is the owner's fault.
        connection_limit: most connections it may have, -1 for no limit.
        owner: who owns its schema or database; None if there is none.
        open_to: who else may enter that schema or database; "PUBLIC" is everybody.
        owns: how many objects it owns.
        may_create_temporary: whether it may create temporary tables.
        public_may_create: whether everybody may create objects in the schema public it sees.
        extensions: what it may do with the schemas for extensions.
    """

    can_login: bool
    attributes: tuple[str, ...]
    memberships: tuple[str, ...]
    privileged_memberships: tuple[str, ...]
    settings: tuple[str, ...]
    databases: tuple[str, ...]
    connection_limit: int
    owner: str | None
    grantees: tuple[str, ...]
    owned_objects: int
    can_create_temporary: bool
    public_can_create: bool
    extension_schemas: ExtensionSchemas = _NO_SCHEMAS


@dataclass(frozen=True, slots=True, kw_only=True)
class RelationFacts:
    """A table or view within the shared role's reach that holds rows of several tenants.

    Attributes:
        name: with its schema.
        kind: as in pg_class: r and p tables, f foreign ones, m materialized views, v views.
        enabled, forced: its row-level security, and that also for its owner.
        loose_policies: policies that let rows pass without asking whose they are.
        may_truncate: whether the shared role may empty it.
        bypassing: a view that reads with the rights of an owner whom no policy binds.
    """

    name: str
    kind: str
    enabled: bool
    forced: bool
    loose_policies: tuple[str, ...]
    may_truncate: bool
    bypassing: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedRoleReach:
    """What the shared role can reach: relations of tenants, and functions that change roles."""

    relations: tuple[RelationFacts, ...] = ()
    security_definer_functions: tuple[str, ...] = ()


def find_violations(
    strategy: PoolStrategy,
    role: str,
    facts: RoleFacts | None,
    *,
    home: str,
    connection_limit: int,
    shared: SharedRoleReach | None = None,
    unchecked: Mapping[AuditCheck, str] = MappingProxyType({}),
) -> tuple[Finding, ...]:
    """What breaks the promise of *strategy* to the tenant that logs in as *role*.

    Args:
        strategy: how the tenant is isolated.
        role: its login role.
        facts: what Postgres says of the role; None if it does not exist.
        home: the database it works in.
        connection_limit: what the role's limit should be, -1 for none.
        shared: what the shared role can reach, for tenants that use it.
        unchecked: what could not be looked at, and why.
    """
    checked = [
        finding
        for finding in _judge(
            strategy, role, facts, home=home, connection_limit=connection_limit, shared=shared
        )
        if finding.check not in unchecked
    ]
    return (
        *checked,
        *(
            Finding(check=check, severity=Severity.NOT_CHECKED, detail=f"Not checked: {reason}")
            for check, reason in unchecked.items()
            if check in checks_of(strategy)
        ),
    )


def _judge(
    strategy: PoolStrategy,
    role: str,
    facts: RoleFacts | None,
    *,
    home: str,
    connection_limit: int,
    shared: SharedRoleReach | None,
) -> Iterable[Finding]:
    if facts is None:
        return (
            _critical(AuditCheck.ROLE, f"The role {role} does not exist; provision the tenant."),
        )
    found = [*_of_role(role, facts), *_of_databases(facts, home)]
    if strategy is PoolStrategy.SHARED:
        found += _of_shared(role, facts, home)
        found += _of_reach(shared or SharedRoleReach())
    else:
        found += _of_own(role, facts, connection_limit)
        found += _of_extensions(role, facts.extension_schemas)
    if strategy is not PoolStrategy.PER_DATABASE and facts.public_can_create:
        found.append(
            _critical(
                AuditCheck.PUBLIC_SCHEMA,
                "Everybody may create objects in the schema public, where others may call them; "
                "REVOKE CREATE ON SCHEMA public FROM PUBLIC.",
            )
        )
    return tuple(found)


def _of_role(role: str, facts: RoleFacts) -> Iterator[Finding]:
    if not facts.can_login:
        yield _warning(AuditCheck.ROLE, f"The role {role} may not log in; provision the tenant.")
    if facts.attributes:
        yield _critical(
            AuditCheck.ROLE_ATTRIBUTES, f"The role {role} has {', '.join(facts.attributes)}."
        )
    others = [name for name in facts.memberships if name.startswith(OBJECT_PREFIX)]
    if facts.privileged_memberships or others:
        names = _listed([*facts.privileged_memberships, *others])
        yield _critical(AuditCheck.MEMBERSHIPS, f"The role {role} can act as {names}.")
    elif facts.memberships:
        yield _warning(
            AuditCheck.MEMBERSHIPS,
            f"The role {role} is a member of {_listed(facts.memberships)}, whose "
            "privileges it has.",
        )
    if facts.settings:
        yield _warning(
            AuditCheck.SETTINGS,
            f"Somebody set {_listed(facts.settings)} for all sessions of the role {role}; "
            "it is undone.",
        )


def _of_databases(facts: RoleFacts, home: str) -> Iterator[Finding]:
    others = [name for name in facts.databases if name != home]
    if others:
        severity = Severity.WARNING if _MAINTENANCE.issuperset(others) else Severity.CRITICAL
        yield Finding(
            check=AuditCheck.OTHER_DATABASES,
            severity=severity,
            detail=f"It may connect to {_listed(others)} as well; "
            "REVOKE CONNECT, TEMPORARY ON DATABASE … FROM PUBLIC.",
        )


def _of_own(role: str, facts: RoleFacts, connection_limit: int) -> Iterator[Finding]:
    if facts.owner != role:
        owner = f"belongs to {facts.owner}" if facts.owner else "does not exist"
        yield _critical(
            AuditCheck.OWNERSHIP, f"What is named {role} {owner}; provision the tenant."
        )
    if "PUBLIC" in facts.grantees:
        yield _critical(
            AuditCheck.CLOSED_TO_OTHERS, f"Everybody may enter {role}; it is closed again."
        )
    elif facts.grantees:
        yield _warning(AuditCheck.CLOSED_TO_OTHERS, f"{_listed(facts.grantees)} may enter {role}.")
    if facts.connection_limit != connection_limit:
        yield _warning(
            AuditCheck.CONNECTION_LIMIT,
            f"The role's connection limit was {facts.connection_limit} "
            f"and is set to {connection_limit}.",
        )


def _of_extensions(role: str, schemas: ExtensionSchemas) -> Iterator[Finding]:
    if schemas.writable:
        names = _listed(schemas.writable)
        yield _critical(
            AuditCheck.EXTENSION_SCHEMAS,
            f"The role {role} may create objects in {names}, where others use them; "
            f"REVOKE CREATE ON SCHEMA {names} FROM PUBLIC, {role}.",
        )
    if schemas.missing:
        names = _listed(schemas.missing)
        yield _warning(
            AuditCheck.EXTENSION_SCHEMAS,
            f"The schema {names} does not exist; CREATE SCHEMA {names}.",
        )
    if schemas.not_usable:
        names = _listed(schemas.not_usable)
        yield _warning(
            AuditCheck.EXTENSION_SCHEMAS, f"The role {role} lacked USAGE on {names}; it is granted."
        )


def _of_shared(role: str, facts: RoleFacts, home: str) -> Iterator[Finding]:
    if facts.owned_objects:
        yield _critical(
            AuditCheck.OWNERSHIP,
            f"The role {role} owns {facts.owned_objects} objects, and no policy binds an owner for "
            f"good; REASSIGN OWNED BY {role} TO another role.",
        )
    if facts.can_create_temporary:
        yield _critical(
            AuditCheck.TEMPORARY_TABLES,
            "A temporary table can stand before a real one of the same name; "
            f"REVOKE TEMPORARY ON DATABASE {home} FROM PUBLIC, {role}.",
        )


def _of_reach(shared: SharedRoleReach) -> Iterator[Finding]:
    unprotected = [
        each.name for each in shared.relations if each.kind in "rp" and not _is_protected(each)
    ]
    if unprotected:
        yield _critical(
            AuditCheck.ROW_SECURITY,
            f"Row-level security is not enabled and forced on {_listed(unprotected)}; "
            "`poolkeeper rls-sql` writes the SQL.",
        )
    loose = [
        f"{policy} on {each.name}" for each in shared.relations for policy in each.loose_policies
    ]
    if loose and not unprotected:
        yield _warning(
            AuditCheck.ROW_SECURITY,
            f"These policies do not ask for app.tenant_id: {_listed(loose)}.",
        )
    bypasses = [each.name for each in shared.relations if _bypasses(each)]
    if bypasses:
        yield _critical(
            AuditCheck.RLS_BYPASS,
            f"No policy holds for what the shared role may do with {_listed(bypasses)}: "
            "a view of a mighty owner, a materialized view, a foreign table, or TRUNCATE.",
        )
    elif shared.security_definer_functions:
        yield _warning(
            AuditCheck.RLS_BYPASS,
            "These functions run with their owner's rights and their caller's search_path: "
            f"{_listed(shared.security_definer_functions)}.",
        )


def _is_protected(relation: RelationFacts) -> bool:
    return relation.enabled and relation.forced


def _bypasses(relation: RelationFacts) -> bool:
    return relation.kind in "fm" or relation.may_truncate or relation.bypassing


def _listed(names: Iterable[str]) -> str:
    """*names* for a sentence; of very many, the first few."""
    every: Sequence[str] = sorted(set(names))
    more = len(every) - _MOST_NAMES
    return ", ".join(every[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def _critical(check: AuditCheck, detail: str) -> Finding:
    return Finding(check=check, severity=Severity.CRITICAL, detail=detail)


def _warning(check: AuditCheck, detail: str) -> Finding:
    return Finding(check=check, severity=Severity.WARNING, detail=detail)
