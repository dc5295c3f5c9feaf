"""Rate limits: requests per key and per credential, and failed logins per address.

They use GCRA, a leaky bucket that keeps one number per key (ATM Forum, Traffic Management 4.0,
4.4.3): a burst up to the limit, then an even rate. Memory is bounded; the least recently used entry
is dropped first.
"""

from collections import OrderedDict
from ipaddress import IPv6Address, ip_address
from time import monotonic

_MAX_KEYS = 10_000
_MAX_CREDENTIALS = 10_000
_MAX_ADDRESSES = 10_000
# Enough for typing errors, far too few to guess 256 bits.
_FAILURES_PER_MINUTE = 30
_FAILURES_LOGGED_PER_MINUTE = 30
_MINUTE = 60.0
# The precision of sums of monotonic seconds.
_ROUNDING = 1e-6


class RateLimits:
    """Counters of recent requests and failures."""

    def __init__(
        self, per_second: int, *, credential_per_second: int = 0, credential_burst: int = 0
    ) -> None:
        """*per_second*: the limit of keys without their own limit; 0: unlimited.

        *credential_per_second*: the same for each application credential; *credential_burst* of its
        requests may come at once.
        """
        self._per_second = per_second
        self._credential_per_second = credential_per_second
        self._credential_burst = max(credential_per_second, credential_burst)
        self._keys = _Buckets(_MAX_KEYS)
        self._credentials = _Buckets(_MAX_CREDENTIALS)
        self._failures = _Buckets(_MAX_ADDRESSES)
        self._logged = _Buckets(1)

    def check_key(self, key_id: str, per_second: int | None) -> float:
        """Count a request of a key; return the seconds that it must wait, 0 if it may pass."""
        rate = self._per_second if per_second is None else per_second
        return self._keys.fill(key_id, rate, 1.0) if rate else 0.0

    def check_credential(self, user: str) -> float:
        """Like `check_key`, for a credential."""
        rate, burst = self._credential_per_second, self._credential_burst
        return self._credentials.fill(user, burst, burst / rate) if rate else 0.0

    def check_address(self, address: str) -> float:
        """Count a failure of an address; return the seconds that it must wait, 0 for none."""
        return self._failures.fill(network_of(address), _FAILURES_PER_MINUTE, _MINUTE)

    def should_log(self) -> bool:
        return not self._logged.fill("log", _FAILURES_LOGGED_PER_MINUTE, _MINUTE)


class _Buckets:
    """The time at which each key's bucket is empty."""

    def __init__(self, most: int) -> None:
        """Keep at most *most* keys."""
        self._most = most
        self._empty_at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._empty_at)

    def fill(self, key: str, limit: int, seconds: float) -> float:
        """Add one to the bucket of *key*, which holds *limit* and empties in *seconds*.

        Returns the seconds until it has room for one more, 0 if it had room.
        """
        now = monotonic()
        empty_at = max(now, self._empty_at.get(key, now))
        wait = empty_at + seconds / limit - now - seconds
        self._empty_at[key] = empty_at if wait > _ROUNDING else empty_at + seconds / limit
        self._empty_at.move_to_end(key)
        if len(self._empty_at) > self._most:
            self._empty_at.popitem(last=False)
        return wait if wait > _ROUNDING else 0.0


def network_of(address: str) -> str:
    """The network that counts as one client: an IPv4 address, or a /64 of IPv6."""
    try:
        found = ip_address(address)
    except ValueError:
        return address or "unknown"
    if not isinstance(found, IPv6Address):
        return address
    return str(found.ipv4_mapped or int(found) >> 64)
