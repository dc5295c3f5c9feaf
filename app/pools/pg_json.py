"""Text of Postgres as JSON, exactly: what a JSON number cannot hold for everybody stays text.

Written as pieces of a document, in steps: each call of the iterators here does a bounded piece of
work, so that a value of megabytes holds up nobody. What is read is the output of Postgres' types
under the settings of `statement.SETTINGS`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Generator, Iterator, Mapping
from json.encoder import encode_basestring

from app.domain.errors import SchemaChanged
from app.pools.pg_moment import FORMS
from app.pools.pg_types import PgType

# How much text is handled in one step, and how many parts of it: about a millisecond each.
_PIECE = 64 * 1024
_PARTS = 1000
# Deeper JSON, and numbers that common parsers refuse, are shown as the text that they are.
_DEEPEST_JSON = 100
_LONGEST_NUMBER = 4000

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
_NUMBER_IN_BRACKETS = re.compile(r"[^\[\],]++")
# Outside of its strings, what there is to look at in JSON.
_MARK = re.compile(r'["\[\]{}]|[-0-9][-+.0-9eE]*+')


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
    elif kind.oid in _JSON:
        yield from _document(text, out)
    elif (simple := _SIMPLE.get(kind.oid)) is not None:
        out.append(simple(text))
    else:
        yield from _string(text, out)


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
    if len(text) > _PIECE and (table := _table(text, element)):
        for at in range(0, len(text), _PIECE):
            out.append(text[at : at + _PIECE].translate(table))
            yield
        return
    if len(text) > _PIECE and _is_plain(text, element):
        yield from _plain(text, out)
        return
    if "\\" in text:
        text = text.replace("\\\\", _BACKSLASH)
        yield
        text = text.replace('\\"', _QUOTE)
        yield
    yield from _elements(text, element, out)


def _elements(text: str, element: PgType, out: list[str]) -> Iterator[None]:
    end_of_bare = re.compile(r"[{},;]")
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
        elif letter == '"':
            end = text.find('"', at + 1)
            if end < 0:
                raise SchemaChanged
            inner = text[at + 1 : end].replace(_QUOTE, '"').replace(_BACKSLASH, "\\")
            yield from to_json(inner, element, out)
            at = end
        else:
            found = end_of_bare.search(text, at)
            while found is not None and found[0] in ",;" and found[0] != element.delimiter:
                found = end_of_bare.search(text, found.end())
            if found is None:
                raise SchemaChanged
            bare = text[at : found.start()]
            if bare == "NULL":
                out.append("null")
            else:
                yield from to_json(bare, element, out)
            at = found.start() - 1
        at += 1


def _table(text: str, element: PgType) -> Mapping[int, int | str] | None:
    """How to turn a whole array into JSON letter by letter, if it can be done."""
    if element.oid in _INTEGERS:
        return _INTEGERS_TO_JSON
    if element.oid in _FLOATS and not any(each in text for each in ("Na", "I", "-0")):
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
            inner = text[at + 1 : end].replace('""', '"')
            yield
            yield from to_json(inner.replace("\\\\", "\\"), part, out)
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
    form = FORMS.get(kind.element.oid) if kind.element is not None else None
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


# --- JSON in JSON -----------------------------------------------------------------------------


def _document(text: str, out: list[str]) -> Iterator[None]:
    """The document itself, or as a string if a reader of the answer might not read it."""
    if not (yield from _is_readable(text)):
        yield from _string(text, out)
        return
    out.append(text)


def _is_readable(text: str) -> Generator[None, None, bool]:
    at = depth = parts = 0
    while found := _MARK.search(text, at):
        parts += 1
        if parts % _PARTS == 0:
            yield
        mark, at = found[0], found.end()
        if mark == '"':
            at = yield from _end_of_json_string(text, at)
            if at < 0:
                return False
        elif mark in "[{":
            depth += 1
            if depth > _DEEPEST_JSON:
                return False
        elif mark in "]}":
            depth -= 1
        elif not _is_common(mark):
            return False
    return True


def _is_common(number: str) -> bool:
    """Whether every reader takes this *number*, if not in full."""
    if len(number) > _LONGEST_NUMBER:
        return False
    return math.isfinite(float(number)) if "e" in number or "E" in number else True


def _end_of_json_string(text: str, at: int) -> Generator[None, None, int]:
    """Where the string that begins at *at* ends; -1 if it holds half of a surrogate pair."""
    parts = 0
    quote, escape = text.find('"', at), text.find("\\", at)
    while 0 <= escape < quote:
        parts += 1
        if parts % _PARTS == 0:
            yield
        at = escape + 2
        if text[escape + 1] == "u":
            unit = int(text[at : at + 4], 16)
            at += 4
            if 0xDC00 <= unit < 0xE000:  # noqa: PLR2004 - the low halves
                return -1
            if 0xD800 <= unit < 0xDC00:  # noqa: PLR2004 - the high halves
                if text[at : at + 3].lower() != "\\ud" or text[at + 3] not in "cdefCDEF":
                    return -1
                at += 6
        if quote < at:
            quote = text.find('"', at)
        escape = text.find("\\", at)
    return quote + 1


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
    **{oid: _quoting(form) for oid, form in FORMS.items()},
}
