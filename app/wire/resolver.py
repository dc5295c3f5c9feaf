"""The addresses of a host name, looked up without holding up anybody else.

The system's look-up blocks, for minutes if a name server is silent. So each runs in a thread of
its own, one for a name at a time: there are never more threads than names, a name that hangs
delays no other, and none of them is waited for when the process ends.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from itertools import chain, zip_longest
from threading import Thread
from typing import NamedTuple


class Address(NamedTuple):
    """One address of a host, as the kernel takes it."""

    family: socket.AddressFamily
    host: str
    port: int


Lookup = Callable[[str, int], list[Address]]


def system_lookup(host: str, port: int) -> list[Address]:
    """Ask the operating system; blocks.

    Raises:
        socket.gaierror: there is no such name, or nobody who knows it answers.
        OSError, MemoryError: this machine lacks what a look-up takes.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise socket.gaierror(socket.EAI_NONAME, "not a host name") from error
    return [Address(family, str(place[0]), port) for family, _, _, _, place in found]


class Resolver:
    """Finds the addresses of hosts, the one that worked last first."""

    def __init__(self, lookup: Lookup = system_lookup) -> None:
        """Look names up by *look_up*, which may block and runs in threads."""
        self._look_up = lookup
        self._under_way: dict[tuple[str, int], Future[list[Address]]] = {}
        self._preferred: dict[tuple[str, int], Address] = {}

    async def addresses(self, host: str, port: int) -> list[Address]:
        """Where *host* is, in the order in which to try; a name as `system_look_up` raises."""
        if (literal := _literal(host, port)) is not None:
            return [literal]
        found: list[Address] = await asyncio.wrap_future(self._begun(host, port))
        preferred = self._preferred.get((host, port))
        return sorted(interleave_families(found), key=lambda address: address != preferred)

    def prefer(self, host: str, port: int, address: Address) -> None:
        """*address* worked: try it first the next time."""
        self._preferred[host, port] = address

    def _begun(self, host: str, port: int) -> Future[list[Address]]:
        """The look-up that is under way for a name, begun if there is none."""
        under_way = self._under_way.get((host, port))
        if under_way is None:
            under_way = Future()
            # Nobody who stops waiting for it cancels it for the others.
            under_way.set_running_or_notify_cancel()
            thread = Thread(
                target=self._run, args=(host, port, under_way), name=f"look up {host}", daemon=True
            )
            self._under_way[host, port] = under_way
            try:
                thread.start()
            except RuntimeError as error:
                del self._under_way[host, port]
                raise MemoryError("no thread can be started") from error
        return under_way

    def _run(self, host: str, port: int, answer: Future[list[Address]]) -> None:
        try:
            found = self._look_up(host, port)
        except (OSError, MemoryError) as error:
            self._under_way.pop((host, port), None)
            answer.set_exception(error)
        else:
            self._under_way.pop((host, port), None)
            answer.set_result(found)


def interleave_families(addresses: Iterable[Address]) -> list[Address]:
    """Each address once, families taking turns, as RFC 8305, section 4, has it."""
    families: dict[int, dict[Address, None]] = {}
    for address in addresses:
        families.setdefault(address.family, {})[address] = None
    return [each for each in chain.from_iterable(zip_longest(*families.values())) if each]


def _literal(host: str, port: int) -> Address | None:
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        return None
    return Address(socket.AF_INET if version == 4 else socket.AF_INET6, host, port)  # noqa: PLR2004
