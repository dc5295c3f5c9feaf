"""How many connections of a server one holder may have, and how many it may still have open.

A holder is this process or a node. What a node was sent arrives late or never, and a connection
that it must close may be inside a long transaction. So a holder counts for more than its latest
allotment: for the most of what it was sent since the allotment that it last reported as applied,
that one included, and what it reports as open. This is its *liability*.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Allotment:
    """Connections of one server for one holder.

    Attributes:
        generation: grows with each allotment of that server to that holder; holders ignore older
            ones than they have.
    """

    generation: int
    connections: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Commitment:
    """What one holder was sent and has reported, for one server.

    Attributes:
        sent: allotments that may be in force, in the order in which they were sent. One that is
            followed by another of as many connections or more is left out: it cannot be in force
            for longer, and does not count for more.
        observed: the most connections that it can have open before it applies another allotment,
            as of its last report.
    """

    sent: tuple[Allotment, ...] = ()
    observed: int = 0

    @property
    def generation(self) -> int:
        """Of the latest allotment; 0 before the first."""
        return self.sent[-1].generation if self.sent else 0

    @property
    def current(self) -> int:
        """Connections of the latest allotment."""
        return self.sent[-1].connections if self.sent else 0

    @property
    def liability(self) -> int:
        """The most connections that the holder can have open now."""
        # The first was followed by smaller ones only.
        return max(self.observed, self.sent[0].connections if self.sent else 0)

    def was_larger_since(self, generation: int) -> bool:
        """Whether what was sent after *generation* was larger than the latest, and counts still.

        A holder that has *generation* in force may never have seen that.
        """
        return len(self.sent) > 1 and self.sent[0].generation > generation

    def send(self, allotment: Allotment) -> Self:
        """With another allotment, which counts from before it is sent."""
        earlier = [one for one in self.sent if one.connections > allotment.connections]
        return replace(self, sent=(*earlier, allotment))

    def acknowledge(self, generation: int, observed: int) -> Self:
        """With a report: *generation* is applied, and at most *observed* connections are open.

        Reports must be given in the order in which the holder made them.
        """
        in_force = [one for one in self.sent if one.generation >= generation]
        return replace(self, sent=tuple(in_force), observed=observed)

    def release(self) -> Self:
        """After the holder is gone: it holds nothing, and learns that when it is back.

        A new generation, because it would go on with the last one.
        """
        nothing = Allotment(generation=self.generation + 1, connections=0)
        return replace(self, sent=(nothing,), observed=0)
