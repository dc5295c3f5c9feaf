"""Two instances of the service, their Postgres, and a client that never stops.

`make demo-ha` prints a line each second and says which signals to try. With `--fault` one is sent
to the active instance, and the figures are printed at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import signal
import sys
import tempfile
from asyncio.subprocess import Process
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count, pairwise
from pathlib import Path
from time import monotonic

import httpx

from app.embedded import EmbeddedAddress, EmbeddedPostgres

SIGNALS = {"stop": signal.SIGTERM, "kill": signal.SIGKILL, "pause": signal.SIGSTOP}
_TENANT = "demo"
# In seconds.
_BEFORE_THE_FAULT = 5.0
_PATIENCE = 30.0


class Instance:
    """A place where the service runs, and is started again whenever it has ended."""

    def __init__(self, port: int, directory: Path, settings: dict[str, str]) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.process: Process | None = None
        self._log = directory / f"{port}.log"
        own = {"PORT": str(port), "ADVERTISE_URL": self.url, "DATA_DIR": str(directory / str(port))}
        named = {f"POOLKEEPER_{name}": value for name, value in (settings | own).items()}
        self._environment = os.environ | named

    async def run(self) -> None:
        """Run it until cancelled, as a supervisor would."""
        while True:
            with self._log.open("ab") as log:
                self.process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "app", "serve"),
                    env=self._environment,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C is for this process, which ends the others
                )
            try:
                status = await self.process.wait()
            except asyncio.CancelledError:
                self.process.kill()
                raise
            print(f"{self.url} ended with status {status}; it is started again")

    def send(self, number: int) -> None:
        """Send a signal to it."""
        if self.process is not None:
            self.process.send_signal(number)


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


class Caller:
    """Sends requests at a constant rate, whatever becomes of them, and repeats what it may.

    What reached no instance is sent to the next one; 503 is repeated as it asks for; a GET whose
    connection broke is repeated once.
    """

    def __init__(self, urls: Sequence[str]) -> None:
        self.outcomes: list[Outcome] = []
        self._urls = urls
        self._http = httpx.AsyncClient(timeout=_PATIENCE, trust_env=False)
        self._tasks: set[asyncio.Task[None]] = set()

    async def prepare(self) -> None:
        """Declare and provision a tenant, once the service answers."""
        url = f"/v1/tenants/{_TENANT}"
        for method, path in (("PUT", url), ("POST", f"{url}/provision")):
            body = {"strategy": "per_tenant"} if method == "PUT" else None
            while True:
                with suppress(httpx.TransportError):
                    answer = await self._http.request(method, self._urls[0] + path, json=body)
                    if answer.is_success:
                        break
                await asyncio.sleep(0.2)

    async def active_url(self) -> str:
        """The URL of the active instance."""
        about = (await self._http.get(f"{self._urls[0]}/v1/about")).json()
        url: str = about["instance"]["url"]
        return url

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
        await self._http.aclose()

    async def _request(self, number: int) -> None:
        kind, path, body = (
            ("lease", f"/v1/tenants/{_TENANT}/query", {"sql": "SELECT 42"})
            if number // len(self._urls) % 2
            else ("read", f"/v1/tenants/{_TENANT}", None)
        )
        sent = monotonic()
        may_repeat = body is None
        failure: str | None = "no answer"
        by = ""
        for turn in count(number):
            url = self._urls[turn % len(self._urls)]
            pause = 0.01
            try:
                method = "POST" if body else "GET"
                response = await self._http.request(method, url + path, json=body)
            except httpx.ConnectError:
                failure = "unreachable"
            except httpx.TransportError as error:
                failure = type(error).__name__
                if not may_repeat:
                    break
                may_repeat = False
            else:
                by = response.headers.get("poolkeeper-instance", url)
                failure = None if response.is_success else f"{response.status_code}"
                if response.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                    break
                pause = float(response.headers.get("retry-after", "1"))
            if monotonic() - sent > _PATIENCE:
                break
            await asyncio.sleep(pause)
        self.outcomes.append(Outcome(kind, sent, monotonic(), failure, by))


def describe(outcomes: Sequence[Outcome]) -> str:
    """Them in a line."""
    if not outcomes:
        return "no request ended"
    slowest = max(each.ended - each.sent for each in outcomes)
    failures = Counter(each.failure for each in outcomes if each.failure)
    by = Counter(each.by for each in outcomes if not each.failure)
    return (
        f"{len(outcomes)} requests, {failures.total()} failed {dict(failures) or ''},"
        f" slowest {slowest * 1000:.0f} ms, answered by"
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
        print(f"{kind}: first answer after {ends[1]:.2f} s, longest time without one {gap:.2f} s")


async def measure(arguments: argparse.Namespace, address: EmbeddedAddress, directory: Path) -> None:
    """Run two instances and the caller until the end, or until Ctrl-C."""
    login = {"HOST": address.host, "PORT": str(address.port), "USER": address.user}
    login |= {"PASSWORD": address.password, "TLS": "disable"}
    settings = {f"SERVERS__MAIN__{name}": value for name, value in login.items()}
    settings |= {f"CATALOG__{name}": value for name, value in login.items()}
    settings |= {
        "SERVERS__MAIN__DATABASE": address.tenant_database,
        "CATALOG__DATABASE": address.catalog_database,
        "SECRET_KEY": secrets.token_hex(),
        "LOG_FORMAT": "json",
        "RATE_LIMIT": "0",
    }
    instances = [Instance(port, directory, settings) for port in arguments.ports]
    running = [asyncio.create_task(each.run()) for each in instances]
    caller = Caller(arguments.via or [each.url for each in instances])
    calling: asyncio.Task[None] | None = None
    try:
        await caller.prepare()
        calling = asyncio.create_task(caller.run(arguments.rate))
        if arguments.fault is None:
            await _watch(caller, instances, directory)
        await asyncio.sleep(_BEFORE_THE_FAULT)
        url = await caller.active_url()
        active = next(each for each in instances if each.url == url)
        fault_at = monotonic()
        active.send(SIGNALS[arguments.fault])
        await asyncio.sleep(arguments.seconds)
        active.send(signal.SIGCONT)
        calling.cancel()
        await caller.finish()
        report(caller.outcomes, fault_at)
    finally:
        for task in [*running, *([calling] if calling else [])]:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _watch(caller: Caller, instances: Sequence[Instance], directory: Path) -> None:
    print(f"Logs are in {directory}. Try `kill`, `kill -9`, and `kill -STOP` with `kill -CONT`:")
    for each in instances:
        print(f"  {each.url} is process {each.process.pid if each.process else None}")
    seen = 0
    while True:
        await asyncio.sleep(1)
        ended, seen = caller.outcomes[seen:], len(caller.outcomes)
        print(describe(ended))


async def main(arguments: argparse.Namespace, directory: Path) -> None:
    """Start the Postgres, and stop it at the end."""
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    postgres = EmbeddedPostgres(directory / "postgres", durable=False)
    try:
        await measure(arguments, await postgres.start(), directory)
    finally:
        await postgres.stop()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.failover", description=__doc__)
    parser.add_argument("--fault", choices=SIGNALS, help="what the active instance gets")
    parser.add_argument("--rate", type=float, default=20.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=25.0, help="how long after the fault")
    parser.add_argument("--ports", type=int, nargs=2, default=[8081, 8082], help="of the instances")
    parser.add_argument("--via", nargs="+", help="URLs of a proxy that is asked instead")
    return parser.parse_args()


if __name__ == "__main__":
    with (
        suppress(KeyboardInterrupt, asyncio.CancelledError),
        tempfile.TemporaryDirectory(prefix="poolkeeper-failover-") as place,
    ):
        Path(place).chmod(0o711)  # Postgres may run as another user
        asyncio.run(main(_arguments(), Path(place)))
