"""Finds the principal of a request by its API key, and counts refusals.

A key never reaches a log. Every caller without a valid key gets the same response; only the
operator's log and metrics have the reason.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from hmac import compare_digest
from time import time

import structlog

from app.api.auth.api_key import ApiKey, key_id_of, token_digest
from app.api.auth.key_file import KeyFile
from app.api.auth.principal import UNRESTRICTED, Principal
from app.api.auth.rate_limits import RateLimits

_NO_DIGEST = bytes(32)
# In seconds: a use within this time after the last one is not noted.
_USE_PRECISION = 60.0

_log = structlog.get_logger(__name__)


class AuthFailure(StrEnum):
    """Why a request was refused."""

    NO_KEY = "no_key"
    MALFORMED = "malformed"
    UNKNOWN = "unknown"
    EXPIRED = "expired"
    WRONG_PASSWORD = "wrong_password"  # noqa: S105 - a reason, no password
    MISSING_SCOPE = "missing_scope"
    TENANT_BOUND = "bound_to_tenants"
    NODE_BOUND = "bound_to_node"


class Authenticator:
    """Checks keys and their rate limits, and notes when a key was last used.

    Attributes:
        uses_since: from when on it has noted every use.
    """

    def __init__(self, keys: KeyFile, limits: RateLimits) -> None:
        self.keys = keys
        self.failures: Counter[AuthFailure] = Counter()
        self.rate_limited: Counter[str] = Counter()
        self._limits = limits
        # By the id of the key, in seconds since 1970.
        self._uses: dict[str, float] = {}
        self.uses_since = datetime.now(UTC)

    def begin_serving(self) -> None:
        """Note uses from now on: those before were another instance's."""
        self._uses.clear()
        self.uses_since = datetime.now(UTC)

    def last_used_at(self, key: ApiKey) -> datetime | None:
        """When *key* was last used, to the minute; None if not since `uses_since`."""
        at = self._uses.get(key.id)
        return None if at is None else datetime.fromtimestamp(at, UTC)

    def load_keys(self) -> None:
        """Read the key file; warn if there is none.

        Raises:
            InvalidKeyFile: the file cannot be used.
        """
        self.keys.load()
        if not self.keys.is_enforced:
            _log.warning(
                "no API keys: local programs have full access", keys_file=str(self.keys.path)
            )

    def authenticate(self, authorization: Sequence[str]) -> Principal | AuthFailure:
        """Find the principal by the request's Authorization headers."""
        if not self.keys.is_enforced:
            return UNRESTRICTED
        if not authorization:
            return AuthFailure.NO_KEY
        scheme, _, token = authorization[0].partition(" ")
        token = token.strip(" ")
        key_id = key_id_of(token)
        if len(authorization) > 1 or scheme.lower() != "bearer" or key_id is None:
            return AuthFailure.MALFORMED
        key = self.keys.find(key_id)
        # An unknown id takes the same steps as a wrong key.
        is_valid = compare_digest(token_digest(token), _NO_DIGEST if key is None else key.digest)
        if key is None or not is_valid:
            return AuthFailure.UNKNOWN
        if key.expires_at is not None and key.expires_at <= datetime.now(UTC):
            return AuthFailure.EXPIRED
        now = time()
        if abs(now - self._uses.get(key_id, 0.0)) >= _USE_PRECISION:
            self._uses[key_id] = now
        return Principal.of_key(key)

    def throttle(self, principal: Principal) -> float:
        """Count a request; return the seconds that this key must wait, 0 if it may pass."""
        if principal.key_id is None:
            return 0.0
        wait = self._limits.check_key(principal.key_id, principal.requests_per_second)
        return self._counted("key", wait)

    def throttle_credential(self, user: str) -> float:
        """Count a request; return the seconds that the credential must wait, 0 if it may pass."""
        return self._counted("credential", self._limits.check_credential(user))

    def reject(self, failure: AuthFailure, address: str) -> float:
        """Record a failure; return the seconds that this address must wait, 0 if it may retry."""
        self.record_failure(failure, client=address)
        return self._counted("address", self._limits.check_address(address))

    def _counted(self, by: str, wait: float) -> float:
        if wait:
            self.rate_limited[by] += 1
        return wait

    def record_failure(self, failure: AuthFailure, **fields: str) -> None:
        """Count a failure, and log it unless the log already has too many."""
        self.failures[failure] += 1
        if self._limits.should_log():
            _log.warning("request refused", reason=str(failure), **fields)
