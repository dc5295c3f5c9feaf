"""Beats: what is sent to those who follow, one event after each poll.

Nobody is sent more than they take: there is no queue, and whoever is slow gets the newest beat
when they are ready for it. What a beat tells is rendered once for all who may see the same.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator

from app.api.auth.api_key import ApiKey, KeyScope
from app.api.auth.authenticator import Authenticator
from app.api.auth.principal import Principal
from app.api.views.stats import stats_event
from app.control.monitoring.snapshot import Snapshot, Snapshots
from app.domain.errors import TooManyStreams

# A comment this often lets both ends, and what is between them, know that the other is there.
_KEEP_ALIVE = 15.0
# Beats are sent to so many a second.
_PER_SECOND = 2000
# Of them as many may be of one key, which is to leave room for others.
_MOST_OF_A_KEY = 50
_COMMENT = b": keep-alive\n\n"


class StatsStreams:
    """How many follow, and what they are sent."""

    def __init__(self, snapshots: Snapshots, most: int) -> None:
        """Let *most* follow at a time."""
        self.open = 0
        self._of_key: Counter[str | None] = Counter()
        self._snapshots = snapshots
        self._most = most
        self._rendered_of: Snapshot | None = None
        self._rendered: dict[frozenset[str] | None, bytes] = {}

    def limit_to(self, most: int) -> None:
        """Let no more than *most* follow: others need connections, too."""
        self._most = min(self._most, most)

    def register(self, caller: Principal) -> None:
        """Count one more, who has to `leave`.

        Raises:
            TooManyStreams: there are as many as may be, or as many with this caller's key.
        """
        if self.open >= self._most:
            raise TooManyStreams(f"{self.open} follow already.")
        if caller.key_id is not None and self._of_key[caller.key_id] >= _MOST_OF_A_KEY:
            raise TooManyStreams(f"{_MOST_OF_A_KEY} follow with this key already.")
        self.open += 1
        self._of_key[caller.key_id] += 1

    def unregister(self, caller: Principal) -> None:
        """Count one less."""
        self.open -= 1
        self._of_key[caller.key_id] -= 1
        if not self._of_key[caller.key_id]:
            del self._of_key[caller.key_id]

    async def events(self, door: Authenticator, authorization: list[str]) -> AsyncIterator[bytes]:
        """What one of them is sent, for as long as their key is good and there are beats."""
        beat: Snapshot | None = await self._snapshots.current()
        while beat is not None:
            caller = _caller(door, authorization)
            if caller is None:
                return
            sent = beat.sequence
            yield self._event(beat, caller.tenants)
            beat = None
            while beat is None and not self._snapshots.is_closed:
                try:
                    async with asyncio.timeout(_KEEP_ALIVE):
                        beat = await self._snapshots.wait_published(sent)
                except TimeoutError:
                    yield _COMMENT
            if beat is not None:
                # Not all in one turn of the loop.
                await asyncio.sleep(random.random() * self.open / _PER_SECOND)  # noqa: S311

    def _event(self, beat: Snapshot, tenants: frozenset[str] | None) -> bytes:
        if beat is not self._rendered_of:
            self._rendered_of, self._rendered = beat, {}
        if tenants not in self._rendered:
            data = stats_event(beat, tenants).model_dump_json()
            event = f"event: beat\nid: {beat.sequence}\ndata: {data}\n\n"
            self._rendered[tenants] = event.encode()
        return self._rendered[tenants]


def _caller(door: Authenticator, authorization: list[str]) -> Principal | None:
    """Who follows, if they still may."""
    found = door.authenticate(authorization)
    caller = Principal.of_key(found) if isinstance(found, ApiKey) else found
    return caller if isinstance(caller, Principal) and KeyScope.READ in caller.scopes else None
