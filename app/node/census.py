"""A census: which users are logged in, taken now and then, and which of them may no longer be.

A revoked credential is refused from then on. But its clients may be logged in, or be logging in:
PgBouncer uses the verifier that it knew when the login began.
"""

from collections.abc import Collection, Mapping

from app.domain.nodes.configuration import NodeConfiguration
from app.domain.nodes.rollout import revoked

# In seconds. With many clients, a census is expensive.
_INTERVAL = 10.0
_CLOSE_INTERVAL = 1.0
# The longest login: `client_login_timeout`, and a few censuses.
_LOGIN_SECONDS = 20.0


class Census:
    """The clients of a pooler, by entry."""

    def __init__(self) -> None:
        self._clients: Mapping[str, Collection[str]] = {}
        # Users that may be logged in with a replaced password.
        self._suspects: Mapping[str, Collection[str]] = {}
        self._next = self._watched_until = float("-inf")

    def begin(self, before: NodeConfiguration | None, after: NodeConfiguration, now: float) -> None:
        """Note that *after* is in force; *before* was (None: unknown)."""
        self._suspects = revoked(before, after) if before else {}
        if self._suspects or not before:
            self._next, self._watched_until = now, now + _LOGIN_SECONDS

    def is_due(self, now: float) -> bool:
        return now >= self._next

    def take(
        self, clients: Mapping[str, Collection[str]], in_force: NodeConfiguration, now: float
    ) -> Mapping[str, Collection[str]]:
        """Take in the logged-in users; return those that may not be connected, by entry."""
        self._clients = clients
        self._next = now + (_CLOSE_INTERVAL if now < self._watched_until else _INTERVAL)
        suspects, self._suspects = self._suspects, {}
        admitted = {
            entry.name: {login.user for login in entry.logins}.difference(
                suspects.get(entry.name, ())
            )
            for entry in in_force.entries
            if entry.name in clients
        }
        strangers = {name: set(clients[name]) - users for name, users in admitted.items()}
        return {name: users for name, users in strangers.items() if users}

    @property
    def users(self) -> frozenset[str]:
        """All logged-in users."""
        return frozenset(user for users in self._clients.values() for user in users)
