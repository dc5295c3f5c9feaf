"""JSON as Postgres holds it, which is more than every reader of JSON takes."""

from __future__ import annotations

import math
import re
from collections.abc import Generator

# How many parts are looked at in one step.
_PARTS = 1000
_DEEPEST_JSON = 100
# Python's own limit is 4300 digits.
_LONGEST_NUMBER = 4000
# Outside of its strings, what there is to look at in JSON.
_MARK = re.compile(r'["\[\]{}]|[-0-9][-+.0-9eE]*+')


def is_interoperable(text: str) -> Generator[None, None, bool]:
    """Whether common parsers can read *text*, which is JSON to Postgres; in steps.

    They may have a limit to nesting and to numbers, and no half of a surrogate pair.
    """
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
