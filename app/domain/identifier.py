"""Identifiers of Postgres in SQL that people are to run."""

from __future__ import annotations

import re

_PLAIN_NAME = re.compile(r"[a-z_][a-z0-9_]*")


def quoted(name: str) -> str:
    """*name* as SQL needs it: in double quotes, unless it is plain."""
    return name if _PLAIN_NAME.fullmatch(name) else '"' + name.replace('"', '""') + '"'
