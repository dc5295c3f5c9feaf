"""Builds the messages with which a client executes statements in the extended query protocol.

See "Message Formats" in Postgres' manual, section 55.7.
"""

from collections.abc import Sequence
from functools import lru_cache
from struct import Struct, pack

TEXT, BINARY = 0, 1
# This asks for the parameters and columns of the statement without a name.
DESCRIBE = b"D\0\0\0\6S\0"
SYNC, FLUSH, COPY_FAIL = b"S\0\0\0\4", b"H\0\0\0\4", b"f\0\0\0\5\0"
_NULL = b"\xff\xff\xff\xff"
_three = Struct("!3H").pack


def parse(sql: str, *, name: str = "", types: Sequence[int] = ()) -> bytes:
    """Prepare *sql* as *name*; the server infers types that are not given."""
    oids = b"".join(oid.to_bytes(4, "big") for oid in types)
    return _message(b"P", _text(name) + _text(sql) + len(types).to_bytes(2, "big") + oids)


def simple_query(statements: str) -> bytes:
    """Run *statements*, whatever happened to those before; no Sync is needed after them."""
    return _message(b"Q", _text(statements))


def bind(
    values: Sequence[bytes | None] = (),
    *,
    portal: str = "",
    name: str = "",
    parameter_format: int = TEXT,
    result_formats: Sequence[int] = (TEXT,),
) -> bytes:
    """Open a portal over a prepared statement."""
    body = [_text(portal), _text(name), _three(1, parameter_format, len(values))]
    for value in values:
        body.append(_NULL if value is None else len(value).to_bytes(4, "big"))
        body.append(value or b"")
    count = len(result_formats)
    body.append(pack(f"!H{count}H", count, *result_formats))
    return _message(b"B", b"".join(body))


@lru_cache(maxsize=256)
def execute(*, portal: str = "", max_rows: int = 0) -> bytes:
    """Run a portal to its end, or until it has returned *max_rows*."""
    return _message(b"E", _text(portal) + max_rows.to_bytes(4, "big"))


def close(name: str = "", *, portal: str = "") -> bytes:
    """Close a prepared statement or a portal, if there is one with that name."""
    return _message(b"C", b"P" + _text(portal) if portal else b"S" + _text(name))


@lru_cache(maxsize=256)
def executions(statements: str) -> tuple[bytes, int]:
    """Make the messages that run *statements*, separated by "; "; also return their number.

    They do not use the simple protocol: after a failed statement, the server would continue with
    the next messages.
    """
    each = statements.split("; ")
    return b"".join(map(execution, each)), len(each)


def execution(statement: str) -> bytes:
    """Run one statement without parameters."""
    return parse(statement) + bind() + execute()


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + (len(body) + 4).to_bytes(4, "big") + body


def _text(text: str) -> bytes:
    return text.encode() + b"\0"
