"""What a team would write itself: FastAPI and `asyncpg.Pool`, one statement as a tenant."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from fastapi import FastAPI
from pydantic import BaseModel


class Statement(BaseModel):
    """One statement and its parameters."""

    sql: str
    params: list[Any] = []


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    # asyncpg reads PGHOST, PGPORT, PGUSER, PGPASSWORD and PGDATABASE.
    async with asyncpg.create_pool(min_size=10, max_size=20) as app.state.pool:
        yield


app = FastAPI(lifespan=_lifespan)


@app.post("/tenants/{tenant}/query")
async def query(tenant: str, statement: Statement) -> dict[str, Any]:
    """Run it in the tenant's context."""
    async with app.state.pool.acquire() as connection, connection.transaction(readonly=True):
        await connection.execute("select set_config('app.tenant_id', $1, true)", tenant)
        rows = await connection.fetch(statement.sql, *statement.params)
    return {
        "columns": list(rows[0].keys()) if rows else [],
        "rows": [list(row.values()) for row in rows],
    }


@app.get("/bare")
async def bare() -> dict[str, str]:
    """As little as a route can do."""
    return {"status": "ok"}
