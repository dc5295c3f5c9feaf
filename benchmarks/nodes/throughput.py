"""pgbench through a node beside PgBouncer alone, with the same files but no agent."""

import asyncio
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from app.node.process import Account
from benchmarks.figure import Figures, Rounds
from benchmarks.nodes.site import Node, Site, can_be_measured, site
from benchmarks.pgbouncer import installed
from benchmarks.testbed import Testbed, bench_folder, free_port

_TENANT = "t0"
_SECONDS = 5
_CLIENTS = 8
_START_DEADLINE = 30.0
_rate = re.compile(r"tps = ([\d.]+)").search


async def throughput(_: Testbed, rounds: int) -> Figures:
    """`pgbench -S` through a node ÷ through PgBouncer alone with the same settings, by turns."""
    program = shutil.which("pgbench")
    if program is None:
        sys.stdout.write("nodes_throughput: not measured without pgbench.\n")
        return {}
    if not can_be_measured("nodes_throughput"):
        return {}
    found = Rounds()
    async with site(budget=20) as here:
        await here.add_tenants([_TENANT])
        node = await here.add_node("edge")
        await _pgbench(program, here, node.port, "-i", "-q", "-s", "1")
        async with _alone(node) as port:
            ports = {"node": node.port, "alone": port}
            for number in range(rounds + 1):
                rates = {}
                for name in sorted(ports, reverse=bool(number % 2)):
                    rates[name] = await _rate_of(program, here, ports[name])
                if number:  # the first does not count
                    for name, rate in rates.items():
                        found.add("nodes_throughput_per_s", rate, name)
                    found.add("nodes_throughput_vs_alone", rates["node"] / rates["alone"])
    return found.figures()


async def _rate_of(program: str, here: Site, port: int) -> float:
    printed = await _pgbench(
        program, here, port, "-n", "-S", "-T", str(_SECONDS), "-c", str(_CLIENTS), "-j", "2"
    )
    found = _rate(printed)
    if found is None:
        raise RuntimeError(printed)
    return float(found[1])


async def _pgbench(program: str, here: Site, port: int, *arguments: str) -> str:
    """What pgbench prints; it must succeed."""
    process = await asyncio.create_subprocess_exec(
        program,
        *arguments,
        f"postgresql://{_TENANT}.web@127.0.0.1:{port}/{_TENANT}?sslmode=disable",
        env={"PATH": os.environ["PATH"], "PGPASSWORD": here.passwords[_TENANT]},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    printed, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(printed.decode())
    return printed.decode()


@asynccontextmanager
async def _alone(node: Node) -> AsyncIterator[int]:
    """A PgBouncer with the files of *node* and a port of its own, for a block."""
    port, account = free_port(), Account.choose()
    with bench_folder() as folder:
        for file in ("pgbouncer.ini", "users.txt", "hba.conf"):
            text = (node.directory / file).read_text(encoding="utf-8")
            text = text.replace(str(node.directory), str(folder))
            text = text.replace(f"listen_port = {node.port}", f"listen_port = {port}")
            (folder / file).write_text(text, encoding="utf-8")
        words = [installed() or "", "-q", str(folder / "pgbouncer.ini")]
        if account.uid is not None:
            for path in (folder, *folder.iterdir()):
                os.chown(path, account.uid, -1)
            words[1:1] = ["-u", account.name]
        process = await asyncio.create_subprocess_exec(*words, stderr=asyncio.subprocess.DEVNULL)
        try:
            async with asyncio.timeout(_START_DEADLINE):
                while not _listens(folder, port):  # noqa: ASYNC110 - it tells nobody that it does
                    await asyncio.sleep(0.05)
            yield port
        finally:
            process.kill()  # since 1.23 SIGTERM waits for all clients
            await process.wait()


def _listens(folder: Path, port: int) -> bool:
    return (folder / f".s.PGSQL.{port}").exists()
