"""Whether JSON from Postgres is JSON that every parser accepts (RFC 7493, I-JSON)."""

import math
import re
from collections.abc import Generator

# After this many parts, an empty piece lets other tasks run.
_PARTS = 1000
_MAX_DEPTH = 100
# Python's own limit is 4300 digits.
_MAX_NUMBER = 4000
# Strings, brackets and numbers: the parts of JSON to check.
_MARK = re.compile(r'["\[\]{}]|[-0-9][-+.0-9eE]*')


def is_interoperable(text: str) -> Generator[str, None, bool]:
    """Check whether common parsers can read *text*, which Postgres accepts; yields empty pieces.

    Parsers may limit nesting and numbers, and refuse half a surrogate pair.
    """
    at = depth = parts = 0
    while found := _MARK.search(text, at):
        parts += 1
        if parts % _PARTS == 0:
            yield ""
        mark, at = found[0], found.end()
        if mark == '"':
            at = yield from _end_of_string(text, at)
            if at < 0:
                return False
        elif mark in "[{":
            depth += 1
            if depth > _MAX_DEPTH:
                return False
        elif mark in "]}":
            depth -= 1
        elif len(mark) > _MAX_NUMBER or not _has_usual_exponent(mark):
            return False
    return True


def _has_usual_exponent(number: str) -> bool:
    """Whether a double can have the exponent of *number*, if it has one."""
    digits, exponent, _ = number.lower().partition("e")
    if not exponent:
        return True
    value = float(number)
    return math.isfinite(value) and (value != 0.0 or not digits.strip("-0."))


def _end_of_string(text: str, at: int) -> Generator[str, None, int]:
    """The end of the string that begins at *at*; -1 if it contains half a surrogate pair."""
    parts = 0
    quote = text.find('"', at)
    # Only up to the quote: else each of many strings without an escape would scan all of the text.
    while (escape := text.find("\\", at, quote)) >= 0:
        parts += 1
        if parts % _PARTS == 0:
            yield ""
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
    return quote + 1
