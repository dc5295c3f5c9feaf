"""The statements of a request: their limits, and how they run in one transaction of a tenant.

A megabyte of JSON has room for half a million parameters, or a hundred thousand statements. They
are not checked one by one, which would block all callers for a second.
"""

from collections.abc import Sequence
from time import monotonic
from typing import Annotated, TypeVar

from fastapi import Request
from pydantic import Field, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import PydanticCustomError

from app.api.http.disconnect import CancelOnDisconnect
from app.api.http.field_types import JsonValue, Text, check_json, counted_first
from app.domain.isolation_level import IsolationLevel
from app.domain.tenant import TenantId
from app.pools.manager import TenantPoolManager
from app.pools.query.runner import Query
from app.pools.query.statement import Result, Statement

# The most statements in a request, and the most parameters of a statement.
_MOST = 1000

T = TypeVar("T")


def _check_at_once(values: object, check_each: ValidatorFunctionWrapHandler) -> object:
    """Check all parameters together; check each one only to report which is refused."""
    if isinstance(values, list):
        try:
            return check_json(values)
        except PydanticCustomError:
            pass
    return check_each(values)


# In the document, their limit would only make generated tests send megabytes.
Statements = Annotated[list[T], Field(min_length=1, fail_fast=True), counted_first(_MOST)]
SqlText = Annotated[Text, Field(max_length=100_000)]
Params = Annotated[
    list[JsonValue],
    Field(max_length=_MOST, fail_fast=True),
    WrapValidator(_check_at_once),
    counted_first(_MOST),
]


async def run_statements(
    request: Request,
    manager: TenantPoolManager,
    tenant: TenantId,
    statements: Sequence[Statement[Result]],
    *,
    timeout: float,
    read_only: bool,
    isolation_level: IsolationLevel | None = None,
    deferrable: bool = False,
) -> tuple[list[Result], float]:
    """Run *statements* within *timeout* seconds; return their results, and the seconds used.

    If the client disconnects, they are cancelled, unless the commit has begun.

    Raises:
        PoolkeeperError: from the lease or the query.
        ClientDisconnected
    """
    query = Query(statements, timeout=timeout)
    lease = manager.lease(
        tenant,
        read_only=read_only,
        isolation_level=isolation_level,
        deferrable=deferrable,
        statement_timeout=timeout,
        work=query,
        statement=statements[0].sql,
    )
    async with CancelOnDisconnect(request) as client, lease as connection:
        began = monotonic()
        results = await query.run(connection)
        took = monotonic() - began
        client.run_to_the_end()
    return results, took
