"""What is known to be wrong with versions of poolers that nodes run."""

from __future__ import annotations

import re

_is_pgbouncer = re.compile(r"PgBouncer (\d+)\.(\d+)(?:\.(\d+))?").fullmatch
_Version = tuple[int, int, int]

# The first version that has it, the first that does not, and what it is.
_KNOWN: tuple[tuple[_Version, _Version, str], ...] = (
    ((1, 17, 0), (1, 26, 1), "one user can log in as another (CVE-2026-107350)"),
    ((0, 0, 0), (1, 25, 2), "a client can crash it before it logs in (CVE-2026-6664)"),
    ((0, 0, 0), (1, 24, 0), "to revoke one credential cuts all clients of its tenant"),
    ((0, 0, 0), (1, 24, 0), "each change of its configuration replaces TLS connections to servers"),
    ((0, 0, 0), (1, 21, 0), "clients cannot use prepared statements"),
)


def weaknesses(engine: str) -> tuple[str, ...]:
    """What operators should know of a pooler of that name and version; a sentence for each."""
    found = _is_pgbouncer(engine)
    if found is None:
        return ()
    version = (int(found[1]), int(found[2]), int(found[3] or 0))
    return tuple(
        f"{engine}: {what}. Fixed in {fixed[0]}.{fixed[1]}.{fixed[2]}."
        for first, fixed, what in _KNOWN
        if first <= version < fixed
    )
