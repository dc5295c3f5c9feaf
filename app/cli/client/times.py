"""Time options: a number and a unit, such as 90d, or RFC 3339."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

_LIFETIME = re.compile(r"([1-9]\d{0,4})([hdw])")
_AGO = re.compile(r"([1-9]\d{0,4})([mhdw])")
_UNITS = {
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}
TIMES = "RFC 3339, or how long ago: 30m, 1h, 7d"

ExpiresOption = Annotated[
    str | None,
    typer.Option("--expires", metavar="90d", help="Lifetime in h, d or w; unlimited if omitted."),
]


def expiry(lifetime: str | None, now: datetime) -> datetime | None:
    """Compute when something that begins *now* expires; None: never.

    Raises:
        ValueError: it is not a lifetime; the message describes the format.
    """
    if not lifetime:
        return None
    found = _LIFETIME.fullmatch(lifetime)
    if found is None:
        raise ValueError(f"Invalid lifetime {lifetime}; use a number and h, d or w, such as 90d.")
    return now + int(found[1]) * _UNITS[found[2]]


def point_in_time(given: str | None) -> str | None:
    """Convert "90d ago" to RFC 3339 for the service, which judges all other values."""
    found = _AGO.fullmatch(given or "")
    if found is None:
        return given
    return (datetime.now(UTC) - int(found[1]) * _UNITS[found[2]]).isoformat()
