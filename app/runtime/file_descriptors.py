"""File descriptors: uses as many as the system allows, and limits those of HTTP clients."""

import resource

# More is useless for one process, and some systems allow a billion.
_MAX_DESCRIPTORS = 65_536
# For everything except clients and server budgets: the catalog, logins, files, and connections that
# are accepted before others are closed for them.
_RESERVE = 100
# Clients get at least this share, even if the budgets alone would need more.
_MIN_SHARE = 4
_MAX_CLIENTS = 10_000


def raise_descriptor_limit() -> int:
    """Raise this process's soft limit as far as allowed; return the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return wanted if soft == resource.RLIM_INFINITY else soft


def max_clients(limit: int, budgets: int) -> int:
    """How many clients may connect when *limit* descriptors also serve *budgets* connections."""
    return min(_MAX_CLIENTS, max(limit // _MIN_SHARE, limit - budgets - _RESERVE))
