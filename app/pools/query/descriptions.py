"""How Postgres described a statement: so much is known before it runs again.

A statement that runs again is sent together with its parameters, which saves a round trip; Postgres
describes it anew on the way. If the description is another one by then, the parameters may have
been written for other types: then the transaction is rolled back and run again without what is
known, for it may change types itself. If the statement only reads, and returned few rows the last
time, its lease ends in the same round trip; should there be more rows now, it is run again too.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from sys import getsizeof

from pydantic_core import to_json

from app.pools.query.pg_types import RECORD, RECORD_ARRAY, PgType, are_built_in
from app.wire.reply import Reply

# So much is kept: some megabytes, 40 at most, and of one tenant not more than of any other.
_MAX_TENANTS = 500
_MAX_STATEMENTS = 16
_MAX_CHARACTERS = 2000
_MAX_COLUMNS = 30
# Of a statement's text and what is kept of its columns: a character may take four.
_MAX_BYTES = 4000
# Their values are fetched in another format than all others.
_RECORDS = frozenset({RECORD, RECORD_ARRAY})


class OutdatedDescription(Exception):
    """A statement ran by a description that holds no more; run all again without any.

    Nothing was stored: it was rolled back, or could only read.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """A statement's parameters and columns.

    Attributes:
        parameters, types: the types of its parameters and of its columns.
        columns: a JSON array of the columns, each with its name and its type.
        returns_rows: whether it does, be it of no column.
        is_short: whether it returned so few that its first execution had all of them.
    """

    parameters: tuple[PgType, ...]
    types: tuple[PgType, ...]
    columns: bytes
    returns_rows: bool
    is_short: bool = False
    _source: tuple[bytes, bytes | None]

    @classmethod
    def of(cls, reply: Reply, types: Mapping[int, PgType]) -> Description:
        """What the *reply* to a statement's opening says; *types* are all that it names."""
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
        """Whether the *reply* to a statement's opening says the same."""
        return self._source == _source_of(reply)

    @property
    def size(self) -> int:
        """Its bytes, about."""
        return sum(len(each or b"") for each in (self.columns, *self._source))

    @property
    def is_kept(self) -> bool:
        """Whether it is short, and no DDL changes its types' meaning."""
        oids = {each.oid for each in (*self.parameters, *self.types)}
        columns = len(self.parameters) + len(self.types)
        return columns <= _MAX_COLUMNS and are_built_in(oids) and oids.isdisjoint(_RECORDS)


def _source_of(reply: Reply) -> tuple[bytes, bytes | None]:
    return reply.parameter_description, reply.row_description


class TenantDescriptions:
    """Of the statements that one tenant ran last."""

    def __init__(self) -> None:
        self._by_sql: OrderedDict[str, Description] = OrderedDict()

    def find(self, sql: str) -> Description | None:
        """What *sql* was described as when it ran last, if that is known."""
        found = self._by_sql.get(sql)
        if found is not None:
            self._by_sql.move_to_end(sql)
        return found

    def keep(self, sql: str, description: Description) -> None:
        """Remember it, unless it is too long or not built of built-in types."""
        if len(sql) > _MAX_CHARACTERS or getsizeof(sql) + description.size > _MAX_BYTES:
            return
        if description.is_kept:
            self._by_sql[sql] = description
            if len(self._by_sql) > _MAX_STATEMENTS:
                self._by_sql.popitem(last=False)

    def forget(self, sql: str) -> None:
        """Ask Postgres again the next time."""
        self._by_sql.pop(sql, None)


class Descriptions:
    """Of the tenants that ran statements last."""

    def __init__(self) -> None:
        self._by_tenant: OrderedDict[str, TenantDescriptions] = OrderedDict()

    def of(self, tenant: str) -> TenantDescriptions:
        """Those of a tenant's statements."""
        found = self._by_tenant.get(tenant)
        if found is not None:
            self._by_tenant.move_to_end(tenant)
            return found
        if len(self._by_tenant) >= _MAX_TENANTS:
            self._by_tenant.popitem(last=False)
        made = self._by_tenant[tenant] = TenantDescriptions()
        return made
