"""How often somebody may ask: a key its requests, a stranger's address its failures.

Counted by GCRA (a leaky bucket that keeps one number for each): as many at once as the limit
says, then evenly. The memory is bounded; whoever was not seen for longest is forgotten first.
"""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address

from throttled import Throttled, per_min, per_sec
from throttled.constants import RateLimiterType
from throttled.rate_limiter import Quota
from throttled.store import MemoryStore

_MOST_KEYS = 10_000
_MOST_ADDRESSES = 10_000
# A person who mistypes stays below them; nobody guesses 256 bits faster above them.
_FAILURES_PER_MINUTE = 30
_FAILURES_LOGGED_PER_MINUTE = 30


class RateLimits:
    """What was asked lately, and by whom."""

    def __init__(self, per_second: int) -> None:
        """Let each key ask *per_second* times, unless it has its own limit; 0: without end."""
        self._per_second = per_second
        self._of_keys = MemoryStore(options={"MAX_SIZE": _MOST_KEYS})
        self._by_rate: dict[int, Throttled] = {}
        addresses = MemoryStore(options={"MAX_SIZE": _MOST_ADDRESSES})
        self._failures = _throttled(per_min(_FAILURES_PER_MINUTE), addresses)
        self._logged = _throttled(
            per_min(_FAILURES_LOGGED_PER_MINUTE), MemoryStore(options={"MAX_SIZE": 1})
        )

    def check_key(self, key_id: str, per_second: int | None) -> float:
        """Count a request of a key; the seconds it has to wait instead, 0 if it may pass."""
        rate = self._per_second if per_second is None else per_second
        if not rate:
            return 0.0
        limit = self._by_rate.get(rate)
        if limit is None:
            limit = self._by_rate[rate] = _throttled(per_sec(rate), self._of_keys)
        return _wait(limit, key_id)

    def check_address(self, address: str) -> float:
        """Count a failure of an address; the seconds it should wait, 0 if that is no matter yet."""
        return _wait(self._failures, _neighbourhood(address))

    def should_log(self) -> bool:
        """Whether one more failure may be logged."""
        return not _wait(self._logged, "log")


def _throttled(quota: Quota, store: MemoryStore) -> Throttled:
    return Throttled(using=RateLimiterType.GCRA.value, quota=quota, store=store)


def _wait(limit: Throttled, key: str) -> float:
    result = limit.limit(key)
    return result.state.retry_after if result.limited else 0.0


def _neighbourhood(address: str) -> str:
    """An IPv6 client has a whole /64 of addresses: they count as one."""
    try:
        found = ip_address(address)
    except ValueError:
        return address or "unknown"
    if not isinstance(found, IPv6Address):
        return address
    return str(found.ipv4_mapped or int(found) >> 64)
