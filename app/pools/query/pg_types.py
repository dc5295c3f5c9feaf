"""Postgres types: what their values consist of, according to the server's catalogs.

They are read again for every statement with user-defined types, so that DDL takes effect at once;
built-in types never change.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from app.domain.errors import SchemaChanged, StatementFailed
from app.wire.backend_messages import column_values
from app.wire.extended_query import ExtendedQuery
from app.wire.frontend_messages import bind, close, execute, parse

Shape = Literal["scalar", "array", "composite", "range", "multirange"]

# In the text of nested composites, each level doubles the quotes.
_MAX_DEPTH = 16
# Built-in types have fixed oids below this; no other types do.
_FIRST_UNFIXED_OID = 10_000
_MAX_REPLY_BYTES = 1024 * 1024
# A longer document about types is parsed in another thread.
_MAX_INLINE = 64 * 1024
_NAME = "__poolkeeper_types"

RECORD, RECORD_ARRAY = 2249, 2287
RECORDS = frozenset({RECORD, RECORD_ARRAY})
"""Types whose values are fetched in another format than all others."""
JSON = frozenset({114, 3802})
"""json and jsonb."""
VECTORS = frozenset({22, 30})
"""int2vector and oidvector."""

# Operators, too, are looked up on the search_path.
_TYPES = """
with recursive part (oid, depth) as (
  select t.oid, 0 from pg_catalog.pg_type t
  where t.oid operator(pg_catalog.=) any ($1::pg_catalog._oid)
  union
  select inner_part.oid, part.depth operator(pg_catalog.+) 1
  from part join pg_catalog.pg_type t on t.oid operator(pg_catalog.=) part.oid
  cross join lateral (
    select t.typbasetype as oid where t.typtype operator(pg_catalog.=) 'd'
    union all
    select t.typelem where t.typelem operator(pg_catalog.<>) 0
    union all
    select r.rngsubtype from pg_catalog.pg_range r where r.rngtypid operator(pg_catalog.=) t.oid
    union all
    select r.rngtypid from pg_catalog.pg_range r
    where r.rngmultitypid operator(pg_catalog.=) t.oid
    union all
    select a.atttypid from pg_catalog.pg_attribute a
    where t.typtype operator(pg_catalog.=) 'c' and a.attrelid operator(pg_catalog.=) t.typrelid
      and a.attnum operator(pg_catalog.>) 0 and not a.attisdropped
  ) inner_part
  where part.depth operator(pg_catalog.<) $2::pg_catalog.int4
)
select pg_catalog.json_agg(pg_catalog.json_build_array(
  t.oid::pg_catalog.int8, t.typname, t.typtype, t.typcategory, t.typdelim,
  t.typbasetype::pg_catalog.int8,
  case when t.typinput operator(pg_catalog.=) 'pg_catalog.array_in'::pg_catalog.regproc
    then t.typelem::pg_catalog.int8 else 0 end,
  coalesce((select r.rngsubtype::pg_catalog.int8 from pg_catalog.pg_range r
    where r.rngtypid operator(pg_catalog.=) t.oid), 0),
  coalesce((select r.rngtypid::pg_catalog.int8 from pg_catalog.pg_range r
    where r.rngmultitypid operator(pg_catalog.=) t.oid), 0),
  (select pg_catalog.json_agg(
      pg_catalog.json_build_array(a.attname, a.atttypid::pg_catalog.int8) order by a.attnum)
    from pg_catalog.pg_attribute a
    where t.typtype operator(pg_catalog.=) 'c' and a.attrelid operator(pg_catalog.=) t.typrelid
      and a.attnum operator(pg_catalog.>) 0 and not a.attisdropped)
)) from pg_catalog.pg_type t
where t.oid operator(pg_catalog.=) any (select part.oid from part)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PgType:
    """A type; a domain appears as its base type with the domain's name.

    Attributes:
        name: as results name it: `int4`, `int4[]`.
        category: pg_type.typcategory; N is numbers, B booleans.
        delimiter: separates the elements of an array of this type.
        element: the element type of an array or range; the range type of a multirange.
        attributes: the attributes of a composite.
        levels: number of types nested in it.
    """

    oid: int
    name: str
    shape: Shape = "scalar"
    category: str = "U"
    delimiter: str = ","
    element: PgType | None = None
    attributes: tuple[tuple[str, PgType], ...] = ()
    nesting: int = 0


