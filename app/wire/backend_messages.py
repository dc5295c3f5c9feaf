"""Parses the messages that a server sends in the extended query protocol.

See "Message Formats" in Postgres' manual, section 55.7.
"""

from struct import Struct, unpack_from
from typing import NamedTuple

HEADER = 5
"""Bytes of a message's head."""
READY = b"Z\0\0\0\5"
"""The last message of a reply, without the status of the transaction."""
IDLE, IN_TRANSACTION = b"I", b"T"
"""States of the transaction."""
header = Struct("!BI").unpack_from
"""Parses a message's head: its kind, and its length without the kind."""

# Parse a number of columns, the length of a value, and the fields after a column's name.
_count, _signed, _field = (Struct(each).unpack_from for each in ("!H", "!i", "!IhIhi"))
_FATAL = frozenset({"FATAL", "PANIC"})


class ServerError(Exception):
    """An ErrorResponse: its fields by their letters; see Postgres' manual, section 55.8."""

    def __init__(self, fields: dict[str, str]) -> None:
        super().__init__(fields.get("M", ""))
        self.fields = fields
        self.sqlstate = fields.get("C", "")
        self.message = fields.get("M", "")
        self.routine = fields.get("R", "")
        self.is_fatal = (fields.get("V") or fields.get("S")) in _FATAL


class ResultField(NamedTuple):
    """A column of a result.

    Attributes:
        table, column: the origin of its values: a table's oid and a column's number, or 0.
        oid, size, modifier: properties of its type.
    """

    name: str
    table: int
    column: int
    oid: int
    size: int
    modifier: int


def column_values(row: bytes) -> list[bytes | None]:
    """The values in a row, in the format requested by `bind`."""
    found: list[bytes | None] = []
    at = 2
    for _ in range(_count(row)[0]):
        (length,) = _signed(row, at)
        at += 4
        if length < 0:
            found.append(None)
        else:
            found.append(row[at : at + length])
            at += length
    return found


def error_fields(body: bytes) -> dict[str, str]:
    """The fields of an ErrorResponse or a NoticeResponse, by their letters."""
    parts = (each.decode("utf-8", "replace") for each in body.split(b"\0") if each)
    return {part[0]: part[1:] for part in parts}


def parameter_types(body: bytes) -> tuple[int, ...]:
    """The oids in a ParameterDescription."""
    return unpack_from(f"!{_count(body)[0]}I", body, 2)


def result_fields(body: bytes) -> tuple[ResultField, ...]:
    """The columns in a RowDescription."""
    found = []
    at = 2
    for _ in range(_count(body)[0]):
        end = body.index(b"\0", at)
        found.append(ResultField(body[at:end].decode("utf-8", "replace"), *_field(body, end + 1)))
        # The last two of the 18 bytes after the name are the format, which is not known yet.
        at = end + 19
    return tuple(found)
