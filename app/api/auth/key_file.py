"""The file of API keys: read at start, and again within a second of every change.

A file that cannot be used leaves the earlier keys in force, and never opens the door: keys are
demanded from the first file on. Nothing here writes; `poolkeeper keys` does.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic
from typing import Self

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from app.api.auth.api_key import ApiKey

_LOOK_EVERY = 1.0
_LARGEST = 4 * 1024 * 1024
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH

_Signature = tuple[int, ...]

_log = structlog.get_logger(__name__)


class InvalidKeyFile(Exception):
    """The file of keys cannot be used; the text says why, and holds nothing of it."""


class KeyList(BaseModel):
    """What the file holds."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    keys: tuple[ApiKey, ...] = ()

    @model_validator(mode="after")
    def _has_each_once(self) -> Self:
        for what in ("name", "id"):
            seen = [getattr(key, what) for key in self.keys]
            if len(set(seen)) < len(seen):
                raise ValueError(f"Two keys have the same {what}")
        return self


class KeyFile:
    """The keys in force."""

    def __init__(
        self, path: Path, *, required: bool, clock: Callable[[], float] = monotonic
    ) -> None:
        """Read from *path*; a file that is *required* and missing does not mean an open door."""
        self.path = path
        self.problem: str | None = None
        self._required = required
        self._clock = clock
        self._keys: Mapping[str, ApiKey] | None = {} if required else None
        self._seen: _Signature | None = None
        self._look_at = float("-inf")

    def load(self) -> None:
        """Read the file for the first time.

        Raises:
            BadKeyFile: it cannot be used, or there is none though it is required.
        """
        self._look()
        if self.problem is not None:
            raise InvalidKeyFile(self.problem)

    @property
    def is_enforced(self) -> bool:
        """Whether a key is demanded: not before there is a file, unless one is required."""
        self._look()
        return self._keys is not None

    def find(self, key_id: str) -> ApiKey | None:
        """The key with this id."""
        return self._keys.get(key_id) if self._keys else None

    def __len__(self) -> int:
        """How many keys are in force, expired ones included."""
        return len(self._keys or ())

    def _look(self) -> None:
        """Read the file anew if it changed; looks at most once a second."""
        now = self._clock()
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_EVERY
        try:
            signature = _signature(self.path.stat())
            if signature == self._seen:
                return
            self._seen = signature
            keys = read_keys(self.path)
        except FileNotFoundError:
            self._seen = None
            if self._keys is not None:
                self._tell(f"There is no file {self.path}.")
        except OSError as error:
            self._seen = None
            self._tell(f"Cannot read {self.path}: {error.strerror}.")
        except InvalidKeyFile as error:
            self._tell(str(error))
        else:
            self._keys = {key.id: key for key in keys.keys}
            self.problem = None
            _log.info("keys read", file=str(self.path), keys=len(self._keys))

    def _tell(self, problem: str) -> None:
        if self._keys is None:
            self._keys = {}
        if problem != self.problem:
            _log.error("keys cannot be read; those before hold", reason=problem)
        self.problem = problem


def read_keys(path: Path) -> KeyList:
    """What a file of keys holds.

    Raises:
        BadKeyFile: it is none, or others than its owner may write to it.
        OSError: it cannot be read.
    """
    # Whoever puts a pipe there must not make us wait.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise InvalidKeyFile(f"Cannot use {path}: it is no file.")
        if status.st_mode & _WRITABLE_BY_OTHERS:
            raise InvalidKeyFile(
                f"Cannot use {path}: others than its owner may write to it; chmod 600 it."
            )
        if status.st_size > _LARGEST:
            raise InvalidKeyFile(f"Cannot use {path}: it is larger than {_LARGEST} bytes.")
        text = file.read(_LARGEST)
    try:
        return KeyList.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(step) for step in first["loc"])
        said = first["msg"].removeprefix("Value error, ").rstrip(".")
        raise InvalidKeyFile(f"Cannot use {path}: {place + ': ' if place else ''}{said}.") from None


def _signature(status: os.stat_result) -> _Signature:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