BUILT_IN: dict[int, PgType] = {}
"""Known types that are the same on every server."""


async def look_up_types(query: ExtendedQuery, oids: Iterable[int]) -> Mapping[int, PgType]:
    """Look up the types with these *oids*; one round trip unless all are known built-in types.

    Raises:
        StatementFailed: a type is nested too deeply, or there are too many.
        SchemaChanged: a type was dropped in the meantime.
        ServerError, OSError: from the query.
    """
    wanted = set(oids)
    unknown = wanted - BUILT_IN.keys()
    if not unknown:
        return BUILT_IN
    listed = "{" + ",".join(map(str, sorted(unknown))) + "}"
    reply = await query.exchange(
        # A failed lookup may have left it.
        close(_NAME),
        parse(_TYPES, name=_NAME),
        bind([listed.encode(), str(_MAX_DEPTH + 8).encode()], name=_NAME),
        execute(),
        close(_NAME),
        max_row_bytes=_MAX_REPLY_BYTES,
    )
    if reply.is_truncated:
        raise StatementFailed("The types of the statement are too large.", sqlstate="54000")
    [document] = column_values(reply.rows[0])
    # In a SQL_ASCII database, names may be in any encoding.
    text = (document or b"[]").decode(errors="replace")
    if len(text) > _MAX_INLINE:
        found = await asyncio.to_thread(_types_of, text, unknown)
    else:
        found = _types_of(text, unknown)
    BUILT_IN.update((oid, kind) for oid, kind in found.items() if _is_fixed(kind, oid))
    return {**BUILT_IN, **found}


def _is_fixed(kind: PgType, oid: int) -> bool:
    """Whether it is the same on every server; rows of the catalogs differ between versions."""
    part = kind.element or kind
    return oid < _FIRST_UNFIXED_OID and part.shape != "composite"


def _types_of(document: str, oids: Iterable[int]) -> dict[int, PgType]:
    rows = {row[0]: row for row in json.loads(document)}
    # Each is built once, because any number of types may contain it.
    built: dict[int, PgType] = {}
    return {oid: _build(rows, oid, built, 0) for oid in oids}


def _build(rows: Mapping[int, list[Any]], oid: int, built: dict[int, PgType], depth: int) -> PgType:
    if oid not in built:
        if oid not in rows:
            raise SchemaChanged
        kind = _from_row(rows, oid, built, depth) if depth <= _MAX_DEPTH else None
        if kind is None or kind.nesting > _MAX_DEPTH:
            raise StatementFailed(
                f"Type {rows[oid][1]} is nested more than {_MAX_DEPTH} levels deep; "
                "cast it to text or json.",
                sqlstate="54001",
            )
        built[oid] = kind
    return built[oid]


def _from_row(
    rows: Mapping[int, list[Any]], oid: int, built: dict[int, PgType], depth: int
) -> PgType:
    _, name, kind, category, delimiter, base, element, subtype, ranges, attributes = rows[oid]
    if kind == "d":
        based = _build(rows, base, built, depth + 1)
        return replace(based, name=name, nesting=based.nesting + 1)
    shape: Shape = "scalar"
    inner = element or subtype or ranges
    if inner:
        shape = "array" if element else "range" if subtype else "multirange"
    elif kind == "c":
        shape = "composite"
    part = _build(rows, inner, built, depth + 1) if inner else None
    parts = [(each, _build(rows, of, built, depth + 1)) for each, of in attributes or ()]
    inside = [each.nesting for _, each in parts] + ([part.nesting] if part else [])
    return PgType(
        oid=oid,
        name=f"{part.name}[]" if element and part else name,
        shape=shape,
        category=category,
        delimiter=delimiter,
        element=part,
        attributes=tuple(parts),
        nesting=1 + max(inside) if inside else 0,
    )
