"""Passwords of the login roles: derived from one key, never stored, never sent in clear.

Postgres gets a SCRAM verifier (RFC 5803, as PostgreSQL stores it), so no server log can contain a
password.

Iterations make each guess more expensive, but also each login. That protects weak passwords. The
passwords of the service's own roles are 256-bit keys, which nobody can guess, so their verifiers
have one iteration and a login costs half. Passwords of applications or people get PostgreSQL's
default number; pgjdbc refuses fewer.
"""

import base64
import hmac

from app.domain.scram import scram_verifier

OWN_ITERATIONS = 1
"""SCRAM iterations of the verifiers of the service's own roles."""

# Every role of the server can read it, tenants' included. So it says so little that nobody can test
# a guess of the key with it: one of 65 536 keys has the same.
_FINGERPRINT_BYTES = 2


class RolePasswords:
    """Derives the password of a role on a server from a secret key and a version.

    The catalog stores the versions; a password that was never rotated has version 1.

    Attributes:
        key_fingerprint: tells the secret key from most others.
    """

    def __init__(self, key: bytes) -> None:
        """Use *key*, at least 32 random bytes; if it is lost, all roles need new passwords."""
        self._key = key
        self.key_fingerprint = hmac.digest(key, b"role", "sha256")[:_FINGERPRINT_BYTES].hex()
        self._versions: dict[tuple[str, str], int] = {}
        self._next: dict[tuple[str, str], int] = {}

    def __repr__(self) -> str:
        """Hides the key."""
        return "<RolePasswords>"

    def password_version(self, server: str, role: str) -> int:
        return self._versions.get((server, role), 1)

    def password_versions(self, server: str, role: str) -> frozenset[int]:
        """The versions that the role may have: of rotations under way, the last may come first."""
        known = self.password_version(server, role)
        return frozenset(range(known, self._next.get((server, role), known) + 1)) | {known}

    def begin_rotation(self, server: str, role: str, version: int) -> None:
        """Note that the role may get this version."""
        self._next[server, role] = version

    def set_password_version(self, server: str, role: str, version: int) -> None:
        self._versions[server, role] = version

    def password(self, server: str, role: str, version: int | None = None) -> str:
        """The password of *role* on *server*, in the version in use unless another one is given."""
        version = version or self.password_version(server, role)
        digest = hmac.digest(self._key, f"{server}/{role}/{version}".encode(), "sha256")
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")

    def verifier(self, server: str, role: str, version: int | None = None) -> str:
        """The verifier of that password, as Postgres stores it."""
        return scram_verifier(self.password(server, role, version), iterations=OWN_ITERATIONS)
