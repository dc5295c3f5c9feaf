"""The documents that a node's agent and the service exchange, as JSON.

All routes need the scope `node`: a key is bound to one node, and `self` in the path stands for it.
Beyond loopback the service answers over TLS only (403 `tls-required`). A key of another node gets
403 `bound-to-node`, one without the scope 403 `missing-scope`, a node that is not declared
404 `node-not-found`. Errors are RFC 9457 problems with these codes, and `retryable`.

`POST /v1/nodes/{node}/session`, no body: when an agent starts, and when its session is refused
    201 `NodeSession`. From then on, reports of earlier sessions are refused. It stays valid when
    the service restarts, or another instance takes over.

`GET /v1/nodes/{node}/configuration?wait_seconds=25` (0 to 25, default 0)
    `If-None-Match: "<version>"`: answers when there is another version, but at the latest after
    `wait_seconds`; without the header it answers at once.
    200 `NodeConfiguration`, with `ETag: "<version>"` and `Cache-Control: no-store`.
    304 the version is still the latest. If this comes early, an allotment has shrunk: the agent
        reports at once, and gets it with the answer.
    503 the service is starting, stopping or cannot decide: try again, other servers too.

`POST /v1/nodes/{node}/reports`, body `NodeReport`: every second, one at a time
    `Content-Type: application/json`, at most 1 MiB: it has at most 500 entries, those that changed
    since the last accepted report; if there are more, the next report follows at once. A report
    that is based on another than the last accepted one is accepted too, but the answer has
    `wants_all`: then the next report has base 0.
    200 `ReportAnswer`: the node's allotments, which apply at once, and the latest version. A server
        that it lacks keeps its present allotment.
    409 `node-session-ended`: a later session has started; this agent was replaced and must end.
    409 `node-report-late`: a later report of this session was accepted. The agent starts another
        session: if the catalog was restored, an earlier agent may have had this one.
    409 `node-session-unknown`: no such session was started; the agent starts another.
    422 the report is malformed.
    An answer that takes longer than `ANSWER_SECONDS` must be ignored: by then the service may have
    released the node as gone. A report counts as accepted at the time when it was sent.

A dataclass becomes an object with its fields, a tuple or set a list, an enum its value. Unknown
fields are ignored, because the other side may be newer; a field that is not set is left out,
because the other side may be older. Everything else is strict: a field without a default is
required, and `true` is not a number.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import Enum, EnumType
from functools import cache
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from app.domain.nodes.allotment import Allotment
from app.domain.nodes.configuration import NodeConfiguration
from app.domain.nodes.report import NodeReport

ANSWER_SECONDS = 10.0
"""How long an agent waits for the answer to a report, or beyond `wait_seconds`."""

LONGEST_POLL = 25.0
"""The largest `wait_seconds`."""

# Limits of numbers, so that arithmetic on both sides stays exact.
_LARGEST, _LARGEST_WHOLE = 10.0**15, 2**63 - 1
Document = TypeVar("Document")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSession:
    """The session of a node's agent.

    Attributes:
        node: the name of the node.
        session: grows with each of its agents.
    """

    node: str
    session: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportAnswer:
    """The answer to a report.

    Attributes:
        allotments: by server; one that it lacks keeps its present allotment.
        version: the latest configuration's version; if it differs, fetch it at once.
        wants_all: whether the service does not have the report on which this one is based.
    """

    allotments: Mapping[str, Allotment]
    version: int
    wants_all: bool = False


def as_document(value: Any) -> Any:  # noqa: ANN401 - any of them, and its parts
    """Convert a dataclass to the values of JSON."""
    kind = type(value)
    if kind in _SCALARS:  # most are, and a report has thousands
        return value
    if is_dataclass(kind):
        return {
            name: each if type(each) in _SCALARS else as_document(each)
            for name, _, default in _fields(kind)
            for each in (getattr(value, name),)
            if each is not None or default is not None
        }
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {key: as_document(each) for key, each in value.items()}
    if isinstance(value, (tuple, frozenset)):
        return [as_document(each) for each in value]
    return value


def as_json(document: NodeConfiguration | NodeReport) -> bytes:
    """Encode a long document as JSON, entry by entry.

    Encoding it all at once takes many times the memory, and lets no other thread run.
    """
    rest = {
        each.name: as_document(getattr(document, each.name))
        for each in fields(document)
        if each.name != "entries"
    }
    entries = [_encode(as_document(entry)).encode() for entry in document.entries]
    return b'%b,"entries":[%b]}' % (_encode(rest).encode()[:-1], b",".join(entries))


_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


@cache
def _fields(kind: Any) -> tuple[tuple[str, Any, object], ...]:  # noqa: ANN401 - a dataclass
    """The names of its fields, with their types and defaults."""
    types = get_type_hints(kind)
    return tuple(
        (
            each.name,
            types[each.name],
            each.default if each.default_factory is MISSING else each.default_factory,
        )
        for each in fields(kind)
    )


def from_document(kind: type[Document], document: object) -> Document:
    """Read the dataclass *kind* from *document*.

    Raises:
        ValueError: it does not fit; the message says what is wrong where, and quotes no value.
    """
    found: Document = _read(kind, document, "")
    return found


def _read(kind: Any, value: object, place: str) -> Any:  # noqa: ANN401 - any type, also of typing's
    """Read the JSON *value* at this *place* in the document as *kind*."""
    if (scalar := _SCALARS.get(kind)) is not None:  # most are, and a report has thousands
        return scalar(value, place)
    if is_dataclass(kind):
        return _read_object(kind, value, place)
    if isinstance(kind, EnumType):
        try:
            return kind(value)
        except ValueError as error:
            raise ValueError(f"{place}: expected one of {', '.join(kind)}") from error
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return None if value is None else _read(arguments[0], value, place)
    if origin is Mapping:
        given = _expected(dict, value, place, "an object")
        return {key: _read(arguments[1], each, f"{place}/{key}") for key, each in given.items()}
    items = _expected(list, value, place, "a list")
    return origin(
        [_read(arguments[0], each, f"{place}/{index}") for index, each in enumerate(items)]
    )


def _read_object(kind: Any, value: object, place: str) -> Any:  # noqa: ANN401 - a dataclass
    given, known = _expected(dict, value, place, "an object"), {}
    for name, kind_of_field, default in _fields(kind):
        if name in given:
            known[name] = _read(kind_of_field, given[name], f"{place}/{name}")
        elif default is MISSING:
            raise ValueError(f"{place}/{name}: this field is missing")
    try:
        return kind(**known)
    except ValueError as error:
        raise ValueError(f"{place or '/'}: {error}") from error


def _expected(kind: type[Document], value: object, place: str, name: str) -> Document:
    if not isinstance(value, kind):
        raise ValueError(f"{place or '/'}: expected {name}")  # noqa: TRY004 - of the document
    return value


def _whole(value: object, place: str) -> int:
    if type(value) is not int or not 0 <= value <= _LARGEST_WHOLE:
        raise ValueError(f"{place}: expected a whole number, 0 to {_LARGEST_WHOLE}")
    return value


def _number(value: object, place: str) -> float:
    if type(value) not in {int, float} or not 0 <= value <= _LARGEST:  # type: ignore[operator]
        raise ValueError(f"{place}: expected a number, 0 to {_LARGEST:.0e}")
    return float(value)  # type: ignore[arg-type]


def _text(value: object, place: str) -> str:
    return _expected(str, value, place, "a text")


def _truth(value: object, place: str) -> bool:
    return _expected(bool, value, place, "true or false")


_SCALARS: Mapping[type, Callable[[object, str], Any]] = {
    int: _whole,
    float: _number,
    str: _text,
    bool: _truth,
}
