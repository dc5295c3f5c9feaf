"""From facts about a tenant's role to findings: what breaks its strategy's promise, and how badly.

Pure: the same facts always give the same findings.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from app.domain.isolation import Check, Finding, Severity, checks_of
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
    closed: tuple[str, ...] = ()
    open: tuple[str, ...] = ()


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
    powers: tuple[str, ...]
    granted: tuple[str, ...]
    mighty: tuple[str, ...]
    settings: tuple[str, ...]
    databases: tuple[str, ...]
    connection_limit: int
    owner: str | None
    open_to: tuple[str, ...]
    owns: int
    may_create_temporary: bool
    public_may_create: bool
    extensions: ExtensionSchemas = _NO_SCHEMAS


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
class SharedFacts:
    """What the shared role can reach: relations of tenants, and functions that change roles."""

    relations: tuple[RelationFacts, ...] = ()
    definers: tuple[str, ...] = ()


def judge(
    strategy: PoolStrategy,
    role: str,
    facts: RoleFacts | None,
    *,
    home: str,
    connection_limit: int,
    shared: SharedFacts | None = None,
    unchecked: Mapping[Check, str] = MappingProxyType({}),
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
    shared: SharedFacts | None,
) -> Iterable[Finding]:
    if facts is None:
        return (_critical(Check.ROLE, f"The role {role} does not exist; provision the tenant."),)
    found = [*_of_role(role, facts), *_of_databases(facts, home)]
    if strategy is PoolStrategy.SHARED:
        found += _of_shared(role, facts, home)
        found += _of_reach(shared or SharedFacts())
    else:
        found += _of_own(role, facts, connection_limit)
        found += _of_extensions(role, facts.extensions)
    if strategy is not PoolStrategy.PER_DATABASE and facts.public_may_create:
        found.append(
            _critical(
                Check.PUBLIC_SCHEMA,
                "Everybody may create objects in the schema public, where others may call them; "
                "REVOKE CREATE ON SCHEMA public FROM PUBLIC.",
            )
        )
    return tuple(found)


def _of_role(role: str, facts: RoleFacts) -> Iterator[Finding]:
    if not facts.can_login:
        yield _warning(Check.ROLE, f"The role {role} may not log in; provision the tenant.")
    if facts.powers:
        yield _critical(Check.POWERS, f"The role {role} has {', '.join(facts.powers)}.")
    others = [name for name in facts.granted if name.startswith(OBJECT_PREFIX)]
    if facts.mighty or others:
        names = _listed([*facts.mighty, *others])
        yield _critical(Check.MEMBERSHIPS, f"The role {role} can act as {names}.")
    elif facts.granted:
        yield _warning(
            Check.MEMBERSHIPS,
            f"The role {role} is a member of {_listed(facts.granted)}, whose privileges it has.",
        )
    if facts.settings:
        yield _warning(
            Check.SETTINGS,
            f"Somebody set {_listed(facts.settings)} for all sessions of the role {role}; "
            "it is undone.",
        )


def _of_databases(facts: RoleFacts, home: str) -> Iterator[Finding]:
    others = [name for name in facts.databases if name != home]
    if others:
        severity = Severity.WARNING if _MAINTENANCE.issuperset(others) else Severity.CRITICAL
        yield Finding(
            check=Check.OTHER_DATABASES,
            severity=severity,
            detail=f"It may connect to {_listed(others)} as well; "
            "REVOKE CONNECT, TEMPORARY ON DATABASE … FROM PUBLIC.",
        )


def _of_own(role: str, facts: RoleFacts, connection_limit: int) -> Iterator[Finding]:
    if facts.owner != role:
        owner = f"belongs to {facts.owner}" if facts.owner else "does not exist"
        yield _critical(Check.OWNERSHIP, f"What is named {role} {owner}; provision the tenant.")
    if "PUBLIC" in facts.open_to:
        yield _critical(Check.CLOSED_TO_OTHERS, f"Everybody may enter {role}; it is closed again.")
    elif facts.open_to:
        yield _warning(Check.CLOSED_TO_OTHERS, f"{_listed(facts.open_to)} may enter {role}.")
    if facts.connection_limit != connection_limit:
        yield _warning(
            Check.CONNECTION_LIMIT,
            f"The role's connection limit was {facts.connection_limit} "
            f"and is set to {connection_limit}.",
        )


def _of_extensions(role: str, schemas: ExtensionSchemas) -> Iterator[Finding]:
    if schemas.open:
        names = _listed(schemas.open)
        yield _critical(
            Check.EXTENSION_SCHEMAS,
            f"The role {role} may create objects in {names}, where others use them; "
            f"REVOKE CREATE ON SCHEMA {names} FROM PUBLIC, {role}.",
        )
    if schemas.missing:
        names = _listed(schemas.missing)
        yield _warning(
            Check.EXTENSION_SCHEMAS, f"The schema {names} does not exist; CREATE SCHEMA {names}."
        )
    if schemas.closed:
        names = _listed(schemas.closed)
        yield _warning(
            Check.EXTENSION_SCHEMAS, f"The role {role} lacked USAGE on {names}; it is granted."
        )


def _of_shared(role: str, facts: RoleFacts, home: str) -> Iterator[Finding]:
    if facts.owns:
        yield _critical(
            Check.OWNERSHIP,
            f"The role {role} owns {facts.owns} objects, and no policy binds an owner for good; "
            f"REASSIGN OWNED BY {role} TO another role.",
        )
    if facts.may_create_temporary:
        yield _critical(
            Check.TEMPORARY_TABLES,
            "A temporary table can stand before a real one of the same name; "
            f"REVOKE TEMPORARY ON DATABASE {home} FROM PUBLIC, {role}.",
        )


def _of_reach(shared: SharedFacts) -> Iterator[Finding]:
    unprotected = [
        each.name for each in shared.relations if each.kind in "rp" and not _is_protected(each)
    ]
    if unprotected:
        yield _critical(
            Check.ROW_SECURITY,
            f"Row-level security is not enabled and forced on {_listed(unprotected)}; "
            "`poolkeeper rls-sql` writes the SQL.",
        )
    loose = [
        f"{policy} on {each.name}" for each in shared.relations for policy in each.loose_policies
    ]
    if loose and not unprotected:
        yield _warning(
            Check.ROW_SECURITY, f"These policies do not ask for app.tenant_id: {_listed(loose)}."
        )
    bypasses = [each.name for each in shared.relations if _bypasses(each)]
    if bypasses:
        yield _critical(
            Check.BYPASSES,
            f"No policy holds for what the shared role may do with {_listed(bypasses)}: "
            "a view of a mighty owner, a materialized view, a foreign table, or TRUNCATE.",
        )
    elif shared.definers:
        yield _warning(
            Check.BYPASSES,
            "These functions run with their owner's rights and their caller's search_path: "
            f"{_listed(shared.definers)}.",
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


def _critical(check: Check, detail: str) -> Finding:
    return Finding(check=check, severity=Severity.CRITICAL, detail=detail)


def _warning(check: Check, detail: str) -> Finding:
    return Finding(check=check, severity=Severity.WARNING, detail=detail)
