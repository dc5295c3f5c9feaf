"""The facts that the isolation audit reads from Postgres: about roles, tables and grants."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleFacts:
    """A tenant's login role and the schema or database of the same name.

    Attributes:
        is_ours: whether the service has its rights; else it cannot change what it owns, and can
            end its sessions only as a member of pg_signal_backend.
        attributes: attributes it has that no tenant may have, as Postgres names them.
        memberships: roles it can act as, directly or indirectly.
        privileged_memberships: the memberships in roles with forbidden attributes and in Postgres'
            predefined roles.
        settings: session settings of the role that Poolkeeper did not set.
        databases: databases it can connect to, without those that tenants own: a grant by an owner
            is that owner's finding.
        connection_limit: -1 for none.
        owner: the owner of its schema or database; None if that does not exist.
        grantees: who else can use that schema or database; "PUBLIC" is everyone.
        owned_objects: how many objects it owns.
        public_can_create: whether everyone can create objects in the schema public of its database.
        password_version: the version of its password; None if the role does not show it.
        password_key: the fingerprint of the secret key that it was derived from; likewise.
        shared_in: the database whose shared tenants it serves; None if the role does not show it.
        tenant_uid: the uid of the tenant that it was provisioned for; None if it does not show it.
        missing_schemas, unusable_schemas, writable_schemas: schemas for extensions that do not
            exist, that it cannot use, or that it can create objects in.
    """

    can_login: bool
    is_ours: bool
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
    password_version: int | None = None
    password_key: str | None = None
    shared_in: str | None = None
    tenant_uid: str | None = None
    missing_schemas: tuple[str, ...] = ()
    unusable_schemas: tuple[str, ...] = ()
    writable_schemas: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RelationFacts:
    """A table or view with rows of several tenants that the shared role can use.

    Attributes:
        kind: as in pg_class: r and p for tables, f foreign tables, m materialized views, v views.
        rls_enabled, rls_forced: whether row-level security is on, and on for the owner too.
        unfiltered_policies: permissive policies that do not check app.tenant_id.
        can_truncate: whether the shared role may empty it.
        bypasses_rls: it is a view that reads as an owner to whom no policy applies.
    """

    name: str
    kind: str
    rls_enabled: bool
    rls_forced: bool
    unfiltered_policies: tuple[str, ...]
    can_truncate: bool
    bypasses_rls: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ExcessGrant:
    """A tenant's schema or database, named after its owner, that others can use."""

    kind: str
    """`DATABASE` or `SCHEMA`."""
    name: str
    grantees: Sequence[str]
    """Roles of other tenants, and `PUBLIC`."""
