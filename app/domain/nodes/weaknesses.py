"""Known weaknesses of pooler versions that nodes run."""

import re
from collections.abc import Iterable

_is_pgbouncer = re.compile(r"PgBouncer (\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?").fullmatch
_Version = tuple[int, int, int]
# The first version with the weakness, the first without it, and its description.
_Weakness = tuple[_Version, _Version, str]

_VULNERABILITIES: tuple[_Weakness, ...] = (
    ((1, 17, 0), (1, 26, 1), "one user can log in as another (CVE-2026-107350)"),
    ((0, 0, 0), (1, 25, 2), "a client can crash it before it logs in (CVE-2026-6664)"),
    ((1, 18, 0), (1, 21, 0), "a client that cancels statements can crash it"),
)
_LIMITS: tuple[_Weakness, ...] = (
    ((0, 0, 0), (1, 24, 0), "one tenant's clients can keep those of all others out"),
    ((0, 0, 0), (1, 24, 0), "to revoke one credential cuts all clients of its tenant"),
    ((0, 0, 0), (1, 24, 0), "each change of its configuration replaces TLS connections to servers"),
    ((0, 0, 0), (1, 21, 0), "clients cannot use prepared statements"),
)


def weaknesses(engine: str) -> tuple[str, ...]:
    """Describe the weaknesses of a pooler with that name and version, one sentence each."""
    return _sentences(engine, (*_VULNERABILITIES, *_LIMITS))


def vulnerabilities(engine: str) -> tuple[str, ...]:
    """The weaknesses that an attacker can exploit."""
    return _sentences(engine, _VULNERABILITIES)


def _sentences(engine: str, known: Iterable[_Weakness]) -> tuple[str, ...]:
    found = _is_pgbouncer(engine)
    if found is None:
        return ()
    version = (int(found[1]), int(found[2]), int(found[3] or 0))
    return tuple(
        f"{engine}: {what}. Fixed in {fixed[0]}.{fixed[1]}.{fixed[2]}."
        for first, fixed, what in known
        if first <= version < fixed
    )
