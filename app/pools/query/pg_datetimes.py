"""Postgres' timestamps, times and intervals in the formats of RFC 3339 and ISO 8601, exactly.

They stay text, because Python's types are limited to the years 1 to 9999, and have no months, no
24:00 and no infinity. Values outside the standards stay as Postgres writes and reads them.
"""

import re
from collections.abc import Callable, Mapping

_OFFSET = re.compile(r"[-\d]+ [.:\d]+([+-])(\d\d)(?::(\d\d))?(?::(\d\d))?\Z")


def _timestamp(text: str) -> str:
    return text.replace(" ", "T", 1) if text[0].isdigit() else text


def _timestamptz(text: str) -> str:
    """Format a timestamp in UTC, as RFC 3339 where it has a format for it."""
    is_bc = text.endswith(" BC")
    timestamp = text.removesuffix(" BC")
    found = _OFFSET.match(timestamp)
    if found is None:  # infinity
        return text
    timestamp = timestamp[: found.start(1)]
    hours, minutes, seconds = (int(each or 0) for each in found.groups()[1:])
    offset = (hours * 60 + minutes) * 60 + seconds
    if offset:
        timestamp, is_bc = _shifted(timestamp, is_bc, -offset if found[1] == "+" else offset)
    return timestamp.replace(" ", "T", 1) + "Z" + (" BC" if is_bc else "")


def _shifted(timestamp: str, is_bc: bool, seconds: int) -> tuple[str, bool]:  # noqa: FBT001
    """Add *seconds* to *timestamp*."""
    day, _, clock = timestamp.partition(" ")
    year, month, date = map(int, day.split("-"))
    hour, minute, second = clock[:8].split(":")
    number = _day_number(1 - year if is_bc else year, month, date)
    days, rest = divmod((int(hour) * 60 + int(minute)) * 60 + int(second) + seconds, 86_400)
    year, month, date = _date_of(number + days)
    is_bc = year <= 0
    hours, rest = divmod(rest, 3600)
    return (
        f"{1 - year if is_bc else year:04}-{month:02}-{date:02} "
        f"{hours:02}:{rest // 60:02}:{rest % 60:02}{clock[8:]}"
    ), is_bc


def _day_number(year: int, month: int, day: int) -> int:
    """Days since 1 March of the year 0; Howard Hinnant, "chrono-compatible date algorithms"."""
    year -= month <= 2  # noqa: PLR2004 - January and February end a year here
    era, of_era = divmod(year, 400)
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year


def _date_of(number: int) -> tuple[int, int, int]:
    era, of_era = divmod(number, 146_097)
    years = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * years + years // 4 - years // 100)
    month = (5 * of_year + 2) // 153
    day = of_year - (153 * month + 2) // 5 + 1
    month = month + 3 if month < 10 else month - 9  # noqa: PLR2004 - from March
    return era * 400 + years + (month <= 2), month, day  # noqa: PLR2004


def _interval(text: str) -> str:
    """Format as ISO 8601, each part with its sign, as Postgres reads it in any IntervalStyle."""
    if text.endswith("infinity"):
        return text
    date = clock = number = ""
    for part in text.split():
        if ":" in part:
            sign = "-" if part[0] == "-" else ""
            hours, minutes, seconds = part.lstrip("+-").split(":")
            whole, dot, fraction = seconds.partition(".")
            parts = ((hours, "H", ""), (minutes, "M", ""), (whole, "S", dot + fraction))
            clock = "".join(
                f"{sign}{int(each)}{rest}{unit}" for each, unit, rest in parts if int(each) or rest
            )
        elif part[0].isalpha():
            date += number + part[0].upper()
        else:
            number = part.lstrip("+")
    return f"P{date}T{clock}" if clock else f"P{date}" if date else "PT0S"


def _timetz(text: str) -> str:
    return text + ":00" if text[-3:-2] in ("+", "-") else text


# By type oid: types whose values are JSON strings, but not in the text that Postgres writes.
FORMATTERS: Mapping[int, Callable[[str], str]] = {
    1114: _timestamp,
    1184: _timestamptz,
    1186: _interval,
    1266: _timetz,
}
