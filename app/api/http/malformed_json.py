"""Explains why a body is not valid JSON, without echoing it."""

from __future__ import annotations

import re

# The messages of jiter, or their beginnings, and their meaning.
_REASONS = {
    "Detected duplicate key": "an object has the same key twice",
    "invalid unicode code point": "it is not UTF-8",
    "lone leading surrogate": "half of a surrogate pair stands alone",
    "unexpected end of hex escape": "an escape is incomplete, or half of a surrogate pair",
    "recursion limit exceeded": "it is nested too deeply",
    "number out of range": "a number has too many digits",
    "invalid number": "a number is malformed; JSON has no NaN and no infinity",
    "expected value": "a value is missing or malformed; JSON has no NaN and no infinity",
    "EOF while parsing": "it ends too early",
    "trailing comma": "a comma is followed by nothing",
    "trailing characters": "something follows its end",
    "key must be a string": "a key must be a string in double quotes",
    "control character": "a string contains a control character that is not escaped",
    "invalid escape": "a string contains an unknown escape",
}
_EMPTY = "EOF while parsing a value at line 1 column 0"
_PLACE = re.compile(r" at line (\d+) column (\d+)$")


def malformed_json(message: str) -> str:
    """Translate *message*, an error of jiter's, into a sentence."""
    if message == _EMPTY:
        return "The body is empty."
    reason = next((text for start, text in _REASONS.items() if message.startswith(start)), "")
    place = _PLACE.search(message)
    where = f", at line {place[1]}, column {place[2]}" if place else ""
    return (
        f"The body is not valid JSON: {reason}{where}." if reason else "The body is not valid JSON."
    )
