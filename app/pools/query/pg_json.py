"""Postgres' text as JSON, exactly: numbers that not every parser can read stay strings.

A value becomes pieces of a document. Each piece takes a bounded time, at most about a millisecond,
so that the joiner can pause between them; an empty piece also allows a pause. The text is the
output of Postgres' types with `statement.OUTPUT_SETTINGS`.
"""

import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from json.encoder import encode_basestring
from typing import cast

from app.domain.errors import SchemaChanged, StatementFailed
from app.pools.query.interoperable_json import is_interoperable
from app.pools.query.pg_datetimes import FORMATTERS
from app.pools.query.pg_types import JSON, VECTORS, PgType

# The most text in a piece, and the most matches of a search for one.
_PIECE = 64 * 1024
_PARTS = 1000

# Placeholders for an escaped backslash and quote; neither can be in a text of Postgres.
_BACKSLASH, _QUOTE = "\0", "\ud800"

_BOOL = 16
_INTEGERS = frozenset({20, 21, 23, 26, 28, 29, 5069})
_FLOATS = frozenset({700, 701})
_COORDINATES = frozenset({27, 600, 601, 603, 628, 718})

_TO_BRACKETS = str.maketrans("{(<})>", "[[[]]]")
_INTEGERS_TO_JSON = str.maketrans("{}NUL", "[]nul")
_BOOLS_TO_JSON = str.maketrans(
    {"{": "[", "}": "]", "N": "n", "U": "u", "L": "l", "t": "true", "f": "false"}
)
_NUMBER_IN_BRACKETS = re.compile(r"[^\[\],]+")
_MULTIRANGE_MARK = re.compile(r'["\\\])]')


def to_json(text: str, kind: PgType) -> Iterable[str]:
    """Convert *text*, a value of the type *kind*, to JSON, in pieces.

    Raises:
        SchemaChanged: it is not a value of the type as it was looked up.
    """
    formatter = formatter_of(kind)
    if formatter is not None and len(text) <= _PIECE:
        return (formatter(text),)
    return _pieces(text, kind)


def _pieces(text: str, kind: PgType) -> Iterator[str]:
    if kind.shape == "array":
        yield from _array(text, kind)
    elif kind.shape == "composite":
        yield from _composite(text, kind)
    elif kind.shape == "multirange":
        yield from _multirange(text, kind)
    elif kind.shape == "range":
        yield from _string(_range(text, kind))
    elif kind.oid in JSON and (yield from is_interoperable(text)):
        yield text
    else:
        yield from _string(text)


def formatter_of(kind: PgType) -> Callable[[str], str] | None:
    """The function that converts a short text of this type to JSON, if one call suffices."""
    if kind.shape != "scalar" or kind.oid in JSON:
        return None
    return _FORMATTERS.get(kind.oid, encode_basestring)


def column_to_json(
    values: Sequence[bytes | None], formatter: Callable[[str], str]
) -> Sequence[str]:
    """Convert a column's short *values* to JSON, with `formatter_of`'s function for the type.

    Raises:
        StatementFailed: as `decode`.
    """
    try:
        if None in values:
            return ["null" if each is None else formatter(each.decode()) for each in values]
        return list(map(formatter, map(bytes.decode, cast("Sequence[bytes]", values))))
    except UnicodeDecodeError as error:
        raise _not_utf8() from error


def decode(value: bytes) -> str:
    """Decode the text of a value.

    Raises:
        StatementFailed: it is in another encoding, which is possible in a SQL_ASCII database.
    """
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise _not_utf8() from error


def _not_utf8() -> StatementFailed:
    return StatementFailed(
        "A value of the result is not UTF-8; convert it, for example with encode().",
        sqlstate="22021",
    )


def _string(text: str) -> Iterator[str]:
    if len(text) <= _PIECE:
        yield encode_basestring(text)
        return
    yield '"'
    for at in range(0, len(text), _PIECE):
        yield encode_basestring(text[at : at + _PIECE])[1:-1]
    yield '"'


# --- arrays -----------------------------------------------------------------------------------


