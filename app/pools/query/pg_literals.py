"""JSON values as literals of Postgres types.

Postgres refuses values that do not fit, such as 7.5 for an integer.
"""

from collections.abc import Iterable
from json.encoder import encode_basestring
from typing import NoReturn

from app.domain.errors import StatementFailed
from app.pools.query.pg_types import JSON, VECTORS, PgType

# Each level of composites doubles the quotes of the one inside.
_MAX_LENGTH = 4 * 1024 * 1024
# Numbers that Postgres does not count as numeric: xid, cid, xid8.
_COUNTERS = frozenset({28, 29, 5069})
# The brackets around the coordinates of geometric types and of a row's address.
_BRACKETS = {
    27: "({})",  # tid
    600: "({})",  # point
    601: "[{}]",  # lseg
    602: "[{}]",  # path
    603: "{}",  # box
    604: "({})",  # polygon
    628: "{{{}}}",  # line
    718: "<{}>",  # circle
}
# How many levels of lists one value of these types is.
_LEVELS = dict.fromkeys((22, 27, 30, 600, 628), 1) | dict.fromkeys((601, 602, 603, 604, 718), 2)


def literal(value: object, kind: PgType) -> str | None:
    """Convert *value* to text of the type *kind*; None is NULL.

    A string is the text of any type. Numbers bind to numeric types, booleans to boolean and numeric
    types. Arrays bind to arrays, composites (by position), ranges (lower and upper bound, both
    inclusive), multiranges and geometric types. Objects bind to composites (by name). json and
    jsonb take any value.

    Raises:
        StatementFailed: it does not fit.
    """
    if value is None:
        return None
    if kind.oid in JSON:
        return _json(value)
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return ("true" if value else "false") if kind.category in "BN" else _misfit(value, kind)
    if isinstance(value, list):
        text = _of_list(value, kind)
    elif isinstance(value, dict):
        text = _of_object(value, kind)
    else:
        is_number = kind.category == "N" or kind.oid in _COUNTERS
        text = str(value) if is_number else _misfit(value, kind)
    if len(text) > _MAX_LENGTH:
        raise StatementFailed("The value is too large.", sqlstate="54000")
    return text


def untyped_literal(value: object) -> str | None:
    """Convert *value* to text for a parameter of any type; None is NULL.

    A string stays as it is, a list becomes an array, any other value its JSON.

    Raises:
        StatementFailed: it is too large.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list):
        return "{" + _joined(map(_untyped_element, value), ",") + "}"
    return _json(value)


def _untyped_element(value: object) -> str:
    text = untyped_literal(value)
    if text is None:
        return "NULL"
    return text if isinstance(value, list) else _quoted(text, '"', '\\"')


def _json(value: object) -> str:
    """Convert *value* to a JSON document; numbers keep their digits."""
    if isinstance(value, str):
        return encode_basestring(value)
    if isinstance(value, list):
        return "[" + ",".join(map(_json, value)) + "]"
    if isinstance(value, dict):
        parts = (f"{encode_basestring(key)}:{_json(part)}" for key, part in value.items())
        return "{" + ",".join(parts) + "}"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _of_list(values: list[object], kind: PgType) -> str:
    if kind.oid in _BRACKETS:
        return _BRACKETS[kind.oid].format(_coordinates(values, kind))
    if kind.oid in VECTORS:
        return " ".join(_number(each, kind) for each in values)
    if kind.shape == "composite":
        kinds = [part for _, part in kind.attributes]
        if len(values) != len(kinds):
            _misfit(values, kind)
        return _composite(map(literal, values, kinds))
    if kind.element is None:
        _misfit(values, kind)
    if kind.shape == "array":
        return _array(values, kind, kind.element)
    if kind.shape == "range":
        return _range(values, kind, kind.element)
    if None in values:
        _misfit(values, kind)
    return "{" + _joined((str(literal(each, kind.element)) for each in values), ",") + "}"


def _of_object(value: dict[str, object], kind: PgType) -> str:
    unknown = value.keys() - {name for name, _ in kind.attributes}
    if kind.shape != "composite":
        _misfit(value, kind)
    if unknown:
        raise StatementFailed(
            f"Type {kind.name} has no attribute {min(unknown)}.", sqlstate="22000"
        )
    return _composite(literal(value.get(name), part) for name, part in kind.attributes)


def _array(values: list[object], kind: PgType, element: PgType) -> str:
    def part(value: object) -> str:
        if isinstance(value, list) and _is_dimension(value, element):
            return _array(value, kind, element)
        text = literal(value, element)
        return "NULL" if text is None else _quoted(text, '"', '\\"')

    return "{" + _joined(map(part, values), element.delimiter) + "}"


def _is_dimension(values: list[object], element: PgType) -> bool:
    """Whether *values* are elements of an array instead of a single element."""
    if element.oid in JSON or element.shape == "array":
        return False
    if element.shape == "composite":
        return all(isinstance(each, list | dict | None) for each in values)
    levels = 1 if element.shape == "multirange" else _LEVELS.get(element.oid, 0)
    if not values:
        return element.shape != "multirange" and element.oid not in VECTORS
    # No coordinate is null, and a string among lists of points is a whole value, not a point.
    is_whole = None in values or (levels > 1 and isinstance(values[0], str))
    return is_whole or _depth(values) > levels


def _depth(value: object) -> int:
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0


def _range(values: list[object], kind: PgType, element: PgType) -> str:
    if not values:
        return "empty"
    if len(values) > 2:  # noqa: PLR2004 - lower and upper
        _misfit(values, kind)
    lower, upper = (literal(each, element) for each in (*values, None)[:2])
    bounds = ("" if each is None else _quoted(each, '"', '""') for each in (lower, upper))
    opening, closing = "(" if lower is None else "[", ")" if upper is None else "]"
    return opening + ",".join(bounds) + closing


def _composite(parts: Iterable[str | None]) -> str:
    shown = ("" if each is None else _quoted(each, '"', '""') for each in parts)
    return "(" + _joined(shown, ",") + ")"


def _joined(parts: Iterable[str], delimiter: str) -> str:
    """Join *parts*; refuse them before they take more memory than a parameter may."""
    joined: list[str] = []
    room = _MAX_LENGTH
    for each in parts:
        room -= len(each)
        if room < 0:
            raise StatementFailed("The value is too large.", sqlstate="54000")
        joined.append(each)
    return delimiter.join(joined)


def _quoted(text: str, quote: str, escaped: str) -> str:
    return quote + text.replace("\\", "\\\\").replace(quote, escaped) + quote


def _coordinates(values: list[object], kind: PgType) -> str:
    return ",".join(
        f"({_coordinates(each, kind)})" if isinstance(each, list) else _number(each, kind)
        for each in values
    )


def _number(value: object, kind: PgType) -> str:
    if value is None or isinstance(value, bool | list | dict):
        _misfit(value, kind)
    return str(value)


_NAMES: tuple[tuple[type, str], ...] = (
    (bool, "A boolean"),
    (list, "An array"),
    (dict, "An object"),
    (type(None), "null"),
)


def _misfit(value: object, kind: PgType) -> NoReturn:
    what = next((name for each, name in _NAMES if isinstance(value, each)), "A number")
    raise StatementFailed(
        f"{what} does not fit type {kind.name}; give it as a string.", sqlstate="22000"
    )
