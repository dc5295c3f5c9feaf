"""A day of a tenant's past, with a thousand tenants' samples in the catalog.

`python -m benchmarks.history` fills a catalog as a service leaves it whose tenants were all busy
at every poll: two hours of polls, a day of minutes and of hours. A table for people, the plan of
the query, then one line of JSON. Nothing asserts a time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import random
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter

import asyncpg
import httpx
import structlog

from app.catalog.samples import Samples
from app.domain.history import Resolution
from app.main import create_app
from app.runtime.gc_tuning import tuned_gc
from app.settings import Settings
from benchmarks.figure import Figure, quantile
from benchmarks.testbed import Testbed, testbed

_ASKED = 60
_DAY = timedelta(days=1)
_MINUTE = timedelta(minutes=1)
# Resolution, table, its column of its own with a value, rows a day while busy, and time filled;
# coarse ones first, or the service would begin to roll up.
_TABLES = (
    (Resolution.HOUR, "samples_by_hour", "waiting_requests_max", "2", 24, _DAY),
    (Resolution.MINUTE, "samples_by_minute", "waiting_requests_max", "2", 1440, _DAY),
    (Resolution.RAW, "samples", "gap_seconds", "0", 17_280, timedelta(hours=2)),
)
_FILL = """
INSERT INTO {table} (
    subject, at, acquired, timeouts, polls, total_connections, active_connections,
    idle_connections, waiting_requests, {column}, wait_p95_ms, wait_p99_ms, hold_p95_ms
)
SELECT
    'tenant-' || number, at, 50, 0, 1, 5, 2, 3, 1, {value},
    random() * 10, random() * 20, random() * 30
FROM generate_series($1::timestamptz, $2::timestamptz - interval '1 us', $3::interval) AS at,
    generate_series(0, $4 - 1) AS number
ORDER BY at, md5(number::text)
"""
_PLAN = """
EXPLAIN (ANALYZE, BUFFERS, COSTS OFF)
SELECT * FROM samples_by_minute WHERE subject = 'tenant-7' AND at >= $1 AND at < $2
"""


async def measure(folder: Path, tenants: int) -> tuple[dict[str, object], str]:
    """Every figure, and the plan."""
    figures: dict[str, object] = {"tenants": tenants}
    until = Resolution.HOUR.floor(datetime.now(UTC))
    async with (
        testbed() as here,
        _application(here, folder) as (client, samples),
        _catalog(here) as connection,
    ):
        for resolution, table, column, value, per_day, filled in _TABLES:
            statement = _FILL.format(table=table, column=column, value=value)
            span = (until - filled, until, _DAY / per_day, tenants)
            await connection.execute(statement, *span)
            await connection.execute(f"VACUUM ANALYZE {table}")
            size = await connection.fetchval(f"SELECT pg_total_relation_size('{table}')")
            rows = tenants * filled / _DAY * per_day
            figures[f"bytes_per_row_{resolution}"] = round(size / rows)
            figures[f"bytes_per_tenant_and_day_{resolution}"] = round(size / rows * per_day)
        for name, step in (("minutes", 60), ("hours", 3600)):
            figures |= await _requests(client, name, until, step, tenants)
        await connection.execute("DELETE FROM samples_by_minute WHERE at >= $1", until - _MINUTE)
        began = perf_counter()
        await samples.downsample(Resolution.MINUTE, until)
        figures["roll_up_of_a_minute_ms"] = round((perf_counter() - began) * 1000, 1)
        began = perf_counter()
        figures["deleted"] = await samples.delete_before(Resolution.RAW, until)
        figures["deletion_ms"] = round((perf_counter() - began) * 1000, 1)
        plan = await connection.fetch(_PLAN, until - _DAY, until)
    return figures, "\n".join(line for [line] in plan)


async def _requests(
    client: httpx.AsyncClient, name: str, until: datetime, step: int, tenants: int
) -> dict[str, object]:
    """A day of many tenants, one after the other, each for the first time and once more."""
    asked: dict[str, str | int] = {
        "from": (until - _DAY).isoformat(),
        "to": until.isoformat(),
        "step_seconds": step,
    }
    figures: dict[str, object] = {}
    chosen = random.Random(1).sample(range(tenants), min(_ASKED, tenants))
    for number in chosen:
        (await client.put(f"/v1/tenants/tenant-{number}", json={})).raise_for_status()
    for turn in ("first", "again"):
        times = []
        for number in chosen:
            began = perf_counter()
            answer = await client.get(f"/v1/tenants/tenant-{number}/stats/history", params=asked)
            times.append((perf_counter() - began) * 1000)
            if len(answer.raise_for_status().json()["items"]) != _DAY.total_seconds() / step:
                raise RuntimeError("the answer is not a whole day")
        figures[f"day_of_{name}_{turn}_ms"] = Figure.of(times).as_json()
        figures[f"day_of_{name}_{turn}_p95_ms"] = round(quantile(times, 0.95), 1)
    return figures


@asynccontextmanager
async def _application(
    here: Testbed, folder: Path
) -> AsyncIterator[tuple[httpx.AsyncClient, Samples]]:
    """A client of the whole application, in this process, and where its samples are."""
    endpoint = {**here.dsn, "tls": "disable"}
    settings = Settings.model_validate(
        {
            "data_dir": folder,
            "servers": {"local": {**endpoint, "database": here.address.tenant_database}},
            "catalog": {**endpoint, "database": here.address.catalog_database},
            "poll_interval_seconds": 3600,
            "sample_retention_hours": 24,
        }
    )
    app = create_app(settings)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=60) as client,
    ):
        yield client, app.state.service.catalog.samples


@asynccontextmanager
async def _catalog(here: Testbed) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(
        host=here.address.host,
        port=here.address.port,
        user=here.address.user,
        password=here.address.password,
        database=here.address.catalog_database,
        passfile=os.devnull,
    )
    try:
        yield connection
    finally:
        await connection.close(timeout=2)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tenants", type=int, default=1000)
    tenants: int = parser.parse_args().tenants
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    temporary = tempfile.TemporaryDirectory(prefix="poolkeeper-bench-")
    with temporary as folder, tuned_gc():
        figures, plan = asyncio.run(measure(Path(folder), tenants))
    for key, value in figures.items():
        sys.stdout.write(f"{key:36}{value}\n")
    sys.stdout.write(f"{plan}\n{json.dumps(figures)}\n")


if __name__ == "__main__":
    main()
