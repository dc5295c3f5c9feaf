"""Rate limits: of requests per key, and of failed logins per address.

GCRA (a leaky bucket that keeps one number per key): a burst up to the limit, then an even rate.
Memory is bounded; the least recently used entry is dropped first.
"""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address

from throttled import Throttled, per_min, per_sec
from throttled.constants import RateLimiterType
from throttled.rate_limiter import Quota
from throttled.store import MemoryStore

_MAX_KEYS = 10_000
_MAX_ADDRESSES = 10_000
# Enough for typing errors, far too few to guess 256 bits.
_FAILURES_PER_MINUTE = 30
_FAILURES_LOGGED_PER_MINUTE = 30


class RateLimits:
    """Counters of recent requests and failures."""

    def __init__(self, per_second: int) -> None:
        """*per_second*: for keys without a limit of their own; 0: unlimited."""
        self._per_second = per_second
        self._keys = MemoryStore(options={"MAX_SIZE": _MAX_KEYS})
        self._key_limits: dict[int, Throttled] = {}
        addresses = MemoryStore(options={"MAX_SIZE": _MAX_ADDRESSES})
        self._failures = _throttled(per_min(_FAILURES_PER_MINUTE), addresses)
        self._logged = _throttled(
            per_min(_FAILURES_LOGGED_PER_MINUTE), MemoryStore(options={"MAX_SIZE": 1})
        )

    def check_key(self, key_id: str, per_second: int | None) -> float:
        """Count a request of a key; the seconds it has to wait, 0 if it may pass."""
        rate = self._per_second if per_second is None else per_second
        if not rate:
            return 0.0
        limit = self._key_limits.get(rate)
        if limit is None:
            limit = self._key_limits[rate] = _throttled(per_sec(rate), self._keys)
        return _wait(limit, key_id)

    def check_address(self, address: str) -> float:
        """Count a failure of an address; the seconds it has to wait, 0 if it may try again."""
        return _wait(self._failures, network_of(address))

    def should_log(self) -> bool:
        return not _wait(self._logged, "log")


def _throttled(quota: Quota, store: MemoryStore) -> Throttled:
    return Throttled(using=RateLimiterType.GCRA.value, quota=quota, store=store)


def _wait(limit: Throttled, key: str) -> float:
    result = limit.limit(key)
    return result.state.retry_after if result.limited else 0.0


def network_of(address: str) -> str:
    """What counts as one client: an address of IPv4, and all of a /64 of IPv6."""
    try:
        found = ip_address(address)
    except ValueError:
        return address or "unknown"
    if not isinstance(found, IPv6Address):
        return address
    return str(found.ipv4_mapped or int(found) >> 64)
