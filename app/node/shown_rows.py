"""Rows of PgBouncer's SHOW commands: most are about an entry."""

import sys
from dataclasses import dataclass

from app.domain.nodes.configuration import NodeConfiguration, NodeEntry
from app.domain.nodes.entry_totals import EntryTotals
from app.node.engine import Backend, EntryInForce, EntryMeasure
from app.node.errors import ConsoleLost
from app.node.messages import Row

_MICROSECOND = 1e-6
# PgBouncer's sums have 64 bits and no sign.
_BELOW_ZERO = 1 << 63
_NO_USER = "(nouser)"
_CONNECTED = ("sv_active", "sv_idle", "sv_used", "sv_tested", "sv_login", "sv_being_canceled")
_BEGUN = "total_server_assignment_count"  # since 1.23
_SHOWN = ("host", "port", "database", "force_user", "pool_size", "max_connections")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownEntry:
    """An entry as PgBouncer shows it; *columns* are those of `_SHOWN`."""

    columns: tuple[str | None, ...]
    in_force: EntryInForce


def as_shown(configuration: NodeConfiguration, entry: NodeEntry) -> tuple[str, ...]:
    """An entry in the columns `_SHOWN`."""
    server, size = configuration.servers[entry.server], configuration.size_of(entry)
    return server.host, str(server.port), entry.database, entry.role, str(size), str(size)


def shown_entry(row: Row) -> tuple[str, ShownEntry]:
    size, is_open = _number(row, "max_connections"), row["paused"] == "0"
    return _entry(row, "name"), ShownEntry(
        columns=tuple(map(row.get, _SHOWN)),
        in_force=EntryInForce(size=size, is_open=is_open),
    )


def _entry(row: Row, column: str) -> str:
    """The name of an entry; it is in every answer, and kept once."""
    return sys.intern(str(row[column]))


def _number(row: Row, column: str) -> int:
    value = row.get(column)
    if value is None:
        raise ConsoleLost(f"PgBouncer's console shows no {column}: an unknown version?")
    return int(value)


def shown_measure(row: Row) -> tuple[str, EntryMeasure]:
    return _entry(row, "database"), EntryMeasure(
        connections=sum([_number(row, column) for column in _CONNECTED if column in row]),
        connecting=_number(row, "sv_login"),
        in_use=_number(row, "sv_active"),
        clients=_number(row, "cl_active") + _number(row, "cl_waiting"),
        waiting=_number(row, "cl_waiting"),
        longest_wait=max(0.0, _number(row, "maxwait") + _number(row, "maxwait_us") * _MICROSECOND),
    )


def shown_totals(row: Row) -> tuple[str, EntryTotals]:
    return _entry(row, "database"), EntryTotals(
        transactions=_number(row, "total_xact_count"),
        begun=_number(row, _BEGUN) if _BEGUN in row else None,
        transaction_seconds=_seconds(row, "total_xact_time"),
        wait_seconds=_seconds(row, "total_wait_time"),
    )


def _seconds(row: Row, column: str) -> float:
    """A sum of microseconds; 0 if it fell below, because the machine's clock was set back."""
    microseconds = _number(row, column)
    return microseconds * _MICROSECOND if microseconds < _BELOW_ZERO else 0.0


def shown_backend(row: Row) -> tuple[str, Backend]:
    return _entry(row, "database"), Backend(_number(row, "remote_pid"), row["link"] or "")


def shown_client(row: Row) -> tuple[str, str]:
    """The row's user; "" for a cancel request."""
    user = str(row["user"])
    return _entry(row, "database"), "" if user == _NO_USER else user


def shown_application(row: Row) -> tuple[str, str]:
    return _entry(row, "database"), row["application_name"] or ""


def shown_client_id(row: Row) -> tuple[str, tuple[str, int]]:
    """The row's user, and the number for `KILL_CLIENT`: since 1.24."""
    return _entry(row, "database"), (str(row["user"]), _number(row, "id"))
