"""PgBouncer's silent peers, an application or Postgres: the kernel probes them soon."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tests.fixtures.waiting import eventually
from tests.node.site import Site, pid_of

_ESTABLISHED, _KEEPALIVE = "01", "02"
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


async def test_both_ends_are_asked_within_15_seconds_whether_they_are_there(site: Site) -> None:
    await site.make_roles("acme")
    async with site.started(site.configuration(site.entry("acme"))) as engine:
        await engine.open("acme")
        async with site.client("acme") as client:
            await client.execute("BEGIN")
            await eventually(lambda: len(timers(pid_of(engine))) == 2)  # all else is acknowledged
            assert max(timers(pid_of(engine))) <= 15.0


def timers(pid: int) -> list[float]:
    """The seconds until the kernel probes the peers of a process."""
    inodes = set(sockets(pid))
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    found = [(row[3], *row[5].split(":")) for row in rows if row[9] in inodes]
    return [
        int(ticks, 16) / _TICKS_A_SECOND
        for state, timer, ticks in found
        if (state, timer) == (_ESTABLISHED, _KEEPALIVE)
    ]


def sockets(pid: int) -> Iterator[str]:
    """The inodes of a process's sockets."""
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            kind, _, inode = str(file.readlink()).partition(":")
            if kind == "socket":
                yield inode.strip("[]")
