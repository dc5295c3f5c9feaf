"""What a strategy promises, and what a look at Postgres found against that promise.

Values only: the look is `app.pools.isolation.inspection`'s, the judgement `verdict.py`'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from app.domain.tenant import PoolStrategy


class Assurance(StrEnum):
    """What a tenant's isolation holds against."""

    TRUSTED_SQL = "trusted_sql"
    """A forgotten WHERE in SQL written by people we trust; not hostile SQL."""

    ROLE = "role"
    """Hostile SQL: Postgres itself keeps the tenant's own login role in its schema."""

    DATABASE = "database"
    """Hostile SQL, and nothing but names of databases and roles is shared with others."""


class Severity(StrEnum):
    """How bad a finding is."""

    WARNING = "warning"
    """The promise holds, but something that should stand before it is missing or was undone."""

    CRITICAL = "critical"
    """The promise does not hold as long as this is so."""

    NOT_CHECKED = "not_checked"
    """It could not be looked at: whether the promise holds is unknown."""


class AuditCheck(StrEnum):
    """What is looked at; the detail of a finding says what was wrong and what mends it."""

    ROLE = "role"
    ROLE_ATTRIBUTES = "powers"
    MEMBERSHIPS = "memberships"
    OWNERSHIP = "ownership"
    SETTINGS = "settings"
    OTHER_DATABASES = "other_databases"
    CONNECTION_LIMIT = "connection_limit"
    CLOSED_TO_OTHERS = "closed_to_others"
    PUBLIC_SCHEMA = "public_schema"
    TEMPORARY_TABLES = "temporary_tables"
    ROW_SECURITY = "row_security"
    RLS_BYPASS = "bypasses"
    EXTENSION_SCHEMAS = "extension_schemas"


_OF_ALL = (
    AuditCheck.ROLE,
    AuditCheck.ROLE_ATTRIBUTES,
    AuditCheck.MEMBERSHIPS,
    AuditCheck.OWNERSHIP,
    AuditCheck.SETTINGS,
    AuditCheck.OTHER_DATABASES,
)
_CHECKS = {
    PoolStrategy.SHARED: (
        *_OF_ALL,
        AuditCheck.PUBLIC_SCHEMA,
        AuditCheck.TEMPORARY_TABLES,
        AuditCheck.ROW_SECURITY,
        AuditCheck.RLS_BYPASS,
    ),
    PoolStrategy.PER_TENANT: (
        *_OF_ALL,
        AuditCheck.CONNECTION_LIMIT,
        AuditCheck.CLOSED_TO_OTHERS,
        AuditCheck.PUBLIC_SCHEMA,
        AuditCheck.EXTENSION_SCHEMAS,
    ),
    PoolStrategy.PER_DATABASE: (*_OF_ALL, AuditCheck.CONNECTION_LIMIT, AuditCheck.CLOSED_TO_OTHERS),
}
_ASSURANCES = {
    PoolStrategy.SHARED: Assurance.TRUSTED_SQL,
    PoolStrategy.PER_TENANT: Assurance.ROLE,
    PoolStrategy.PER_DATABASE: Assurance.DATABASE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One check that failed."""

    check: AuditCheck
    severity: Severity
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IsolationReport:
    """What the last look at a tenant's isolation found; every check not named passed.

    Attributes:
        findings: what failed or could not be checked.
        checked_at: when that was.
        looked_at: the same in monotonic seconds.
    """

    findings: tuple[Finding, ...]
    checked_at: datetime
    checked_at_monotonic: float


def assurance_of(strategy: PoolStrategy) -> Assurance:
    """What *strategy* holds against."""
    return _ASSURANCES[strategy]


def checks_of(strategy: PoolStrategy) -> tuple[AuditCheck, ...]:
    """Everything that is looked at under *strategy*."""
    return _CHECKS[strategy]
