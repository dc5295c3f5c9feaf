"""Postgres' descriptions of statements, kept for their next run.

A repeated statement is sent together with its parameters, which saves a round trip; the reply has a
new description. If that differs, the parameters may have been written for other types. Then the
transaction is rolled back and run again without kept descriptions, because it may change types
itself. If the statement only reads, and returned few rows last time, its lease ends in the same
round trip; if there are more rows now, it is run again too.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from sys import getsizeof
from typing import Self

from pydantic_core import to_json

from app.pools.query.pg_types import BUILT_IN, RECORDS, PgType
from app.wire.reply import Reply

# Limits of what is kept: a few megabytes in all, 40 at most; every tenant has the same limits.
_MAX_TENANTS = 500
_MAX_STATEMENTS = 16
_MAX_CHARACTERS = 2000
_MAX_COLUMNS = 30
# The limit for a statement's text and its columns: a character may take four bytes.
_MAX_BYTES = 4000


class OutdatedDescription(Exception):
    """A statement ran with an outdated description; run everything again without descriptions.

    Nothing was stored: the transaction was rolled back, or only read.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """A statement's parameters and columns.

    Attributes:
        parameters, types: the types of its parameters and of its columns.
        columns: a JSON array of the columns, each with its name and its type.
        returns_rows: whether it returns rows, even without columns.
        is_short: whether it returned so few rows that its first execution had all of them.
    """

    parameters: tuple[PgType, ...]
    types: tuple[PgType, ...]
    columns: bytes
    returns_rows: bool
    is_short: bool = False
    _source: tuple[bytes, bytes | None]

    @classmethod
    def of(cls, reply: Reply, types: Mapping[int, PgType]) -> Self:
        """Read it from the *reply* to a statement's opening.

        *types* has all types that it names.
        """
        fields = reply.fields()
        names = [{"name": each.name, "type": types[each.oid].name} for each in fields]
        return cls(
            parameters=tuple(types[oid] for oid in reply.parameters()),
            types=tuple(types[each.oid] for each in fields),
            columns=to_json(names),
            returns_rows=reply.row_description is not None,
            _source=_source_of(reply),
        )

    def is_of(self, reply: Reply) -> bool:
        """Whether the *reply* to a statement's opening has the same description."""
        return self._source == _source_of(reply)

    @property
    def size(self) -> int:
        """Its approximate size in bytes."""
        return sum(len(each or b"") for each in (self.columns, *self._source))

    @property
    def is_kept(self) -> bool:
        """Whether it is short enough to keep, and DDL cannot change the meaning of its types."""
        oids = {each.oid for each in (*self.parameters, *self.types)}
        columns = len(self.parameters) + len(self.types)
        return columns <= _MAX_COLUMNS and BUILT_IN.keys() >= oids and oids.isdisjoint(RECORDS)


def _source_of(reply: Reply) -> tuple[bytes, bytes | None]:
    return reply.parameter_description, reply.row_description


class TenantDescriptions:
    """The descriptions of the latest statements of one tenant."""

    def __init__(self) -> None:
        self._by_sql: OrderedDict[str, Description] = OrderedDict()

    def find(self, sql: str) -> Description | None:
        """The description of *sql* from its last run; None if unknown."""
        found = self._by_sql.get(sql)
        if found is not None:
            self._by_sql.move_to_end(sql)
        return found

    def keep(self, sql: str, description: Description) -> None:
        """Keep it, unless it is too long or uses types that are not built in."""
        if len(sql) > _MAX_CHARACTERS or getsizeof(sql) + description.size > _MAX_BYTES:
            return
        if description.is_kept:
            self._by_sql[sql] = description
            if len(self._by_sql) > _MAX_STATEMENTS:
                self._by_sql.popitem(last=False)

    def forget(self, sql: str) -> None:
        """Drop it, so that Postgres describes the statement the next time."""
        self._by_sql.pop(sql, None)


class Descriptions:
    """The descriptions of the tenants that ran statements last."""

    def __init__(self) -> None:
        self._of = lru_cache(_MAX_TENANTS)(lambda _: TenantDescriptions())

    def of(self, tenant: str) -> TenantDescriptions:
        """The descriptions of a tenant's statements."""
        return self._of(tenant)
