"""From the configuration in force to the wanted one: what must not wait, and what must.

A pooler stalls its clients while it reads its files, so changes are collected. But a revoked
credential must be refused at once; and a change that could exceed the allotment, or abort a
transaction, must wait.
"""

from collections.abc import Mapping
from dataclasses import replace

from app.domain.nodes.configuration import NodeConfiguration


def revoked(before: NodeConfiguration, after: NodeConfiguration) -> Mapping[str, frozenset[str]]:
    """The users that lose access to an entry that stays, or get a new password, by entry."""
    remaining = {entry.name: entry.logins for entry in after.entries}
    lost = {
        entry.name: frozenset(
            login.user for login in entry.logins if login not in remaining[entry.name]
        )
        for entry in before.entries
        if entry.name in remaining
    }
    return {name: users for name, users in lost.items() if users}


def is_urgent(
    before: NodeConfiguration, after: NodeConfiguration, *, recycles: bool = True
) -> bool:
    """Whether *after* must soon be in force.

    A login is revoked, a role has a new password, or, if *recycles*, connections are replaced.
    """
    known = {entry.name: entry for entry in before.entries}
    return bool(revoked(before, after)) or any(
        (was := known.get(entry.name)) is not None
        and (was.password != entry.password or (recycles and was.recycles != entry.recycles))
        for entry in after.entries
    )


def without_delay(
    before: NodeConfiguration, after: NodeConfiguration, sizes: Mapping[str, int]
) -> NodeConfiguration:
    """Return *after* without growth or removal of entries; nobody can log in to a removed one.

    Args:
        sizes: the sizes of the pooler's present entries.
    """
    staying = [
        entry
        if entry.size <= (most := sizes.get(entry.name, entry.size))
        else replace(entry, size=most)
        for entry in after.entries
    ]
    names = {entry.name for entry in staying}
    leaving = [
        replace(entry, draining=True, size=sizes[entry.name])
        for entry in before.entries
        if entry.name in sizes and entry.name not in names
    ]
    servers = {entry.server: before.servers[entry.server] for entry in leaving}
    return replace(after, servers={**servers, **after.servers}, entries=(*staying, *leaving))
