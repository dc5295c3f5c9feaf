"""Makes text of others safe to print: no control sequence takes effect, no character is invisible.

Everything that reaches a terminal or a log for people passes through this: labels, names, messages
of a server.
"""

import codecs
import re
import sys
from io import TextIOWrapper

from app.text.wrapping import terminal_width, wrapped

# C0, DEL and C1; marks, overrides and isolates of writing direction; line separators; zero-width
# characters; lone surrogates. The joiners of Indic scripts, Persian and emoji stay.
_UNPRINTABLE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    r"\ud800-\udfff\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)

# As wide as the replaced character, so that tables stay aligned.
_SUBSTITUTES = {"→": ">", "…": ".", "█": "#", "░": "."}


def is_printable(text: str) -> bool:
    """Whether `printable` would leave *text* unchanged."""
    return _UNPRINTABLE.search(text) is None


def printable(text: str) -> str:
    r"""Put *text* on one line and escape control and invisible characters: `\x1b`, `\u202e`."""
    return _UNPRINTABLE.sub(_escaped, text)


def printable_lines(text: str) -> str:
    """Like `printable`, but for several lines, such as a traceback."""
    return "\n".join(printable(line) for line in text.split("\n"))


def printable_json(document: str) -> str:
    """Escape control and invisible characters in a JSON *document*.

    Line breaks and tabs outside strings stay; inside strings, JSON has already escaped them.
    """
    return _UNPRINTABLE.sub(lambda found: _in_json(found[0]), document)


def allow_any_encoding() -> None:
    """Let standard output and error accept any text, whatever their encoding."""
    codecs.register_error("poolkeeper", _nearest)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="poolkeeper")


def print_error(sentence: str) -> None:
    """Print on standard error why a command fails."""
    text, width = f"poolkeeper: {printable_lines(sentence)}", terminal_width(sys.stderr)
    for line in text.split("\n"):
        for part in wrapped(line, width):
            print(part, file=sys.stderr)  # noqa: T201 - said by hand


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
    """An error handler of `codecs`: replaces characters that an encoding lacks."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_SUBSTITUTES.get(sign, "?") for sign in lacking), error.end
