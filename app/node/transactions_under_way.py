"""For how long the transactions under way can have had their connections.

A pooler does not show when a transaction got its connection. If at two looks a connection has the
same client, it may have been the same transaction all the while; with another client it is another
transaction.
"""

from collections.abc import Collection, Mapping

from app.node.engine import Backend


class TransactionsUnderWay:
    """The connections in use at the latest look; a pooler is looked at every second."""

    def __init__(self, now: float) -> None:
        self._looked_at = now
        # Since when each may be in its transaction, by entry.
        self._since: dict[str, dict[Backend, float]] = {}

    def saw(self, backends: Mapping[str, Collection[Backend]], now: float) -> None:
        """Take in the connections that exist *now*, by entry."""
        known = self._since
        self._since = {
            entry: {
                each: known.get(entry, {}).get(each, self._looked_at)
                for each in found
                if each.client
            }
            for entry, found in backends.items()
        }
        self._looked_at = now

    def seconds(self, entry: str) -> float:
        """The most seconds that all of an entry's transactions, summed, have had connections."""
        found = self._since.get(entry)
        return sum([self._looked_at - since for since in found.values()]) if found else 0.0
