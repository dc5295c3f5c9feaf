"""Text of Postgres as JSON, exactly: what a JSON number cannot hold for everybody stays text.

Written as pieces of a document, in steps: each call of the iterators here does a bounded piece of
work, so that a value of megabytes holds up nobody. What is read is the output of Postgres' types
under the settings of `statement.SETTINGS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator, Mapping
from json.encoder import encode_basestring

from app.domain.errors import SchemaChanged, StatementFailed
from app.pools.query.interoperable_json import is_interoperable
from app.pools.query.pg_datetimes import FORMATTERS
from app.pools.query.pg_types import PgType

# How much text is handled in one step, and how many parts of it: about a millisecond each.
_PIECE = 64 * 1024
_PARTS = 1000

# They stand for an escaped backslash and quote; neither can be in a text of Postgres'.
_BACKSLASH, _QUOTE = "\0", "\ud800"

_BOOL = 16
_JSON = frozenset({114, 3802})
_INTEGERS = frozenset({20, 21, 23, 26, 28, 29, 5069})
_FLOATS = frozenset({700, 701})
_VECTORS = frozenset({22, 30})
_COORDINATES = frozenset({27, 600, 601, 603, 628, 718})

_TO_BRACKETS = str.maketrans("{(<})>", "[[[]]]")
_INTEGERS_TO_JSON = str.maketrans("{}NUL", "[]nul")
_BOOLS_TO_JSON = str.maketrans(
    {"{": "[", "}": "]", "N": "n", "U": "u", "L": "l", "t": "true", "f": "false"}
)
_END_OF_BARE = re.compile("[{},]")
_NUMBER_IN_BRACKETS = re.compile(r"[^\[\],]++")


def to_json(text: str, kind: PgType, out: list[str]) -> Iterator[None]:
    """Append the JSON of *text*, a value of the type *kind*, to *out*, step by step.

    Raises:
        SchemaChanged: it is no value of that type, as it was looked up.
    """
    if kind.shape == "array":
        yield from _array(text, kind, out)
    elif kind.shape == "composite":
        yield from _composite(text, kind, out)
    elif kind.shape == "multirange":
        yield from _multirange(text, kind, out)
    elif kind.shape == "range":
        yield from _string(_range(text, kind), out)
    elif (form := _form(kind)) is not None and len(text) <= _PIECE:
        out.append(form(text))
    elif kind.oid in _JSON and (yield from is_interoperable(text)):
        out.append(text)
    else:
        yield from _string(text, out)


def _form(kind: PgType) -> Callable[[str], str] | None:
    """What makes JSON of a short text of this type, if that is a matter of one call."""
    if kind.shape != "scalar" or kind.oid in _JSON:
        return None
    return _SIMPLE.get(kind.oid, encode_basestring)


def decode(value: bytes) -> str:
    """The text of a value.

    Raises:
        StatementFailed: it is in another encoding, as it may be where a database has none.
    """
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise StatementFailed(
            "A value of the result is not UTF-8; convert it, for example with encode().",
            sqlstate="22021",
        ) from error


def _string(text: str, out: list[str]) -> Iterator[None]:
    if len(text) <= _PIECE:
        out.append(encode_basestring(text))
        return
    out.append('"')
    for at in range(0, len(text), _PIECE):
        out.append(encode_basestring(text[at : at + _PIECE])[1:-1])
        yield
    out.append('"')


# --- arrays -----------------------------------------------------------------------------------


def _array(text: str, kind: PgType, out: list[str]) -> Iterator[None]:
    element = kind.element
    if element is None or text[:1] not in ("{", "["):
        raise SchemaChanged
    # Bounds other than 1, and dimensions of what has some of its own, JSON cannot tell.
    if text[0] == "[" or (element.oid in _JSON and text.startswith("{{")):
        yield from _string(text, out)
        return
    if text == "{}":
        out.append("[]")
        return
    if len(text) > _PIECE and (table := (yield from _table(text, element))):
        for at in range(0, len(text), _PIECE):
            out.append(text[at : at + _PIECE].translate(table))
            yield
        return
    if len(text) > _PIECE and _is_plain(text, element):
        yield from _plain(text, out)
        return
    if "\\" in text:
        text = yield from _replaced(text, "\\\\", _BACKSLASH)
        text = yield from _replaced(text, '\\"', _QUOTE)
    yield from _elements(text, element, out)


def _elements(text: str, element: PgType, out: list[str]) -> Iterator[None]:
    form = _form(element)
    at = parts = 0
    while at < len(text):
        parts += 1
        if parts % _PARTS == 0:
            yield
        letter = text[at]
        if letter in "{}":
            out.append("[" if letter == "{" else "]")
        elif letter == element.delimiter:
            out.append(",")
        else:
            end = _end_of_element(text, at, element.delimiter)
            inner = text[at:end] if letter != '"' else text[at + 1 : end - 1]
            if letter == '"':
                inner = yield from _replaced(inner, _QUOTE, '"')
                inner = yield from _replaced(inner, _BACKSLASH, "\\")
            if letter != '"' and inner == "NULL":
                out.append("null")
            elif form is not None and len(inner) <= _PIECE:
                out.append(form(inner))
            else:
                yield from to_json(inner, element, out)
            at = end - 1
        at += 1


def _end_of_element(text: str, at: int, delimiter: str) -> int:
    """Where the element that begins at *at* is over; the quotes around it are part of it."""
    if text[at] == '"':
        end = text.find('"', at + 1) + 1
    else:
        # Boxes are separated by ";", shapes of PostGIS by ":".
        end_of_bare = (
            _END_OF_BARE if delimiter == "," else re.compile(f"[{{}}{re.escape(delimiter)}]")
        )
        found = end_of_bare.search(text, at)
        end = found.start() if found else 0
    if end <= at:
        raise SchemaChanged
    return end


def _replaced(text: str, old: str, new: str) -> Generator[None, None, str]:
    """*text* with *new* for *old*, one or two letters, piece by piece."""
    if len(text) <= _PIECE:
        return text.replace(old, new)
    pieces = []
    at = 0
    while at < len(text):
        end = at + _PIECE
        if len(old) > 1 and end < len(text):
            # No pair is cut: of a run of one letter the pairs begin where it begins.
            piece = text[at:end]
            run = len(piece) - len(piece.rstrip(old[0]))
            end += run % 2
        pieces.append(text[at:end].replace(old, new))
        at = end
        yield
    return "".join(pieces)


def _table(text: str, element: PgType) -> Generator[None, None, Mapping[int, int | str] | None]:
    """How to turn a whole array into JSON letter by letter, if it can be done."""
    if element.oid in _FLOATS:
        # Letters of NaN and Infinity, and the zero that would lose its sign.
        for each in ("a", "y", "-0"):
            yield
            if each in text:
                return None
        return _INTEGERS_TO_JSON
    if element.oid in _INTEGERS:
        return _INTEGERS_TO_JSON
    return _BOOLS_TO_JSON if element.oid == _BOOL else None


def _is_plain(text: str, element: PgType) -> bool:
    """Whether it is of one dimension, of strings that Postgres had to quote none of."""
    return (
        element.shape == "scalar"
        and element.oid not in _SIMPLE
        and element.oid not in _JSON
        and element.delimiter == ","
        and '"' not in text
        and "{" not in text[1:]
    )


def _plain(text: str, out: list[str]) -> Iterator[None]:
    at, last = 1, len(text) - 1
    opening = "["
    while at <= last:
        end = text.rfind(",", at, at + _PIECE) if last - at > _PIECE else last
        if end < 0:
            end = text.find(",", at)
            end = last if end < 0 else end
        piece = text[at:end]
        if len(piece) > _PIECE:
            out.append(opening)
            yield from _string(piece, out)
        else:
            listed = encode_basestring(piece).replace(",", '","')
            out.append(opening + listed.replace('"NULL"', "null"))
        opening = ","
        at = end + 1
        yield
    out.append("]")


# --- composites and ranges --------------------------------------------------------------------


def _composite(text: str, kind: PgType, out: list[str]) -> Iterator[None]:
    if text[:1] != "(" or text[-1:] != ")":
        raise SchemaChanged
    at, last = 1, len(text) - 1
    opening = "{"
    for number, (name, part) in enumerate(kind.attributes):
        if number:
            if text[at : at + 1] != ",":
                raise SchemaChanged
            at += 1
        out.append(f"{opening}{encode_basestring(name)}:")
        opening = ","
        if at == last or text[at] == ",":
            out.append("null")
        elif text[at] == '"':
            end = yield from _end_of_quoted(text, at)
            inner = yield from _replaced(text[at + 1 : end], '""', '"')
            inner = yield from _replaced(inner, "\\\\", "\\")
            yield from to_json(inner, part, out)
            at = end + 1
        else:
            end = text.find(",", at)
            end = last if end < 0 else end
            yield from to_json(text[at:end], part, out)
            at = end
    if at != last:
        raise SchemaChanged
    out.append("}" if kind.attributes else "{}")


def _end_of_quoted(text: str, at: int) -> Generator[None, None, int]:
    """Where the quotes that open at *at* close; quotes inside are doubled."""
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
            yield


def _range(text: str, kind: PgType) -> str:
    """A range as Postgres writes it, its moments as everywhere."""
    form = FORMATTERS.get(kind.element.oid) if kind.element is not None else None
    if form is None or text == "empty":
        return text
    bounds = [each.strip('"') for each in text[1:-1].split(",")]
    shown = (form(each) if each else "" for each in bounds)
    inside = ",".join(f'"{each}"' if " " in each else each for each in shown)
    return text[0] + inside + text[-1]


def _multirange(text: str, kind: PgType, out: list[str]) -> Iterator[None]:
    if kind.element is None or text[:1] != "{":
        raise SchemaChanged
    out.append("[")
    at, parts, begin, is_quoted = 1, 0, 1, False
    mark = re.compile(r'["\\\])]')
    while found := mark.search(text, at):
        parts += 1
        if parts % _PARTS == 0:
            yield
        at = found.end()
        if found[0] == "\\":
            at += 1
        elif found[0] == '"':
            is_quoted = not is_quoted
        elif not is_quoted:
            yield from _string(_range(text[begin:at], kind.element), out)
            if text[at : at + 1] == ",":
                out.append(",")
            at = begin = at + 1
    out.append("]")


# --- scalars ----------------------------------------------------------------------------------


def _bool(text: str) -> str:
    return "true" if text == "t" else "false"


def _integer(text: str) -> str:
    return text


def _float(text: str) -> str:
    """A number of JSON; those that are not finite are strings."""
    if text[-1] in "Ny":
        return f'"{text}"'
    return text if text != "-0" else "-0.0"


def _coordinates(text: str) -> str:
    """Points and what is made of them as arrays."""
    inside = text.translate(_TO_BRACKETS)
    if inside.startswith("[") and inside.endswith("]") and not _is_list_of_lists(inside):
        return _NUMBER_IN_BRACKETS.sub(lambda found: _float(found[0]), inside)
    return _NUMBER_IN_BRACKETS.sub(lambda found: _float(found[0]), f"[{inside}]")


def _is_list_of_lists(text: str) -> bool:
    """Whether the first bracket closes before the end: a box has none around its points."""
    return 0 < text.find("]") < len(text) - 1 and not text.startswith("[[")


def _vector(text: str) -> str:
    return "[" + text.replace(" ", ",") + "]"


def _quoting(form: Callable[[str], str]) -> Callable[[str], str]:
    return lambda text: encode_basestring(form(text))


_SIMPLE: Mapping[int, Callable[[str], str]] = {
    _BOOL: _bool,
    **dict.fromkeys(_INTEGERS, _integer),
    **dict.fromkeys(_FLOATS, _float),
    **dict.fromkeys(_VECTORS, _vector),
    **dict.fromkeys(_COORDINATES, _coordinates),
    **{oid: _quoting(form) for oid, form in FORMATTERS.items()},
}
