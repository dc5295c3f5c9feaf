"""Resolves host names without blocking the event loop.

The system's lookup blocks, for minutes if a name server is silent. So each lookup runs in its own
thread, one at a time for each name. There are never more threads than names, a hanging name delays
no other, and the end of the process waits for no thread.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from functools import lru_cache
from itertools import chain, zip_longest
from threading import Thread
from typing import NamedTuple


class Address(NamedTuple):
    """An address of a host, as the kernel accepts it."""

    family: socket.AddressFamily
    host: str
    port: int


Lookup = Callable[[str, int], list[Address]]


def system_lookup(host: str, port: int) -> list[Address]:
    """Ask the operating system; this blocks.

    Raises:
        socket.gaierror: the name does not exist, or no name server answers.
        OSError, MemoryError: this machine lacks what a lookup needs.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise socket.gaierror(socket.EAI_NONAME, "not a host name") from error
    return [Address(family, str(place[0]), port) for family, _, _, _, place in found]


class Resolver:
    """Finds the addresses of hosts; the one that last worked comes first."""

    def __init__(self, lookup: Lookup = system_lookup) -> None:
        """Look up names with *lookup*, which may block and runs in threads."""
        self._lookup = lookup
        self._pending: dict[tuple[str, int], Future[list[Address]]] = {}
        self._preferred: dict[tuple[str, int], Address] = {}

    async def addresses(self, host: str, port: int) -> list[Address]:
        """Return *host*'s addresses, in the order to try; raises what `system_lookup` raises."""
        if (literal := _literal(host, port)) is not None:
            return [literal]
        found: list[Address] = await asyncio.wrap_future(self._lookup_of(host, port))
        preferred = self._preferred.get((host, port))
        return sorted(interleave_families(found), key=lambda address: address != preferred)

    def prefer(self, host: str, port: int, address: Address) -> None:
        """Try *address* first the next time."""
        self._preferred[host, port] = address

    def _lookup_of(self, host: str, port: int) -> Future[list[Address]]:
        """Return the pending lookup of a name; start one if there is none."""
        pending = self._pending.get((host, port))
        if pending is None:
            pending = Future()
            # A caller that stops waiting must not cancel it for others.
            pending.set_running_or_notify_cancel()
            thread = Thread(
                target=self._run, args=(host, port, pending), name=f"look up {host}", daemon=True
            )
            self._pending[host, port] = pending
            try:
                thread.start()
            except RuntimeError as error:
                del self._pending[host, port]
                raise MemoryError("no thread can be started") from error
        return pending

    def _run(self, host: str, port: int, answer: Future[list[Address]]) -> None:
        found: list[Address] | Exception
        try:
            found = self._lookup(host, port)
        except (OSError, MemoryError) as error:
            found = error
        self._pending.pop((host, port), None)
        if isinstance(found, Exception):
            answer.set_exception(found)
        else:
            answer.set_result(found)


def interleave_families(addresses: Iterable[Address]) -> list[Address]:
    """Return each address once, alternating between families (RFC 8305, section 4)."""
    families: dict[int, dict[Address, None]] = {}
    for address in addresses:
        families.setdefault(address.family, {})[address] = None
    return [each for each in chain.from_iterable(zip_longest(*families.values())) if each]


@lru_cache
def _literal(host: str, port: int) -> Address | None:
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        return None
    return Address(socket.AF_INET if version == 4 else socket.AF_INET6, host, port)  # noqa: PLR2004


# One for the process, so that each name has one lookup at a time.
SYSTEM_RESOLVER = Resolver()
