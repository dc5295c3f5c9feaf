"""Clients in closed loops: what they got, and what it cost this process."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter, process_time

import asyncpg

from app.domain.errors import PoolkeeperError
from benchmarks.figure import jain, quantile

# What one client does again and again: it waits for a connection and uses it. Returns the
# `perf_counter()` at which it got the connection.
Transaction = Callable[[str], Awaitable[float]]

# Until pools are open and connections spread; waits and failures count from the start.
_WARM_UP = 1.0
_PAUSE_AFTER_FAILURE = 0.01
_FAILURES = (PoolkeeperError, asyncpg.PostgresError, TimeoutError, OSError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the clients got together.

    Attributes:
        per_second: transactions a second.
        cpu: processor seconds of this process for each, clients included.
        longest_wait: each client's longest wait, 99th percentile over clients, seconds.
        failed: clients' attempts that failed, and waits beyond their patience.
        failed_share: the same, as a share of all attempts.
        held: seconds for which each client had a connection.
    """

    per_second: float
    cpu: float
    longest_wait: float
    failed: int
    failed_share: float
    held: Mapping[str, float]

    @property
    def jain(self) -> float:
        """Jain's index of the clients' connection-seconds."""
        return jain(list(self.held.values()))


class _Client:
    """One client, and what it got so far."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._asked: float | None = None
        self.longest_wait = 0.0
        self.served = 0
        self.failed = 0
        self.held = 0.0

    async def loop(self, transaction: Transaction, name: str, pause: float) -> None:
        """Transaction after transaction, until cancelled."""
        while True:
            self._asked = perf_counter()
            try:
                got = await transaction(name)
            except _FAILURES:
                self.failed += 1
                self._waited(perf_counter(), refused=True)
                await asyncio.sleep(_PAUSE_AFTER_FAILURE)
                continue
            self._waited(got)
            self.held += perf_counter() - got
            self.served += 1
            if pause:
                await asyncio.sleep(pause)

    def _waited(self, until: float, *, refused: bool = False) -> None:
        if self._asked is not None:
            waited, self._asked = until - self._asked, None
            self.longest_wait = max(self.longest_wait, waited)
            self.failed += not refused and waited > self._patience

    def end(self, now: float) -> None:
        """A wait under way counts as far as it went."""
        self._waited(now)


async def closed_loop(
    transaction: Transaction,
    names: Sequence[str],
    seconds: float,
    *,
    patience: float = 60.0,
    pause: float = 0.0,
) -> Outcome:
    """Let one client for each of *names* work for *seconds*, after a second of warm-up.

    Args:
        transaction: what each does; gets its name.
        names: of the clients.
        seconds: for how long transactions count.
        patience: seconds; a longer wait counts as failed.
        pause: seconds that a client thinks between two transactions.
    """
    clients = {name: _Client(patience) for name in names}
    tasks = [
        asyncio.create_task(client.loop(transaction, name, pause), name=f"client {name}")
        for name, client in clients.items()
    ]
    await asyncio.sleep(_WARM_UP)
    for client in clients.values():
        client.served, client.held = 0, 0.0
    cpu, began = process_time(), perf_counter()
    await asyncio.sleep(seconds)
    cpu, now = process_time() - cpu, perf_counter()
    for client in clients.values():
        client.end(now)
    held = {name: client.held for name, client in clients.items()}
    served = sum(client.served for client in clients.values())
    failed = sum(client.failed for client in clients.values())
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception) and not isinstance(result, _FAILURES):
            raise result
    return Outcome(
        per_second=served / (now - began),
        cpu=cpu / max(1, served),
        longest_wait=quantile([client.longest_wait for client in clients.values()], 0.99),
        failed=failed,
        failed_share=failed / max(1, failed + served),
        held=held,
    )
