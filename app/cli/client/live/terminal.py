"""The terminal while `top` uses it: reads keys, draws screens, and restores it at the end."""

import os
import re
import select
import signal
import sys
import termios
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from app.cli.client.live.drawing import Line

_ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l"  # other screen, no cursor, no wrapping
_LEAVE = "\x1b[?7h\x1b[?25h\x1b[?1049l"
_HOME, _CLEAR_LINE = "\x1b[H", "\x1b[K"
_STYLES = {"bold": "\x1b[1m", "dim": "\x1b[2m", "red": "\x1b[31m", "selected": "\x1b[7m"}
_PLAIN = "\x1b[0m"
_SEQUENCES = {
    "up": ("\x1b[A", "\x1bOA", "k"),
    "down": ("\x1b[B", "\x1bOB", "j"),
    "page up": ("\x1b[5~",),
    "page down": ("\x1b[6~", " "),
    "home": ("\x1b[H", "\x1bOH", "\x1b[1~", "g"),
    "end": ("\x1b[F", "\x1bOF", "\x1b[4~", "G"),
    "enter": ("\r", "\n"),
    "backspace": ("\x7f", "\x08"),
    "escape": ("\x1b",),
}
_KEYS = {each: key for key, sequences in _SEQUENCES.items() for each in sequences}
_SEQUENCE = re.compile(r"\x1b\[[0-9;]*[A-Za-z~]|\x1bO[A-Z]|.", re.DOTALL)


class Terminal:
    """Standard input and output as a screen."""

    def __init__(self) -> None:
        self._wake_reader, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_writer, False)
        self._has_keys = sys.stdin.isatty()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, in characters."""
        columns, lines = os.get_terminal_size(sys.stdout.fileno())
        # Some terminals report 0.
        return columns or 80, lines or 24

    def wake(self) -> None:
        """Let `wait` return; any thread or signal handler may call this."""
        with suppress(BlockingIOError):  # then it returns anyway
            os.write(self._wake_writer, b"x")

    @contextmanager
    def open(self) -> Iterator[None]:
        before = termios.tcgetattr(sys.stdin) if self._has_keys else None
        resized = signal.signal(signal.SIGWINCH, lambda *_: self.wake())
        try:
            if self._has_keys:
                tty.setcbreak(sys.stdin)
            _write(_ENTER)
            yield
        finally:
            _write(_LEAVE)
            signal.signal(signal.SIGWINCH, resized)
            if before is not None:
                termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)

    def wait(self, seconds: float) -> Sequence[tuple[str, str]]:
        """The keys pressed within *seconds*, or until it is woken or resized.

        `q` if the terminal is gone.
        """
        keyboard = [sys.stdin] if self._has_keys else []
        ready, _, _ = select.select([self._wake_reader, *keyboard], [], [], seconds)
        if self._wake_reader in ready:
            os.read(self._wake_reader, 4096)
        if sys.stdin not in ready:
            return []
        data = os.read(sys.stdin.fileno(), 1024)
        return list(_keys_of(data)) if data else [("q", "q")]

    def show(self, lines: Sequence[Line]) -> None:
        """Draw *lines*, one for each line of the screen."""
        # Cleared before writing: clearing after a full line would erase its last character.
        drawn = (f"{_CLEAR_LINE}{_STYLES.get(line.style, '')}{line.text}{_PLAIN}" for line in lines)
        _write(_HOME + "\n".join(drawn))


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _keys_of(data: bytes) -> Iterator[tuple[str, str]]:
    """Yield the name of each key in *data*, and its character; unknown sequences are skipped."""
    # Byte by byte, because the bytes may be invalid in the locale; ids are ASCII.
    for sequence in _SEQUENCE.findall(data.decode("latin-1")):
        name = _KEYS.get(sequence, sequence)
        if len(sequence) == 1 or name != sequence:
            yield name, sequence
