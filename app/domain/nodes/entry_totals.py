"""The sums that a pooler and its agent keep of one entry; PgBouncer keeps no histograms."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from math import floor, log2

# Waits are counted by quarter octaves of milliseconds: under 1.2 ms, under 1.4 ms, and so on.
_STEPS_PER_OCTAVE = 4
_MILLISECOND = 0.001

WAIT_CLASSES = 68
"""The number of wait classes; the last class has no upper edge."""

WaitClasses = tuple[float, ...]
"""For each class, the seconds during which the oldest waiter's wait was in that class."""

EDGES = tuple(_MILLISECOND * 2 ** (step / _STEPS_PER_OCTAVE) for step in range(1, WAIT_CLASSES))
"""The upper edges of the classes, in seconds; the last class has none."""


def class_of(wait: float) -> int:
    """The class of a *wait* in seconds, at least 0."""
    if wait <= _MILLISECOND:
        return 0
    return min(WAIT_CLASSES - 1, floor(log2(wait / _MILLISECOND) * _STEPS_PER_OCTAVE))


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryTotals:
    """Sums of one entry. They restart from zero when the pooler frees its pool, or restarts.

    Those of seconds also fall when the clock of the pooler's machine is set back.

    Attributes:
        transactions: those that clients asked for; in sums of `EndedTransactions` those that ended.
        begun: those of them that got a connection; None if the pooler does not count them, or its
            agent does not report them.
        transaction_seconds: durations of those that ended, with the wait for a connection.
        wait_seconds: waits of those that got a connection, or likewise of those that ended.
        busy_seconds: connections in use, integrated over time as the agent saw them; restarts from
            zero with each agent. None if its agent does not report it.
        oldest_waits: as the agent saw them; they restart from zero with each agent.
    """

    transactions: int = 0
    begun: int | None = None
    transaction_seconds: float = 0.0
    wait_seconds: float = 0.0
    busy_seconds: float | None = None
    oldest_waits: WaitClasses = ()

    def since(self, earlier: EntryTotals) -> EntryTotals:
        """Return what was added after *earlier*, at least.

        All sums have restarted if a count fell in between.
        """
        waits = _difference(self.oldest_waits, earlier.oldest_waits)
        busy = self._busy_since(earlier)
        if not self.continues(earlier):
            earlier = _NOTHING
        return EntryTotals(
            transactions=self.transactions - earlier.transactions,
            begun=self._begun_since(earlier),
            transaction_seconds=max(0.0, self.transaction_seconds - earlier.transaction_seconds),
            wait_seconds=max(0.0, self.wait_seconds - earlier.wait_seconds),
            busy_seconds=busy,
            oldest_waits=waits,
        )

    def continues(self, earlier: EntryTotals) -> bool:
        """Whether the sums have not restarted since *earlier*."""
        begun = self._begun_since(earlier) or 0
        return begun >= 0 and self.transactions >= earlier.transactions

    def _begun_since(self, earlier: EntryTotals) -> int | None:
        """What began after *earlier*; unknown if one agent reported it, and the other did not."""
        if earlier.transactions == 0:
            return self.begun
        if self.begun is None or earlier.begun is None:
            return None
        return self.begun - earlier.begun

    def _busy_since(self, earlier: EntryTotals) -> float | None:
        if self.busy_seconds is None:
            return None
        before = earlier.busy_seconds or 0.0
        return self.busy_seconds - (before if before <= self.busy_seconds else 0.0)

    def plus(self, added: EntryTotals) -> EntryTotals:
        """Add what was *added* after these."""
        waits = zip_longest(self.oldest_waits, added.oldest_waits, fillvalue=0.0)
        return EntryTotals(
            transactions=self.transactions + added.transactions,
            transaction_seconds=self.transaction_seconds + added.transaction_seconds,
            wait_seconds=self.wait_seconds + added.wait_seconds,
            oldest_waits=tuple(one + other for one, other in waits),
        )

    @property
    def held_seconds(self) -> float:
        """The time for which transactions had a connection."""
        # The two times are read separately: a transaction may end in between.
        return max(0.0, self.transaction_seconds - self.wait_seconds)


_NOTHING = EntryTotals()


def _difference(waits: WaitClasses, earlier: WaitClasses) -> WaitClasses:
    if not waits:
        return ()
    if len(earlier) > len(waits) or any(
        now < before for now, before in zip(waits, earlier, strict=False)
    ):
        return waits
    pairs = zip_longest(waits, earlier, fillvalue=0.0)
    return tuple(now - before for now, before in pairs)
