"""The files that an agent leaves for the next one, so that it can start while the service is away.

`configuration.json` is what the service sent. `contact.json` has the time of the last accepted
report, what it said, and the allotments in force. It is written before allotments are applied, so
that a returning agent never uses larger ones. Both are valid for one start of the machine.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

import structlog

from app.domain.nodes.allotment import Allotment
from app.domain.nodes.configuration import NodeConfiguration
from app.domain.nodes.documents import as_document, as_json, from_document
from app.node.clock import boot_id
from app.node.files import NodeDirectory

_CONFIGURATION, _CONTACT = "configuration.json", "contact.json"

_log = structlog.get_logger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contact:
    """The last answer to a report.

    Attributes:
        boot: the start of the machine to which `accepted_at` refers.
        accepted_at: when the report was sent, by `boot_time`.
        committed: what the report said, by server.
    """

    boot: str
    accepted_at: float
    allotments: Mapping[str, Allotment]
    committed: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredNode:
    """The last state of an earlier agent.

    Attributes:
        left: the most connections that its pooler may have, by server. These are more than its
            allotment if that shrank, and transactions were still under way.
    """

    configuration: NodeConfiguration
    accepted_at: float
    left: Mapping[str, int]


class NodeStore:
    def __init__(self, directory: NodeDirectory) -> None:
        self._directory = directory
        self._boot = boot_id()
        # Files that could not be written at the last attempt.
        self._failing: set[str] = set()

    def load(self) -> StoredNode | None:
        """Load what an earlier agent left; None if there was none since the machine started.

        Raises:
            CannotStart: the directory cannot be used.
        """
        self._directory.make()
        configuration = self._read(NodeConfiguration, _CONFIGURATION)
        contact = self._read(Contact, _CONTACT)
        if configuration is None or contact is None or contact.boot != self._boot:
            return None
        configuration = configuration.with_allotments(contact.allotments)
        return StoredNode(
            configuration=configuration,
            accepted_at=contact.accepted_at,
            left={
                name: max(server.allotment.connections, contact.committed.get(name, 0))
                for name, server in configuration.servers.items()
            },
        )

    @property
    def has_configuration(self) -> bool:
        """Whether the latest one is stored; not if the disk was full, or somebody deleted it."""
        path = self._directory.path / _CONFIGURATION
        return _CONFIGURATION not in self._failing and path.exists()

    def store(self, configuration: NodeConfiguration) -> None:
        """Store what the service sent."""
        self._write(_CONFIGURATION, as_json(configuration))

    def accept(
        self, sent_at: float, allotments: Mapping[str, Allotment], committed: Mapping[str, int]
    ) -> None:
        """Store the answer to the report of *sent_at*, and what that said of each server."""
        contact = Contact(
            boot=self._boot, accepted_at=sent_at, allotments=allotments, committed=committed
        )
        self._write(_CONTACT, json.dumps(as_document(contact)).encode())

    def _read(self, kind: type[T], name: str) -> T | None:
        try:
            text = (self._directory.path / name).read_text(encoding="utf-8")
            return from_document(kind, json.loads(text))
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            # Without the cause: it may quote a password.
            _log.warning("files of the previous agent are unusable", file=name)
            return None

    def _write(self, name: str, content: bytes) -> None:
        try:
            self._directory.write(name, content)
        except OSError as error:
            # An old file would be worse than none. On a read-only disk it stays, and no agent can
            # start.
            with suppress(OSError):
                (self._directory.path / name).unlink(missing_ok=True)
            if name not in self._failing:
                _log.warning("files for the next agent not written", reason=str(error))
            self._failing.add(name)
        else:
            self._failing.discard(name)
