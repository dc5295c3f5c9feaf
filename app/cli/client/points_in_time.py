"""Points in time as options take them: RFC 3339, or how long ago, such as 1h."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_AGO = re.compile(r"([1-9]\d{0,4})([mhdw])")
_UNITS = {
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}
HELP = "RFC 3339, or how long ago: 30m, 1h, 7d"


def point_in_time(given: str | None) -> str | None:
    """*given* for the service, which knows RFC 3339 only; it judges all that is not so long ago."""
    found = _AGO.fullmatch(given or "")
    if found is None:
        return given
    return (datetime.now(UTC) - int(found[1]) * _UNITS[found[2]]).isoformat()
