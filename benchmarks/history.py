"""A day of a tenant's past, with a thousand tenants' samples in the catalog.

The catalog is filled as a service leaves it whose tenants were all busy at every poll: two hours of
polls, a day of minutes and of hours.
"""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from time import perf_counter

import httpx

from app.catalog.samples import Samples
from app.domain.history import Resolution
from app.main import create_app
from app.runtime.gc_tuning import tuned_gc
from app.settings import Settings
from benchmarks.figure import Figures, Rounds
from benchmarks.testbed import Testbed, bench_folder

_TENANTS = 1000
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
    subject, at, acquired, timeouts, connection_seconds, polls, total_connections,
    active_connections, idle_connections, waiting_requests, {column}, wait_p95_ms, wait_p99_ms,
    hold_p95_ms
)
SELECT
    'tenant-' || number, at, 50, 0, 10, 1, 5, 2, 3, 1, {value},
    random() * 10, random() * 20, random() * 30
FROM generate_series($1::timestamptz, $2::timestamptz - interval '1 us', $3::interval) AS at,
    generate_series(0, $4 - 1) AS number
ORDER BY at, md5(number::text)
"""


async def history(here: Testbed, rounds: int) -> Figures:
    """Read a day of a tenant's past among a thousand tenants', roll it up, and delete it."""
    found, until = Rounds(), Resolution.HOUR.floor(datetime.now(UTC))
    with tuned_gc():
        async with _application(here) as (client, samples):
            connection = await here.login(
                here.address.user, here.address.password, here.address.catalog_database
            )
            for resolution, table, column, value, per_day, filled in _TABLES:
                statement = _FILL.format(table=table, column=column, value=value)
                span = (until - filled, until, _DAY / per_day, _TENANTS)
                await connection.execute(statement, *span)
                await connection.execute(f"VACUUM ANALYZE {table}")
                size = await connection.fetchval(f"SELECT pg_total_relation_size('{table}')")
                rows = _TENANTS * filled / _DAY * per_day
                found.add("history_bytes_per_row", size / rows, resolution)
            for name, step in (("minutes", 60), ("hours", 3600)):
                await _ask(
                    client, found, f"history_day_of_{name}_ms", until=until, step=step, times=rounds
                )
            await connection.execute(
                "DELETE FROM samples_by_minute WHERE at >= $1", until - _MINUTE
            )
            began = perf_counter()
            await samples.downsample(Resolution.MINUTE, until)
            found.add("history_roll_up_of_a_minute_ms", (perf_counter() - began) * 1000)
            began = perf_counter()
            await samples.delete_before(Resolution.RAW, until)
            found.add("history_deletion_ms", (perf_counter() - began) * 1000)
            await connection.close(timeout=2)
    return found.figures()


async def _ask(
    client: httpx.AsyncClient, found: Rounds, key: str, *, until: datetime, step: int, times: int
) -> None:
    """A day of many tenants, one after the other, each for the first time and once more."""
    asked: dict[str, str | int] = {
        "from": (until - _DAY).isoformat(),
        "to": until.isoformat(),
        "step_seconds": step,
    }
    chosen = random.Random(1).sample(range(_TENANTS), times)
    for number in chosen:
        (await client.put(f"/v1/tenants/tenant-{number}", json={})).raise_for_status()
    for turn in ("first", "again"):
        for number in chosen:
            began = perf_counter()
            response = await client.get(f"/v1/tenants/tenant-{number}/stats/history", params=asked)
            found.add(key, (perf_counter() - began) * 1000, turn)
            if len(response.raise_for_status().json()["items"]) != _DAY.total_seconds() / step:
                raise RuntimeError("the response is not a whole day")


@asynccontextmanager
async def _application(here: Testbed) -> AsyncIterator[tuple[httpx.AsyncClient, Samples]]:
    """A client of the whole application, in this process, and where its samples are."""
    endpoint = {**here.dsn, "tls": "disable"}
    with bench_folder() as folder:
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
            httpx.AsyncClient(
                transport=transport, base_url="http://localhost", timeout=60
            ) as client,
        ):
            yield client, app.state.service.catalog.samples
