"""Parses keys from a terminal's bytes."""

from __future__ import annotations

import re
from collections.abc import Iterator

_KEYS = {
    "\x1b[A": "up",
    "\x1bOA": "up",
    "k": "up",
    "\x1b[B": "down",
    "\x1bOB": "down",
    "j": "down",
    "\x1b[5~": "page up",
    "\x1b[6~": "page down",
    " ": "page down",
    "\x1b[H": "home",
    "\x1bOH": "home",
    "\x1b[1~": "home",
    "g": "home",
    "\x1b[F": "end",
    "\x1bOF": "end",
    "\x1b[4~": "end",
    "G": "end",
    "\r": "enter",
    "\n": "enter",
    "\x7f": "backspace",
    "\x08": "backspace",
    "\x1b": "escape",
}
_SEQUENCE = re.compile(r"\x1b\[[0-9;]*[A-Za-z~]|\x1bO[A-Z]|.", re.DOTALL)


def keys_of(data: bytes) -> Iterator[tuple[str, str]]:
    """Yield the name of each key in *data*, and its character; unknown sequences are skipped."""
    # Byte by byte, because the bytes may be invalid in the locale; ids are ASCII.
    for sequence in _SEQUENCE.findall(data.decode("latin-1")):
        name = _KEYS.get(sequence, sequence)
        if len(sequence) == 1 or name != sequence:
            yield name, sequence