def _array(text: str, kind: PgType) -> Iterator[str]:
    element = kind.element
    if element is None or text[:1] not in ("{", "["):
        raise SchemaChanged
    is_long = len(text) > _PIECE
    # JSON has no lower bounds. And if elements may be arrays themselves, a two-dimensional array
    # looks like an array of arrays.
    holds_arrays = element.oid in JSON or element.shape == "array"
    if text[0] == "[" or (holds_arrays and text.startswith("{{")):
        yield from _string(text)
    elif text == "{}":
        yield "[]"
    elif is_long and (table := (yield from _translation(text, element))):
        for at in range(0, len(text), _PIECE):
            yield text[at : at + _PIECE].translate(table)
    elif is_long and _is_unquoted(text, element):
        yield from _unquoted_elements(text)
    else:
        if "\\" in text:
            text = yield from _replaced(text, "\\\\", _BACKSLASH)
            text = yield from _replaced(text, '\\"', _QUOTE)
        yield from _elements(text, element)


def _elements(text: str, element: PgType) -> Iterator[str]:
    formatter = formatter_of(element)
    signs = {"{": "[", "}": "]", element.delimiter: ","}
    # Boxes are separated by ";", and PostGIS shapes by ":".
    end_of_unquoted = re.compile(f"[{{}}{re.escape(element.delimiter)}]")
    at = 0
    while at < len(text):
        letter = text[at]
        if letter in signs:
            yield signs[letter]
            at += 1
            continue
        if letter == '"':
            end = text.find('"', at + 1)
            if end < 0:
                raise SchemaChanged
            inner = yield from _replaced(text[at + 1 : end], _QUOTE, '"')
            inner = yield from _replaced(inner, _BACKSLASH, "\\")
            at = end + 1
        else:
            found = end_of_unquoted.search(text, at)
            if found is None:
                raise SchemaChanged
            inner, at = text[at : found.start()], found.start()
            if inner == "NULL":
                yield "null"
                continue
        if formatter is not None and len(inner) <= _PIECE:
            yield formatter(inner)
        else:
            yield from to_json(inner, element)


def _replaced(text: str, old: str, new: str) -> Generator[str, None, str]:
    """Replace *old*, one or two letters, by *new* in *text*; yields empty pieces."""
    if len(text) <= _PIECE:
        return text.replace(old, new)
    pieces = []
    at = 0
    while at < len(text):
        end = at + _PIECE
        if len(old) > 1 and end < len(text):
            # Do not cut a pair: in a run of one letter, pairs begin where the run begins.
            piece = text[at:end]
            run = len(piece) - len(piece.rstrip(old[0]))
            end += run % 2
        pieces.append(text[at:end].replace(old, new))
        at = end
        yield ""
    return "".join(pieces)


def _translation(
    text: str, element: PgType
) -> Generator[str, None, Mapping[int, int | str] | None]:
    """How to convert a whole array to JSON letter by letter; None if that is not possible."""
    if element.oid in _FLOATS:
        # The letters of NaN and Infinity, and of a zero that would lose its sign.
        for each in ("a", "y", "-0"):
            yield ""
            if each in text:
                return None
        return _INTEGERS_TO_JSON
    if element.oid in _INTEGERS:
        return _INTEGERS_TO_JSON
    return _BOOLS_TO_JSON if element.oid == _BOOL else None


def _is_unquoted(text: str, element: PgType) -> bool:
    """Whether it has one dimension, and strings that Postgres did not have to quote."""
    return (
        element.shape == "scalar"
        and element.oid not in _FORMATTERS
        and element.oid not in JSON
        and element.delimiter == ","
        and '"' not in text
        and "{" not in text[1:]
    )


def _unquoted_elements(text: str) -> Iterator[str]:
    at, last = 1, len(text) - 1
    sign = "["
    while at <= last:
        end = text.rfind(",", at, at + _PIECE) if last - at > _PIECE else last
        if end < 0:
            end = text.find(",", at)
            end = last if end < 0 else end
        yield sign
        if end - at > _PIECE:
            yield from _string(text[at:end])
        else:
            strings = encode_basestring(text[at:end]).replace(",", '","')
            yield strings.replace('"NULL"', "null")
        sign = ","
        at = end + 1
    yield "]"


