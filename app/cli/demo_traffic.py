"""Synthetic traffic for the demo: passers-by at every tenant's door, and crowds that come and go.

An HTTP client of the public API and nothing else. Every caller draws from a generator of its
own, so that a demo asks the same each time, however the answers are timed.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import httpx

_PASSERS_BY = 4
_PAUSE_SECONDS = 0.4
_PAUSE_AFTER_REFUSAL_SECONDS = 0.5
_STATEMENT_SECONDS = 5.0
_HOLDS_SECONDS = (0.1, 0.3)
_SLEEP = "select pg_sleep($1)"
_OTHERS = (
    "select count(*), sum(n) from generate_series(1, 5000) as n",
    "select n, md5(n::text) from generate_series(1, 20) as n",
    "select current_user, current_database(), now()",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Burst:
    """Callers who come together, press for a while and leave together.

    Attributes:
        tenants: whom they want; each caller one of these at a time.
        callers: how many; more than their pool has connections, and some of them wait.
        first: seconds until they come for the first time.
        stay: seconds they press.
        away: seconds until they are back, give or take a quarter.
    """

    tenants: Sequence[str]
    callers: int
    delay: float
    duration: float
    pause: float


class Traffic:
    """Callers of many tenants, and what became of their requests."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        tenants: Sequence[str],
        bursts: Sequence[Burst],
        *,
        seed: int = 1,
    ) -> None:
        """Call through *client*, the first of *tenants* most often, the n-th 1/n as often."""
        self._client = client
        self._tenants = tenants
        self._weights = [1 / rank for rank in range(1, len(tenants) + 1)]
        self._crowds = bursts
        self._seed = seed
        self.succeeded = 0
        self.failed: Counter[str] = Counter()

    async def run(self) -> None:
        """Go on until cancelled; every request is over then."""
        async with asyncio.TaskGroup() as group:
            for number in range(_PASSERS_BY):
                name = f"demo: passer-by {number}"
                group.create_task(self._pass_by(self._random(name)), name=name)
            for number, crowd in enumerate(self._crowds):
                name = f"demo: crowd {number}"
                group.create_task(self._come_and_go(crowd, name), name=name)

    def _random(self, name: str) -> Random:
        return Random(f"{self._seed} {name}")  # noqa: S311 - shapes a load, guards nothing

    async def _pass_by(self, random: Random) -> None:
        while True:
            [tenant] = random.choices(self._tenants, self._weights)
            if random.random() < 1 / 2:
                await self._hold(tenant, random)
            else:
                await self._ask(tenant, random.choice(_OTHERS))
            await asyncio.sleep(random.expovariate(1 / _PAUSE_SECONDS))

    async def _come_and_go(self, crowd: Burst, name: str) -> None:
        random = self._random(name)
        members = [self._random(f"{name}, {member}") for member in range(crowd.callers)]
        await asyncio.sleep(crowd.delay)
        while True:
            until = asyncio.get_running_loop().time() + crowd.duration
            async with asyncio.TaskGroup() as group:
                for number, member in enumerate(members):
                    group.create_task(self._press(crowd, member, until), name=f"{name}, {number}")
            await asyncio.sleep(crowd.pause * random.uniform(0.75, 1.25))

    async def _press(self, crowd: Burst, random: Random, until: float) -> None:
        while asyncio.get_running_loop().time() < until:
            await self._hold(random.choice(crowd.tenants), random)

    async def _hold(self, tenant: str, random: Random) -> None:
        await self._ask(tenant, _SLEEP, round(random.uniform(*_HOLDS_SECONDS), 3))

    async def _ask(self, tenant: str, sql: str, *params: float) -> None:
        """Send one statement; a refusal is part of the show, so it is counted and no error."""
        body = {"sql": sql, "params": params, "timeout_seconds": _STATEMENT_SECONDS}
        try:
            response = await self._client.post(f"/v1/tenants/{tenant}/query", json=body)
        except httpx.TransportError as error:
            refusal = type(error).__name__
        else:
            if response.is_success:
                self.succeeded += 1
                return
            refusal = str(response.status_code)
        self.failed[refusal] += 1
        await asyncio.sleep(_PAUSE_AFTER_REFUSAL_SECONDS)
