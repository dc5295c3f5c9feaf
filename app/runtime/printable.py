"""What others wrote, as text: nothing of it is obeyed by a terminal, and nothing of it is hidden.

Everything that reaches a terminal or a log for people passes here: labels, names, messages of a
server. Imports nothing of the project, so that every part may use it.
"""

from __future__ import annotations

import codecs
import re
import sys
from io import TextIOWrapper

# C0, DEL and C1; marks, overrides and isolates of writing direction; separators of lines; signs
# that take no room; halves of characters. The joiners of Indic, Persian and emoji stay.
_UNSEEN = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    r"\ud800-\udfff\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)

# As wide as what they stand for, so that tables stay in line.
_NEAREST = {"→": ">", "…": ".", "█": "#", "░": "."}


def is_printable(text: str) -> bool:
    """Whether *text* holds nothing that `printable` would escape."""
    return _UNSEEN.search(text) is None


def printable(text: str) -> str:
    r"""*text* on one line, with what a terminal would obey or hide escaped: `\x1b`, `\u202e`."""
    return _UNSEEN.sub(_escaped, text)


def printable_lines(text: str) -> str:
    """*text* like `printable`, but of several lines, as a traceback is."""
    return "\n".join(printable(line) for line in text.split("\n"))


def printable_json(document: str) -> str:
    """A JSON *document* that a terminal shows as it is, and that means the same.

    Line breaks and tabs outside of strings stay; inside, JSON has escaped them already.
    """
    return _UNSEEN.sub(lambda found: _in_json(found[0]), document)


def allow_any_encoding() -> None:
    """Let standard output and error take every text, whatever their encoding."""
    codecs.register_error("poolkeeper", _nearest)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="poolkeeper")


def print_error(sentence: str) -> None:
    """Say on standard error why a command does not do what was asked."""
    print(f"poolkeeper: {printable_lines(sentence)}", file=sys.stderr)  # noqa: T201 - said by hand


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code <= 0xFF:  # noqa: PLR2004 - as Python writes them
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"  # noqa: PLR2004 - same


def _in_json(sign: str) -> str:
    if sign in "\n\t":
        return sign
    units = sign.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def _nearest(error: UnicodeError) -> tuple[str, int]:
    """What stands for signs that an encoding lacks; a handler of `codecs`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_NEAREST.get(sign, "?") for sign in lacking), error.end