# --- composites and ranges --------------------------------------------------------------------


def _composite(text: str, kind: PgType) -> Iterator[str]:
    if text[:1] != "(" or text[-1:] != ")":
        raise SchemaChanged
    at, last = 1, len(text) - 1
    yield "{"
    for number, (name, part) in enumerate(kind.attributes):
        if number:
            if text[at : at + 1] != ",":
                raise SchemaChanged
            at += 1
            yield ","
        yield f"{encode_basestring(name)}:"
        if at == last or text[at] == ",":
            yield "null"
        elif text[at] == '"':
            end = yield from _end_of_quoted(text, at)
            inner = yield from _replaced(text[at + 1 : end], '""', '"')
            inner = yield from _replaced(inner, "\\\\", "\\")
            yield from to_json(inner, part)
            at = end + 1
        else:
            end = text.find(",", at)
            end = last if end < 0 else end
            yield from to_json(text[at:end], part)
            at = end
    if at != last:
        raise SchemaChanged
    yield "}"


def _end_of_quoted(text: str, at: int) -> Generator[str, None, int]:
    """The end of the quotes that open at *at*; quotes inside are doubled."""
    parts = 0
    at += 1
    while True:
        at = text.find('"', at)
        if at < 0:
            raise SchemaChanged
        if text[at + 1 : at + 2] != '"':
            return at
        at += 2
        parts += 1
        if parts % _PARTS == 0:
            yield ""


def _range(text: str, kind: PgType) -> str:
    """Format a range as Postgres does, but its bounds as outside of ranges."""
    formatter = FORMATTERS.get(kind.element.oid) if kind.element is not None else None
    if formatter is None or text == "empty":
        return text
    bounds = [each.strip('"') for each in text[1:-1].split(",")]
    shown = (formatter(each) if each else "" for each in bounds)
    inside = ",".join(f'"{each}"' if " " in each else each for each in shown)
    return text[0] + inside + text[-1]


def _multirange(text: str, kind: PgType) -> Iterator[str]:
    if kind.element is None or text[:1] != "{":
        raise SchemaChanged
    yield "["
    at, parts, begin, is_quoted = 1, 0, 1, False
    while found := _MULTIRANGE_MARK.search(text, at):
        parts += 1
        if parts % _PARTS == 0:
            yield ""
        at = found.end()
        if found[0] == "\\":
            at += 1
        elif found[0] == '"':
            is_quoted = not is_quoted
        elif not is_quoted:
            yield from _string(_range(text[begin:at], kind.element))
            if text[at : at + 1] == ",":
                yield ","
            at = begin = at + 1
    yield "]"


# --- scalars ----------------------------------------------------------------------------------


def _float(text: str) -> str:
    """A JSON number; a string if it is not finite."""
    if text[-1] in "Ny":
        return f'"{text}"'
    return text if text != "-0" else "-0.0"


def _coordinates(text: str) -> str:
    """Points, and types that consist of points, as arrays."""
    inside = text.translate(_TO_BRACKETS)
    # A box has no brackets around its points: its first bracket closes before the end.
    is_bare = 0 < inside.find("]") < len(inside) - 1 and not inside.startswith("[[")
    if is_bare or not (inside.startswith("[") and inside.endswith("]")):
        inside = f"[{inside}]"
    return _NUMBER_IN_BRACKETS.sub(lambda found: _float(found[0]), inside)


def _quoting(formatter: Callable[[str], str]) -> Callable[[str], str]:
    return lambda text: encode_basestring(formatter(text))


_FORMATTERS: Mapping[int, Callable[[str], str]] = {
    _BOOL: lambda text: "true" if text == "t" else "false",
    **dict.fromkeys(_INTEGERS, str),
    **dict.fromkeys(_FLOATS, _float),
    **dict.fromkeys(VECTORS, lambda text: "[" + text.replace(" ", ",") + "]"),
    **dict.fromkeys(_COORDINATES, _coordinates),
    **{oid: _quoting(formatter) for oid, formatter in FORMATTERS.items()},
}
