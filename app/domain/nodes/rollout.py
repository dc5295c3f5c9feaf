"""From the configuration in force to the one that is wanted: what must not wait, and what must.

A pooler stalls its clients while it reads its files, so changes are collected. But a revoked
credential is refused at once, and what can exceed the allotment, or cut a transaction, waits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from app.domain.nodes.configuration import NodeConfiguration


def revoked(before: NodeConfiguration, after: NodeConfiguration) -> Mapping[str, frozenset[str]]:
    """Users who lose their way into an entry that stays, by entry; one with a new password, too."""
    remaining = {entry.name: entry.logins for entry in after.entries}
    lost = {
        entry.name: frozenset(
            login.user for login in entry.logins if login not in remaining[entry.name]
        )
        for entry in before.entries
        if entry.name in remaining
    }
    return {name: users for name, users in lost.items() if users}


def is_urgent(before: NodeConfiguration, after: NodeConfiguration) -> bool:
    """Whether *after* must be in force soon: a login is revoked, or a role has a new password."""
    passwords = {entry.name: entry.password for entry in before.entries}
    return bool(revoked(before, after)) or any(
        passwords.get(entry.name, entry.password) != entry.password for entry in after.entries
    )


def without_delay(
    before: NodeConfiguration, after: NodeConfiguration, sizes: Mapping[str, int]
) -> NodeConfiguration:
    """*after*, but no entry is larger than it is now, and none disappears: nobody can enter it.

    Args:
        sizes: of the entries that the pooler has.
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
