"""Messages of Postgres' protocol from PgBouncer's console: a kind, a length, a body."""

import struct
from collections.abc import Sequence

Row = dict[str, str | None]

HEADER = struct.Struct("!cI")
"""The head of a message: its kind, and its length without the kind."""

ROW = b"D"


def message_end(data: bytes, begin: int) -> int:
    """The end of the message that begins at *begin*."""
    return begin + 1 + int(HEADER.unpack_from(data, begin)[1])


def whole_messages(data: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """The kinds and bodies of all complete messages, and the rest of *data*."""
    messages, at = [], 0
    while len(data) >= at + HEADER.size and (end := message_end(data, at)) <= len(data):
        messages.append((data[at : at + 1], data[at + HEADER.size : end]))
        at = end
    return messages, data[at:]


def column_names(body: bytes) -> list[str]:
    """The names of the columns of the following rows."""
    names, at = [], 2
    for _ in range(int.from_bytes(body[:2])):
        end = body.index(0, at)
        names.append(body[at:end].decode())
        at = end + 19  # the zero, and six fields that are not needed
    return names


def row(names: Sequence[str], body: bytes) -> Row:
    found: Row = {}
    at = 2
    for name in names:
        length = int.from_bytes(body[at : at + 4], signed=True)
        at += 4
        if length < 0:
            found[name] = None
        else:
            found[name] = body[at : at + length].decode()
            at += length
    return found


def error_message(body: bytes | bytearray) -> str:
    fields = {field[:1]: field[1:] for field in bytes(body).split(b"\0") if field}
    return fields.get(b"M", b"no message").decode(errors="replace")
