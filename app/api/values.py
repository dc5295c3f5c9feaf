"""Values of Postgres as JSON: what a double may hold stays a number, the rest becomes text.

Text is what Postgres itself would read again as a value of that type. Anything unknown
becomes its text, so that no result can fail here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, TypeAlias

import asyncpg

from app.api.nesting import DEEPEST_SHOWN, parts_of

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"


def to_json(value: object, type_name: str = "") -> Json:
    r"""*value*, of the Postgres type *type_name*, as what a JSON document can hold.

    json and jsonb are parsed; numeric is text, for a double would round it; timestamps are
    RFC 3339, intervals ISO 8601, bytea is `\x` and hex, ranges are as in SQL, arrays are
    arrays, and composite values objects. An infinite date becomes the first or the last one of
    the driver's range: the driver gives the same value for both.
    """
    match value:
        case None | bool() | int():
            return value
        case float() if math.isfinite(value):
            return value
        case str():
            return _parsed(value) if type_name in ("json", "jsonb") else value
        case asyncpg.Record():
            return {name: to_json(part) for name, part in value.items()}
        case list() | tuple():
            return [to_json(part, type_name.removesuffix("[]")) for part in value]
        case _:
            return _text(value, type_name)


def _text(value: object, type_name: str) -> str:
    if type_name == "char" and isinstance(value, bytes):  # "char", one byte of Postgres' catalogs
        return value.decode("latin-1")
    return _TEXTS.get(type(value), str)(value)


def _non_finite(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def _moment(value: datetime) -> str:
    """RFC 3339; the driver gives the ends of its own range for what Postgres calls infinity."""
    at = value.replace(tzinfo=UTC)
    if at == datetime.max.replace(tzinfo=UTC):
        return "infinity"
    if at == datetime.min.replace(tzinfo=UTC):
        return "-infinity"
    return value.isoformat().replace("+00:00", "Z")


def _duration(value: timedelta) -> str:
    """ISO 8601, days first, each part with the sign of the whole."""
    sign = "-" if value < timedelta(0) else ""
    value = abs(value)
    minutes, seconds = divmod(value.seconds, 60)
    hours, minutes = divmod(minutes, 60)
    fraction = f".{value.microseconds:06}".rstrip("0") if value.microseconds else ""
    return f"P{sign}{value.days}DT{sign}{hours}H{sign}{minutes}M{sign}{seconds}{fraction}S"


def _range(value: asyncpg.Range[Any]) -> str:
    if value.isempty:
        return "empty"
    lower, upper = ("" if end is None else _bound(end) for end in (value.lower, value.upper))
    opening = "[" if value.lower_inc else "("
    return f"{opening}{lower},{upper}{']' if value.upper_inc else ')'}"


def _bound(end: object) -> str:
    text = str(to_json(end))
    if text and not set(text) & set(',"\\()[] '):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _parsed(text: str) -> Json:
    try:
        value: Json = json.loads(text, parse_float=_number)
        for part in parts_of(value, deepest=DEEPEST_SHOWN):
            if isinstance(part, str):
                part.encode()  # json may hold half of a surrogate pair, our answer may not
    except (ValueError, RecursionError):
        return text
    return value


def _number(digits: str) -> float | str:
    number = float(digits)
    return number if math.isfinite(number) else digits


def _points(value: asyncpg.Path | asyncpg.Polygon) -> str:
    inside = ",".join(f"({point.x!r},{point.y!r})" for point in value.points)
    is_open = isinstance(value, asyncpg.Path) and not value.is_closed
    return f"[{inside}]" if is_open else f"({inside})"


_TEXTS: Mapping[type, Callable[[Any], str]] = {
    Decimal: "{:f}".format,
    asyncpg.BitString: lambda value: value.as_string().replace(" ", ""),
    asyncpg.Path: _points,
    asyncpg.Polygon: _points,
    asyncpg.Range: _range,
    bytes: lambda value: "\\x" + value.hex(),
    date: date.isoformat,
    datetime: _moment,
    float: _non_finite,
    time: time.isoformat,
    timedelta: _duration,
}
