"""What it costs a standby to forward a request: its processor time, and how much later it ends.

Ten clients in closed loops ask the active instance and a standby by turns, for a tenant's
resource and for a statement.
"""

import argparse
import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter

from benchmarks.failover import Caller
from benchmarks.figure import quantile
from benchmarks.http_load import HttpConnection, Target, get, post
from benchmarks.replicas import Instance, replicas

_CLIENTS = 10
_WARM_UP = 1.0
_REQUESTS = {
    "read": get("/v1/tenants/demo"),
    "lease": post("/v1/tenants/demo/query", json.dumps({"sql": "SELECT 42"})),
}


@dataclass(frozen=True, slots=True)
class Round:
    """Times of requests in ms, and processor time for each of the two instances in ms."""

    times: Sequence[float]
    active_cpu: float
    standby_cpu: float

    def __str__(self) -> str:
        """The figures in a line."""
        return (
            f"{len(self.times)} requests, median {quantile(self.times, 0.5):.2f} ms,"
            f" p99 {quantile(self.times, 0.99):.2f} ms; processor time for each:"
            f" active {self.active_cpu:.3f} ms, standby {self.standby_cpu:.3f} ms"
        )


async def closed_loop(
    asked: Instance, active: Target, standby: Target, request: bytes, seconds: float
) -> Round:
    """Let the clients ask one instance for so long."""
    times: list[float] = []
    connections = [await HttpConnection.connect(asked.port) for _ in range(_CLIENTS)]
    ends = perf_counter() + seconds

    async def ask(connection: HttpConnection) -> None:
        while (began := perf_counter()) < ends:
            status, body = await connection.ask(request)
            if status != b"200":
                raise RuntimeError(f"{status!r} {body[:200]!r}")
            times.append((perf_counter() - began) * 1000)

    before = active.cpu(), standby.cpu()
    try:
        await asyncio.gather(*map(ask, connections))
    finally:
        for connection in connections:
            connection.close()
    used = [
        (now - then) * 1000 / len(times)
        for now, then in zip((active.cpu(), standby.cpu()), before, strict=True)
    ]
    return Round(times, *used)


async def measure(arguments: argparse.Namespace) -> None:
    """Print the figures of each round."""
    async with replicas(arguments.ports) as running:
        for each in running.instances:
            await each.until_ready()
        await Caller([running.instances[0].url]).prepare()
        active = await running.active()
        [standby] = [each for each in running.instances if each is not active]
        targets = active.target, standby.target
        for request in _REQUESTS.values():
            await closed_loop(standby, *targets, request, _WARM_UP)
        idle = standby.target.cpu()
        await asyncio.sleep(arguments.seconds)
        idle = (standby.target.cpu() - idle) / arguments.seconds
        print(f"a standby without requests uses {idle * 100:.1f} % of a processor")
        for _ in range(arguments.rounds):
            for kind, request in _REQUESTS.items():
                for name, asked in (("directly", active), ("forwarded", standby)):
                    found = await closed_loop(asked, *targets, request, arguments.seconds)
                    print(f"{kind}, {name}: {found}", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.forwarding", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--ports", type=int, nargs=2, default=[8081, 8082], help="of the instances")
    return parser.parse_args()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(measure(_arguments()))
