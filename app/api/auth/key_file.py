"""The file of API keys: it is read at start, and again within a second of every change.

If the file is unusable, the earlier keys stay in force. Once there was a file, every request needs
a key, whatever happens to the file. This only reads; `poolkeeper keys` writes.
"""

import os
import stat
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from time import monotonic
from typing import Self

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from app.api.auth.api_key import ApiKey
from app.text.validation_messages import validation_message

_CHECK_INTERVAL = 1.0
# Hexadecimal digits.
_FINGERPRINT = 16
# Change this with whatever else goes into a fingerprint.
_FINGERPRINT_FORM = "2"
_MAX_BYTES = 4 * 1024 * 1024
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH

_Signature = tuple[int, ...]

_log = structlog.get_logger(__name__)


class InvalidKeyFile(Exception):
    """The key file cannot be used; the message says why, and quotes none of its content."""


class KeyList(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    keys: tuple[ApiKey, ...] = ()

    @model_validator(mode="after")
    def _is_unique(self) -> Self:
        for what in ("name", "id"):
            seen = [getattr(key, what) for key in self.keys]
            if len(set(seen)) < len(seen):
                raise ValueError(f"Two keys have the same {what}")
        return self


class KeyFile:
    def __init__(
        self, path: Path, *, required: bool, clock: Callable[[], float] = monotonic
    ) -> None:
        """*required*: whether requests need a key even before the file exists."""
        self.path = path
        self.problem: str | None = None
        self._clock = clock
        self._keys: Mapping[str, ApiKey] | None = {} if required else None
        self._seen: _Signature | None = None
        self._next_check = float("-inf")

    def load(self) -> None:
        """Read the file for the first time.

        Raises:
            InvalidKeyFile: the file cannot be used, or is required and missing.
        """
        self._refresh()
        if self.problem is not None:
            raise InvalidKeyFile(self.problem)

    @property
    def is_enforced(self) -> bool:
        """Whether requests need a key: always once there was a file, or if one is required."""
        self._refresh()
        return self._keys is not None

    def find(self, key_id: str) -> ApiKey | None:
        return self._keys.get(key_id) if self._keys else None

    def all(self) -> list[ApiKey]:
        """The keys by name, expired ones included."""
        return sorted((self._keys or {}).values(), key=lambda key: key.name)

    def __len__(self) -> int:
        """The number of keys, expired ones included."""
        return len(self._keys or ())

    @property
    def fingerprint(self) -> str:
        """A fingerprint that identifies this set of keys, and reveals none of them.

        A version whose keys have more fields finds the same one, unless a key uses them.
        """
        self._refresh()
        keys = "\n".join(key.model_dump_json(exclude_defaults=True) for key in self.all())
        return f"{_FINGERPRINT_FORM}:{sha256(keys.encode()).hexdigest()[:_FINGERPRINT]}"

    def _refresh(self) -> None:
        """Read the file again if it changed; checks at most once a second."""
        now = self._clock()
        if now < self._next_check:
            return
        self._next_check = now + _CHECK_INTERVAL
        try:
            signature = _signature(self.path.stat())
            if signature == self._seen:
                return
            self._seen = signature
            keys = read_keys(self.path)
        except FileNotFoundError:
            self._seen = None
            if self._keys is not None:
                self._report(f"There is no file {self.path}.")
        except OSError as error:
            self._seen = None
            self._report(f"Cannot read {self.path}: {error.strerror}.")
        except InvalidKeyFile as error:
            self._report(str(error))
        else:
            self._keys = {key.id: key for key in keys.keys}
            self.problem = None
            _log.info("keys loaded", file=str(self.path), keys=len(self._keys))

    def _report(self, problem: str) -> None:
        if self._keys is None:
            self._keys = {}
        if problem != self.problem:
            _log.error("key file unusable; earlier keys stay in force", reason=problem)
        self.problem = problem


def read_keys(path: Path) -> KeyList:
    """Read the keys in the file at *path*.

    Raises:
        InvalidKeyFile: it is not a key file, or others than its owner can write to it.
        OSError: it cannot be read.
    """
    # Without O_NONBLOCK, a named pipe in its place would block us.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise InvalidKeyFile(f"Cannot use {path}: it is not a regular file.")
        if status.st_mode & _WRITABLE_BY_OTHERS:
            raise InvalidKeyFile(
                f"Cannot use {path}: others can write to it. Run: chmod 600 {path}"
            )
        if status.st_size > _MAX_BYTES:
            raise InvalidKeyFile(f"Cannot use {path}: it is larger than {_MAX_BYTES} bytes.")
        text = file.read(_MAX_BYTES)
    try:
        return KeyList.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(step) for step in first["loc"])
        said = validation_message(first)
        raise InvalidKeyFile(f"Cannot use {path}: {place + ': ' if place else ''}{said}") from None


def _signature(status: os.stat_result) -> _Signature:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
