"""Two instances of the service, their Postgres, and a client that never stops.

`make demo-ha` prints a line each second and says which signals to try. With `--fault` one is sent
to the active instance, and the figures are printed at the end.
"""

import argparse
import asyncio
import json
import re
import signal
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from itertools import count, pairwise
from time import monotonic
from urllib.parse import urlsplit

import httpx

from benchmarks.figure import quantile
from benchmarks.http_load import HttpConnection, get, post
from benchmarks.replicas import Replicas, haproxy, replicas

SIGNALS = {"stop": signal.SIGTERM, "kill": signal.SIGKILL, "pause": signal.SIGSTOP}
_TENANT = "demo"
# In seconds.
_BEFORE_THE_FAULT = 5.0
_PATIENCE = 30.0
# A connection that was idle for longer may be closed by the time it is used.
_FRESH = 2.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one request, repetitions included.

    Attributes:
        sent, ended: by the monotonic clock.
        failure: why it failed; None if it did not.
        by: the instance that answered.
    """

    kind: str
    sent: float
    ended: float
    failure: str | None
    by: str


@dataclass(frozen=True, slots=True)
class Answer:
    """One response: its status, and who says after which time the request may be repeated."""

    status: int
    by: str
    retry_after: float


class _Unreachable(Exception):
    """Nothing was sent."""


class Caller:
    """Sends requests at a constant rate, whatever becomes of them, and repeats what it may.

    What reached no instance is sent to the next one; 503 is repeated as it asks for; a GET whose
    connection broke is repeated once. It shares the machine with what it measures, and so has
    as little code as that takes.
    """

    def __init__(self, urls: Sequence[str]) -> None:
        self.outcomes: list[Outcome] = []
        self._urls = urls
        self._idle: defaultdict[str, deque[tuple[float, HttpConnection]]] = defaultdict(deque)
        self._tasks: set[asyncio.Task[None]] = set()

    async def prepare(self) -> None:
        """Declare and provision a tenant, once the service answers."""
        url = f"/v1/tenants/{_TENANT}"
        async with httpx.AsyncClient(timeout=_PATIENCE, trust_env=False) as client:
            for method, path in (("PUT", url), ("POST", f"{url}/provision")):
                body = {"strategy": "per_tenant"} if method == "PUT" else None
                while True:
                    with suppress(httpx.TransportError):
                        answer = await client.request(method, self._urls[0] + path, json=body)
                        if answer.is_success:
                            break
                    await asyncio.sleep(0.2)

    async def run(self, rate: float) -> None:
        """Send *rate* requests a second until cancelled; half of them need a lease."""
        due = monotonic()
        for number in count():
            task = asyncio.create_task(self._request(number))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            due += 1 / rate
            await asyncio.sleep(max(0.0, due - monotonic()))

    async def finish(self) -> None:
        """Wait for what was sent."""
        await asyncio.gather(*self._tasks)
        for _, connection in [each for idle in self._idle.values() for each in idle]:
            connection.close()

    async def _request(self, number: int) -> None:
        may_repeat = number // len(self._urls) % 2 == 0
        kind, request = (
            ("read", get(f"/v1/tenants/{_TENANT}"))
            if may_repeat
            else ("lease", post(f"/v1/tenants/{_TENANT}/query", json.dumps({"sql": "SELECT 42"})))
        )
        sent = monotonic()
        failure: str | None = "no answer"
        by = ""
        for turn in count(number):
            pause = 0.01
            try:
                answer = await self._ask(self._urls[turn % len(self._urls)], request)
            except _Unreachable:
                failure = "unreachable"
            except (OSError, EOFError) as error:
                failure = type(error).__name__
                if not may_repeat:
                    break
                may_repeat = False
            else:
                by, pause = answer.by, answer.retry_after
                failure = None if answer.status == httpx.codes.OK else f"{answer.status}"
                if answer.status != httpx.codes.SERVICE_UNAVAILABLE:
                    break
            if monotonic() - sent > _PATIENCE:
                break
            await asyncio.sleep(pause)
        self.outcomes.append(Outcome(kind, sent, monotonic(), failure, by))

    async def _ask(self, url: str, request: bytes) -> Answer:
        """One exchange.

        Raises:
            _Unreachable: nobody listens there.
            OSError, EOFError: the connection broke, or there was no response in time.
        """
        connection = await self._connect(url)
        is_reusable = False
        try:
            async with asyncio.timeout(_PATIENCE):
                head, _ = await connection.exchange(request)
            is_reusable = _value(head, b"connection") != b"close"
        finally:
            if is_reusable:
                self._idle[url].append((monotonic(), connection))
            else:
                connection.close()
        by = _value(head, b"poolkeeper-instance").decode() or url
        return Answer(int(head[9:12]), by, float(_value(head, b"retry-after") or 1))

    async def _connect(self, url: str) -> HttpConnection:
        idle = self._idle[url]
        while idle:
            since, connection = idle.pop()
            if monotonic() - since < _FRESH:
                return connection
            connection.close()
        try:
            async with asyncio.timeout(_PATIENCE):
                return await HttpConnection.connect(urlsplit(url).port or 80)
        except OSError as error:
            raise _Unreachable from error


def _value(head: bytes, name: bytes) -> bytes:
    found = re.search(rb"(?im)^" + name + rb": *([^\r\n]*)", head)
    return found[1] if found else b""


def describe(outcomes: Sequence[Outcome]) -> str:
    """Them in a line."""
    if not outcomes:
        return "no request ended"
    times = [(each.ended - each.sent) * 1000 for each in outcomes]
    failures = Counter(each.failure for each in outcomes if each.failure)
    by = Counter(each.by for each in outcomes if not each.failure)
    return (
        f"{len(outcomes)} requests, {failures.total()} failed {dict(failures) or ''},"
        f" median {quantile(times, 0.5):.1f} ms, slowest {max(times):.0f} ms, answered by"
        f" {', '.join(f'{url} ({times})' for url, times in by.items()) or 'nobody'}"
    )


def report(outcomes: Sequence[Outcome], fault_at: float) -> None:
    """Print what a fault cost."""
    before = [each for each in outcomes if each.ended < fault_at]
    after = [each for each in outcomes if each.ended >= fault_at]
    print(f"before: {describe(before)}\nafter:  {describe(after)}")
    for kind in ("read", "lease"):
        answered = [
            each.ended - fault_at
            for each in after
            if each.kind == kind and each.sent > fault_at and not each.failure
        ]
        ends = sorted([0.0, *answered])
        gap = max((b - a for a, b in pairwise(ends)), default=0.0)
        first = f"{ends[1]:.2f} s" if answered else "none"
        print(f"{kind}: first answer after {first}, longest time without one {gap:.2f} s")


async def measure(arguments: argparse.Namespace) -> None:
    """Run two instances and the caller until the end, or until Ctrl-C."""
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(replicas(arguments.ports))
        for each in running.instances:
            await each.until_ready()
        urls = [each.url for each in running.instances]
        if arguments.haproxy:
            proxy = haproxy(arguments.haproxy, running.instances)
            urls = [await stack.enter_async_context(proxy)]
        caller = Caller(urls)
        await caller.prepare()
        calling = asyncio.create_task(caller.run(arguments.rate))
        stack.callback(calling.cancel)
        if arguments.fault is None:
            await _watch(caller, running)
        await asyncio.sleep(_BEFORE_THE_FAULT)
        active = await running.active()
        fault_at = monotonic()
        active.send(SIGNALS[arguments.fault])
        await asyncio.sleep(arguments.seconds)
        active.send(signal.SIGCONT)
        calling.cancel()
        await caller.finish()
        report(caller.outcomes, fault_at)


async def _watch(caller: Caller, running: Replicas) -> None:
    print(f"Logs are in {running.directory}. Try `kill`, `kill -9`, `kill -STOP` and `kill -CONT`:")
    for each in running.instances:
        print(f"  {each.url} is process {each.target.pid}")
    seen = 0
    while True:
        await asyncio.sleep(1)
        ended, seen = caller.outcomes[seen:], len(caller.outcomes)
        print(describe(ended))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.failover", description=__doc__)
    parser.add_argument("--fault", choices=SIGNALS, help="what the active instance gets")
    parser.add_argument("--rate", type=float, default=20.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=25.0, help="how long after the fault")
    parser.add_argument("--ports", type=int, nargs=2, default=[8081, 8082], help="of the instances")
    parser.add_argument("--haproxy", type=int, metavar="PORT", help="ask it, on this port, instead")
    return parser.parse_args()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt, asyncio.CancelledError):
        asyncio.run(measure(_arguments()))
