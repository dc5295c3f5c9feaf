"""How many connections of a server one holder may have, and how many it may still have open.

A holder is this process or a node. An allotment may reach a node late or never, and a connection
that it must close may be inside a long transaction. So a holder counts for more than its latest
allotment. It counts for its *liability*: the largest of the allotments sent since the one that it
last reported as applied (included), and of the connections that it reports as open.
"""

from dataclasses import dataclass, replace
from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Allotment:
    """Connections of one server for one holder.

    Attributes:
        generation: grows with each allotment of that server to that holder; holders ignore
            allotments older than theirs.
    """

    generation: int
    connections: int


NO_ALLOTMENT = Allotment(generation=0, connections=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Commitment:
    """The allotments sent to one holder for one server, and its reports.

    Attributes:
        sent: allotments that may be in force, oldest first. One that is followed by an equal or
            larger one is left out: it would not raise the liability.
        observed: as of its last report, the most connections that it can have open before it
            applies another allotment.
    """

    sent: tuple[Allotment, ...] = ()
    observed: int = 0

    @property
    def generation(self) -> int:
        """The generation of the latest allotment; 0 before the first."""
        return self.sent[-1].generation if self.sent else 0

    @property
    def current(self) -> int:
        """The connections of the latest allotment."""
        return self.sent[-1].connections if self.sent else 0

    @property
    def liability(self) -> int:
        """The most connections that the holder can have open now."""
        # The first is the largest: only smaller ones follow it.
        return max(self.observed, self.sent[0].connections if self.sent else 0)

    def was_larger_since(self, generation: int) -> bool:
        """Whether an allotment sent after *generation* was larger than the latest and still counts.

        A holder that has *generation* in force may never have received it.
        """
        return len(self.sent) > 1 and self.sent[0].generation > generation

    def send(self, allotment: Allotment) -> Self:
        """Add an allotment; it counts from before it is sent."""
        earlier = [one for one in self.sent if one.connections > allotment.connections]
        return replace(self, sent=(*earlier, allotment))

    def acknowledge(self, generation: int, observed: int) -> Self:
        """Add a report: *generation* is applied, and at most *observed* connections are open.

        Reports must be added in the order in which the holder made them.
        """
        in_force = [one for one in self.sent if one.generation >= generation]
        return replace(self, sent=tuple(in_force), observed=observed)

    def release(self) -> Self:
        """Take everything back after the holder is gone; it learns that when it returns.

        The generation is new, because otherwise it would continue with the last one.
        """
        nothing = Allotment(generation=self.generation + 1, connections=0)
        return replace(self, sent=(nothing,), observed=0)
