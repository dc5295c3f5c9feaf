"""Which of several instances is the active one: the rules, without a clock or a catalog.

The active instance holds an advisory lock in the catalog and renews its record there. A takeover
starts an epoch that was never used before, not even before a restore of the catalog; every write to
the catalog names its writer's epoch.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

# In seconds. Two renewals may fail before trust ends. A standby waits longer before it takes over
# than the active instance trusts itself.
RENEWAL_INTERVAL = 2.0
# Within this time of undisturbed looks, an active instance that works has renewed.
RENEWS_WITHIN = RENEWAL_INTERVAL + 1.0
TRUST_SECONDS = 6.0
ABANDONED_AFTER = 10.0
# How far the clocks of two machines may drift apart while one waits for the other's trust to end.
_DRIFT = 0.1


class InstanceState(StrEnum):
    """What an instance does. The transitions are in docs/architecture.md."""

    STANDBY = "standby"
    ACTIVATING = "activating"
    ACTIVE = "active"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One process of the service.

    Attributes:
        id: hexadecimal, new at each start.
        url: where other instances reach it; None if it runs alone.
        secret_key, servers: fingerprints of settings that all instances must share.
    """

    id: str
    version: str
    url: str | None = None
    secret_key: str = ""
    servers: str = ""

    @property
    def has_standbys(self) -> bool:
        """Whether others may take over; then it must stop when it cannot renew."""
        return self.url is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeadershipRecord:
    """The catalog's record of the active instance, or of the last one.

    Attributes:
        holder: the id of that instance; None before the first.
        age: seconds since its last renewal, by the catalog's clock, which may jump.
        renewal: the time of that renewal, as a text that differs after each one.
        released: whether it stopped cleanly.
        secret_key, servers, keys: its fingerprints; None if it has registered none. That of the
            keys begins with its form and a colon.
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
        """Whether the holder ended without a clean stop; a clean stop removes its registration."""
        return self.is_held and self.secret_key is not None

    @property
    def is_abandoned(self) -> bool:
        """Whether the holder has stopped renewing, so that its catalog connections must be ended.

        An instance without a URL expects no standby, and keeps running while the catalog is away.
        If the catalog's clock was set back since the last renewal, its age says nothing.
        """
        is_recent = 0.0 <= self.age <= ABANDONED_AFTER
        return self.is_held and self.url is not None and not is_recent

    @property
    def trust_left(self) -> float:
        """Seconds during which the holder may still open connections and lend them."""
        if not self.is_held or self.url is None:
            return 0.0
        return max(0.0, TRUST_SECONDS + _DRIFT - max(0.0, self.age))


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceRecord:
    """What the catalog knows about one instance.

    Attributes:
        seen_at: when it last reported that it runs.
        epoch, acquired_at: its epoch and the time it became active; None if it is not active.
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
    """The start of an epoch.

    Attributes:
        predecessor: the id of the previous instance if it did not stop cleanly; else None.
        trust_left: seconds for which that instance may still use servers.
        is_failover: whether that instance failed. Otherwise it stopped, but may have left something
            on a server.
    """

    epoch: int
    predecessor: str | None
    trust_left: float
    is_failover: bool = False


def client_name(instance_id: str) -> str:
    """The prefix of the names of an instance's own connections; others end them by it."""
    return f"poolkeeper {instance_id}"


def admin_name(client: str) -> str:
    """The name of an instance's admin connections to servers."""
    return f"{client} admin"


def refusal(record: LeadershipRecord, instance: Instance) -> str | None:
    """Say why *instance* must not become active after the one in *record*; None if it may.

    Instances that differ must not take over from each other. Once all have ended, any may start.
    """
    is_current = record.is_held and record.age <= ABANDONED_AFTER
    if not (is_current and record.url is not None and instance.has_standbys):
        return None
    return _difference(instance, "the active one", record)


def refusal_among(others: Iterable[Instance], instance: Instance) -> str | None:
    """Say why *instance* must not stand by beside *others*; None if it may.

    When the active instance ends, it could take over before they do.
    """
    rivals = (other for other in others if other.has_standbys)
    differences = (_difference(instance, "another one", other) for other in rivals)
    return next((each for each in differences if each is not None), None)


def namesake_refusal(instance: Instance) -> str:
    """Say why *instance* must not stand by beside another one that advertises the same URL."""
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
    """Say why an instance whose API keys have the fingerprint *keys* is not ready; None if it is.

    After a takeover it would accept other callers than the active one does. Fingerprints of another
    form, as another version makes them, say nothing: both may have the same keys.
    """
    if record is None or not record.is_held or record.keys in (None, keys):
        return None
    if _form(record.keys) != _form(keys):
        return None
    return (
        f"The API keys of this instance and of the active one, {record.url}, differ."
        " All instances need the same keys file."
    )


def _form(keys: str) -> str:
    form, colon, _ = keys.partition(":")
    return form if colon else ""
