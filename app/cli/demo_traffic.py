"""Synthetic traffic for the demo: steady callers of all tenants, and bursts of some.

It is an HTTP client of the public API. Every caller has its own random generator, so a demo sends
the same requests each time, regardless of response times.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import httpx

_STEADY_CALLERS = 4
_MEAN_PAUSE_SECONDS = 0.4
_PAUSE_AFTER_FAILURE_SECONDS = 0.5
_TIMEOUT_SECONDS = 5.0
_HOLD_SECONDS = (0.1, 0.3)
_HOLDING_QUERY = "select pg_sleep($1)"
_QUICK_QUERIES = (
    "select count(*), sum(n) from generate_series(1, 5000) as n",
    "select n, md5(n::text) from generate_series(1, 20) as n",
    "select current_user, current_database(), now()",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Burst:
    """Callers that send requests at the same time for a while, again and again.

    Attributes:
        tenants: each request is for a random one of these.
        callers: number of callers; if it exceeds the pool's connections, some wait.
        delay: seconds until the first burst.
        duration: seconds of each burst.
        pause: mean seconds between two bursts, varied by a quarter.
    """

    tenants: Sequence[str]
    callers: int
    delay: float
    duration: float
    pause: float


class Traffic:
    """Callers of many tenants, and the results of their requests."""

    def __init__(
        self, client: httpx.AsyncClient, tenants: Sequence[str], bursts: Sequence[Burst]
    ) -> None:
        """Steady callers choose the n-th of *tenants* with a weight of 1/n."""
        self._client = client
        self._tenants = tenants
        self._weights = [1 / rank for rank in range(1, len(tenants) + 1)]
        self._bursts = bursts
        self.succeeded = 0
        self.failed: Counter[str] = Counter()

    async def run(self) -> None:
        """Send requests until cancelled."""
        async with asyncio.TaskGroup() as group:
            for number in range(_STEADY_CALLERS):
                name = f"demo: steady caller {number}"
                group.create_task(self._call_steadily(_random(name)), name=name)
            for number, burst in enumerate(self._bursts):
                name = f"demo: burst {number}"
                group.create_task(self._repeat(burst, name), name=name)

    async def _call_steadily(self, random: Random) -> None:
        while True:
            [tenant] = random.choices(self._tenants, self._weights)
            if random.random() < 1 / 2:
                await self._hold_connection(tenant, random)
            else:
                await self._query(tenant, random.choice(_QUICK_QUERIES))
            await asyncio.sleep(random.expovariate(1 / _MEAN_PAUSE_SECONDS))

    async def _repeat(self, burst: Burst, name: str) -> None:
        random = _random(name)
        callers = [_random(f"{name}, {caller}") for caller in range(burst.callers)]
        await asyncio.sleep(burst.delay)
        while True:
            end = asyncio.get_running_loop().time() + burst.duration
            async with asyncio.TaskGroup() as group:
                for number, caller in enumerate(callers):
                    group.create_task(
                        self._call_until(burst, caller, end), name=f"{name}, {number}"
                    )
            await asyncio.sleep(burst.pause * random.uniform(0.75, 1.25))

    async def _call_until(self, burst: Burst, random: Random, end: float) -> None:
        while asyncio.get_running_loop().time() < end:
            await self._hold_connection(random.choice(burst.tenants), random)

    async def _hold_connection(self, tenant: str, random: Random) -> None:
        await self._query(tenant, _HOLDING_QUERY, round(random.uniform(*_HOLD_SECONDS), 3))

    async def _query(self, tenant: str, sql: str, *params: float) -> None:
        """Send one statement. Failures are expected under load: count them."""
        body = {"sql": sql, "params": params, "timeout_seconds": _TIMEOUT_SECONDS}
        try:
            response = await self._client.post(f"/v1/tenants/{tenant}/query", json=body)
        except httpx.TransportError as error:
            failure = type(error).__name__
        else:
            if response.is_success:
                self.succeeded += 1
                return
            failure = str(response.status_code)
        self.failed[failure] += 1
        await asyncio.sleep(_PAUSE_AFTER_FAILURE_SECONDS)


def _random(name: str) -> Random:
    return Random(name)  # noqa: S311 - shapes a load, guards nothing
