"""PgBouncer's log: only the log says why PgBouncer does not do what it should."""

import os
import re
from contextlib import suppress
from pathlib import Path

# Each opening of an entry is a line in it.
_LONGEST = 16 << 20
# Bytes at its end that are read: reading all of it would block the event loop.
_END = 1 << 16
_MOST_COMPLAINTS = 5
_is_complaint = re.compile(r" (ERROR|WARNING|FATAL) ").search
# PgBouncer indents further lines of a message, so what clients send is no such line.
_refusals = re.compile(
    r"^\d[^\[\t\n]*\[\d+\] (?:ERROR S: login|WARNING server login) failed: (?:FATAL:? )?(.{1,300})",
    re.MULTILINE,
).findall
_READS_FILES = "RELOAD command issued"
_CANNOT_LISTEN = "cannot listen on"


class PoolerLog:
    """The log of one PgBouncer; each start begins a new one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read_to: int | None = None

    def __str__(self) -> str:
        """PgBouncer's complaints since it last read its files, as a sentence."""
        lines = self._end().rpartition(_READS_FILES)[2].splitlines()
        complaints = [line for line in lines if _is_complaint(line)]
        # The first ones caused the following ones.
        return f"Its log says: {' | '.join(complaints[:_MOST_COMPLAINTS])}"

    @property
    def is_without_port(self) -> bool:
        """Whether another process has its port: it only serves its Unix socket, or has ended."""
        return _CANNOT_LISTEN in self._end()

    def refused_logins(self) -> list[str]:
        """Why Postgres refused logins since the last call, each reason once."""
        before = self._read_to
        with suppress(OSError), self.path.open("rb") as file:
            end = os.fstat(file.fileno()).st_size
            # It is shorter if it was emptied, or begun anew.
            known = end if before is None else before if before <= end else 0
            file.seek(max(known, end - _END))
            if known < end - _END:
                file.readline()  # the end of a line is none, and clients may have sent it
            added = file.read()
            self._read_to = file.tell()
            return list(dict.fromkeys(_refusals(added.decode(errors="replace"))))
        return []

    def keep_short(self) -> None:
        """Empty it if it has become long."""
        with suppress(OSError):
            if self.path.stat().st_size > _LONGEST:
                os.truncate(self.path, 0)

    def _end(self) -> str:
        with suppress(OSError), self.path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _END))
            return file.read().decode(errors="replace")
        return ""
