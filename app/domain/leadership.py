"""Which of several instances is the active one: the rules, without a clock or a catalog.

The active instance holds an advisory lock in the catalog and renews its record there. A takeover
starts an epoch that was never used before; every write to the catalog names its writer's epoch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

# In seconds. Two renewals may fail before trust ends, and a standby gives the active instance
# longer than it gives itself.
RENEWAL_INTERVAL = 2.0
TRUST_SECONDS = 6.0
ABANDONED_AFTER = 10.0
# By how much clocks of two machines may drift apart while one waits for the other's trust to end.
_DRIFT = 0.1


class InstanceState(StrEnum):
    """What an instance does; see docs/architecture.md for the transitions."""

    STANDBY = "standby"
    ACTIVATING = "activating"
    ACTIVE = "active"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One process of the service.

    Attributes:
        id: hexadecimal, new at each start.
        url: under which other instances reach it; None if there are to be no others.
        secret_key, servers: fingerprints of what all instances must have in common.
    """

    id: str
    version: str
    url: str | None = None
    secret_key: str = ""
    servers: str = ""

    @property
    def has_standbys(self) -> bool:
        """Whether others may take over, so that it must stop when it cannot renew."""
        return self.url is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeadershipRecord:
    """What the catalog says of the active instance, or of the last one.

    Attributes:
        holder: the id of that instance; None before the first.
        age: seconds since it renewed, by the catalog's clock, which may jump.
        renewal: when that was: another text after each renewal.
        released: whether it ended in order.
        secret_key, servers, keys: its fingerprints; None if it has registered none.
        schema: the revision of the catalog's tables.
    """

    epoch: int
    holder: str | None
    url: str | None
    age: float
    released: bool
    renewal: str = ""
    secret_key: str | None = None
    servers: str | None = None
    keys: str | None = None
    schema: str | None = None

    @property
    def is_held(self) -> bool:
        return self.holder is not None and not self.released

    @property
    def has_failed(self) -> bool:
        """Whether the holder did not stop by itself: whatever does is no longer registered."""
        return self.is_held and self.secret_key is not None

    @property
    def is_abandoned(self) -> bool:
        """Whether the holder has stopped renewing: its connections to the catalog are to be ended.

        One without a URL expects no standby, and goes on through an outage of the catalog.
        """
        return self.is_held and self.url is not None and self.age > ABANDONED_AFTER

    @property
    def trust_left(self) -> float:
        """Seconds during which the holder may still open connections and lend them."""
        if not self.is_held or self.url is None:
            return 0.0
        return max(0.0, TRUST_SECONDS + _DRIFT - max(0.0, self.age))


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceRecord:
    """What the catalog says of one instance.

    Attributes:
        seen_at: when it last said that it runs.
        epoch, acquired_at: since when it is the active one; None if it is not.
    """

    id: str
    url: str | None
    version: str
    started_at: datetime
    seen_at: datetime
    epoch: int | None
    acquired_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Takeover:
    """The beginning of an epoch.

    Attributes:
        predecessor: the id of the instance that did not end in order; None if it did.
        trust_left: seconds for which that instance may still use servers.
        is_failover: whether that instance failed; it may also have stopped by itself, but without
            knowing that nothing of it is left on a server.
    """

    epoch: int
    predecessor: str | None
    trust_left: float
    is_failover: bool = False


def client_name(instance_id: str) -> str:
    """How the names of an instance's own connections begin, by which others can end them."""
    return f"poolkeeper {instance_id}"


def admin_name(client: str) -> str:
    """The name of an instance's admin connections to servers."""
    return f"{client} admin"


def refusal(record: LeadershipRecord, instance: Instance) -> str | None:
    """Why *instance* must not become active after the one in *record*; None if it may.

    Instances that differ must not take over from each other. Once all have ended, any may start.
    """
    is_current = record.is_held and record.age <= ABANDONED_AFTER
    if not (is_current and record.url is not None and instance.has_standbys):
        return None
    return _difference(instance, "the active one", record)


def refusal_among(others: Iterable[Instance], instance: Instance) -> str | None:
    """Why *instance* must not stand by beside *others*; None if it may.

    It could take over before them when the active one ends.
    """
    rivals = (other for other in others if other.has_standbys)
    differences = (_difference(instance, "another one", other) for other in rivals)
    return next((each for each in differences if each is not None), None)


def namesake_refusal(instance: Instance) -> str:
    """Why *instance* must not stand by beside one with its URL: where it is, others look for it."""
    return (
        f"Another instance that runs has the same POOLKEEPER_ADVERTISE_URL, {instance.url}."
        " Give each instance its own, at which the others reach it."
    )


def _difference(instance: Instance, who: str, other: Instance | LeadershipRecord) -> str | None:
    for name, mine, theirs in (
        ("secret key", instance.secret_key, other.secret_key),
        ("servers", instance.servers, other.servers),
    ):
        if theirs is not None and theirs != mine:
            return (
                f"This instance and {who}, {other.url}, have different settings for: {name}."
                " All instances need the same."
            )
    return None


def key_refusal(record: LeadershipRecord | None, keys: str) -> str | None:
    """Why an instance with the fingerprint *keys* of its API keys is not ready; None if it is.

    It would accept other callers as soon as it took over from the active one.
    """
    if record is None or not record.is_held or record.keys in (None, keys):
        return None
    return (
        f"The API keys of this instance and of the active one, {record.url}, differ."
        " All instances need the same keys file."
    )
