"""Fits text to a terminal. It imports nothing of the project, so that the client may use it."""

import shutil
from collections.abc import Iterator, Sequence
from typing import TextIO


def terminal_width(stream: TextIO) -> int | None:
    """The terminal's width in columns.

    None for a pipe or a file, where nothing is shortened or wrapped.
    """
    return shutil.get_terminal_size().columns if stream.isatty() else None


def cell_width(text: str) -> int:
    """The width of a text in terminal columns: East Asian characters take two."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len  # noqa: PLC0415 - most text is ASCII

    return cell_len(text)


def shortened(text: str, width: int | None) -> str:
    """Shorten *text* to at most *width* columns, with an ellipsis if something is left out."""
    if width is None or cell_width(text) <= width:
        return text
    text = text[:width]
    while cell_width(text) >= width:
        text = text[:-1]
    return f"{text}…"


def wrapped(text: str, width: int | None, *, breaks_words: bool = False) -> Sequence[str]:
    """Wrap *text* to lines of at most *width* columns, between words, keeping its indentation.

    A longer word gets its own line, so that it can be copied; with *breaks_words*, it is broken.
    """
    if width is None:
        return [text]
    body = text.lstrip(" ")
    indentation = " " * (len(text) - len(body))
    room = max(1, width - len(indentation))
    words: Sequence[str] = body.split(" ")
    if breaks_words:
        words = [piece for word in words for piece in _pieces(word, room)]
    lines = [words[0]]
    for word in words[1:]:
        longer = f"{lines[-1]} {word}"
        if cell_width(longer) <= room:
            lines[-1] = longer
        else:
            lines.append(word)
    return [indentation + line for line in lines]


def _pieces(word: str, width: int) -> Iterator[str]:
    """Split *word* into pieces of at most *width* columns; a wide character is never split."""
    while cell_width(word) > width:
        piece = word[:width]
        while len(piece) > 1 and cell_width(piece) > width:
            piece = piece[:-1]
        yield piece
        word = word[len(piece) :]
    yield word
