"""Read the optional TOML file, and refuse secrets in it.

Such files are copied, mailed and committed; secrets belong in the environment or in separate files.
"""

import os
import tomllib
from pathlib import Path
from typing import Any

from app.settings.errors import SettingsError, setting_name

CONFIG_FILE_VARIABLE = "POOLKEEPER_CONFIG_FILE"
DEFAULT_CONFIG_FILE = "poolkeeper.toml"

_SECRETS = frozenset({"password", "secret_key"})


def read_toml() -> dict[str, Any]:
    """Return the content of the TOML file; empty if there is none and none is configured.

    Raises:
        SettingsError: it cannot be read, is not TOML, or contains a secret.
    """
    configured = os.environ.get(CONFIG_FILE_VARIABLE)
    path = Path(configured or DEFAULT_CONFIG_FILE)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if configured:
            raise SettingsError(f"{CONFIG_FILE_VARIABLE}: There is no file {path}.") from None
        return {}
    except OSError as error:
        raise SettingsError(f"Cannot read {path}: {error.strerror}.") from error
    except UnicodeDecodeError:
        raise SettingsError(f"Cannot read {path}: not UTF-8 text.") from None
    except tomllib.TOMLDecodeError as error:
        # Without the cause, which contains the whole document in newer versions of Python.
        raise SettingsError(f"Cannot read {path}: {error}.") from None
    _refuse_secrets(content, path)
    return content


def _refuse_secrets(content: dict[str, Any], path: Path) -> None:
    problems = [
        f"{setting_name(*key)}: Secrets are not read from {path};"
        " use the environment or a secret file."
        for key in _secret_keys(content, ())
    ]
    if problems:
        raise SettingsError("\n".join(problems))


def _secret_keys(table: dict[str, Any], path: tuple[str, ...]) -> list[tuple[str, ...]]:
    found = [(*path, key) for key in table if key.lower() in _SECRETS]
    for key, value in table.items():
        if isinstance(value, dict):
            found += _secret_keys(value, (*path, key))
    return found
