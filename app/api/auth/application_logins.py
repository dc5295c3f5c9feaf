"""Checks passwords of application credentials against their verifiers, off the event loop.

A check takes milliseconds of processor time, so its result is kept for a minute, and longer while
it is used at least that often. A result belongs to one verifier: a revoked or replaced credential
is refused at once.

One password is checked at a time, so the other processors stay free. Addresses take turns: an
address that guesses delays each other one by one check. A turn lasts as long as its check, even
when nobody waits for it any more.
"""

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from hashlib import blake2b
from time import monotonic
from weakref import WeakValueDictionary

from app.api.auth.rate_limits import network_of
from app.control.tenants.application_credentials import ApplicationCredentials
from app.domain.application_credential import SCRAM_ITERATIONS, ApplicationCredential
from app.domain.errors import TooManyLogins
from app.domain.scram import scram_verifier, verify

_KEPT_SECONDS = 60.0
_MOST_KEPT = 10_000
# How long a login waits for others, in seconds; and how many different logins of a network may
# wait: each holds an HTTP connection.
_PATIENCE = 5.0
_MOST_WAITING = 100
# Nobody's password. It is checked for unknown users, so that they take the same time.
_NOBODYS_VERIFIER = scram_verifier(secrets.token_hex(), iterations=SCRAM_ITERATIONS)


class ApplicationLogins:
    """Checks passwords, and remembers which were right and which were wrong."""

    def __init__(
        self, credentials: ApplicationCredentials, *, clock: Callable[[], float] = monotonic
    ) -> None:
        self._credentials = credentials
        self._key = secrets.token_bytes(32)
        self._right = _Checks(clock)
        self._wrong = _Checks(clock)
        self._turn = asyncio.Lock()
        # By network and login: the request that runs or waits; others with the same login await its
        # end.
        self._waiting: dict[str, dict[bytes, asyncio.Future[None]]] = {}
        # A separate executor: in asyncio's shared one, others would wait for passwords.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="passwords")
        # Each lock is kept while somebody holds it or waits for it.
        self._turns_of_networks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def check(self, user: str, password: str, address: str) -> ApplicationCredential | None:
        """Return the credential of *user* if this is its password; *address* is the client's.

        Raises:
            TooManyLogins: too many other passwords are being checked.
        """
        found = self._credentials.find(user)
        verifier = found.verifier if found is not None else _NOBODYS_VERIFIER
        login = f"{user}\0{password}".encode()
        digest = blake2b(login, key=self._key, digest_size=32).digest()
        if self._right.has(digest, verifier):
            self._right.add(digest, verifier)
            return found
        if self._wrong.has(digest, verifier):
            return None
        if not await self._verify(digest, password, verifier, address):
            return None
        # It may have been revoked in the meantime.
        current = self._credentials.find(user)
        return current if current is not None and current.verifier == verifier else None

    async def _verify(self, digest: bytes, password: str, verifier: str, address: str) -> bool:
        network = network_of(address)
        of_network = self._turns_of_networks.setdefault(network, asyncio.Lock())
        with ExitStack() as turn:
            try:
                async with asyncio.timeout(_PATIENCE):
                    while (same := self._waiting.get(network, {}).get(digest)) is not None:
                        await asyncio.wait({same})
                        if self._is_known(digest, verifier):
                            return self._right.has(digest, verifier)
                    turn.enter_context(self._queued(network, digest))
                    for lock in (of_network, self._turn):
                        await lock.acquire()
                        turn.callback(lock.release)
            except TimeoutError as error:
                raise TooManyLogins from error
            # Another network may have asked for the same check.
            if self._is_known(digest, verifier):
                return self._right.has(digest, verifier)
            loop = asyncio.get_running_loop()
            check = loop.run_in_executor(self._thread, verify, password, verifier)
            check.add_done_callback(partial(self._end, digest, verifier, turn.pop_all()))
        return await asyncio.shield(check)

    def _is_known(self, digest: bytes, verifier: str) -> bool:
        return self._right.has(digest, verifier) or self._wrong.has(digest, verifier)

    @contextmanager
    def _queued(self, network: str, digest: bytes) -> Iterator[None]:
        waiting = self._waiting.setdefault(network, {})
        if len(waiting) >= _MOST_WAITING:
            raise TooManyLogins
        end = waiting[digest] = asyncio.get_running_loop().create_future()
        try:
            yield
        finally:
            del waiting[digest]
            end.set_result(None)
            if not waiting:
                del self._waiting[network]

    def _end(
        self, digest: bytes, verifier: str, turn: ExitStack, check: asyncio.Future[bool]
    ) -> None:
        if not check.cancelled() and check.exception() is None:
            (self._right if check.result() else self._wrong).add(digest, verifier)
        turn.close()


class _Checks:
    """The latest logins with the same result, by digest: their verifiers and expiry times."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._kept: OrderedDict[bytes, tuple[str, float]] = OrderedDict()

    def has(self, digest: bytes, verifier: str) -> bool:
        checked, until = self._kept.get(digest, ("", 0.0))
        return checked == verifier and self._clock() < until

    def add(self, digest: bytes, verifier: str) -> None:
        self._kept[digest] = (verifier, self._clock() + _KEPT_SECONDS)
        self._kept.move_to_end(digest)
        if len(self._kept) > _MOST_KEPT:
            self._kept.popitem(last=False)
