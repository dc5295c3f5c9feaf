"""Read the settings at start, and report all problems in one error.

Checks what pydantic-settings does not: unknown variables, and unreadable secret files.
"""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Literal, get_args

import pydantic_settings
from pydantic import ValidationError

from app.settings.endpoint import Endpoint, ServerSettings
from app.settings.errors import (
    ENV_DELIMITER,
    ENV_PREFIX,
    SettingsError,
    setting_name,
    unknown_key,
    validation_messages,
)
from app.settings.settings import Settings
from app.settings.toml import CONFIG_FILE_VARIABLE, read_toml

_NESTED = frozenset({"catalog", "servers"})
# Of a Service called poolkeeper, or poolkeeper-…; POOLKEEPER_PORT alone is a setting, too.
_is_service_link = re.compile(
    r".*_SERVICE_(HOST|PORT(_\w+)?)|.*_PORT_\d+_(TCP|UDP)(_\w+)?"
).fullmatch
# The last three are for client commands.
_NOT_SETTINGS = frozenset(
    {CONFIG_FILE_VARIABLE, "POOLKEEPER_URL", "POOLKEEPER_API_KEY", "POOLKEEPER_API_KEY_FILE"}
)


def load_settings(*, to_serve: bool = True) -> Settings:
    """Read the environment and the TOML file.

    Args:
        to_serve: whether the service will start; then API keys must exist if required.

    Raises:
        SettingsError: with one sentence per problem, which names the key and never its value.
    """
    problems = list(_unknown_variables())
    try:
        settings = Settings()
    except ValidationError as error:
        problems += validation_messages(
            error, tuple(Settings.model_fields), tuple(ServerSettings.model_fields)
        )
    except pydantic_settings.SettingsError:
        keys = " or ".join(setting_name(key) for key in sorted(_NESTED))
        problems.append(f"{keys}: Not valid JSON.")
    except SettingsError as error:
        problems.append(str(error))
    else:
        problems += _unreadable_secrets(settings)
        if to_serve:
            problems += _missing_keys(settings)
    if problems:
        raise SettingsError("\n".join(problems))
    return settings


def configured_log_format() -> Literal["auto", "json", "console"]:
    """The format of the log, for the problems of settings that are invalid."""
    given: dict[str, object] = {}
    with suppress(SettingsError):
        given |= {f"{ENV_PREFIX}{key}".upper(): value for key, value in read_toml().items()}
    given |= {variable.upper(): value for variable, value in os.environ.items()}
    formats = get_args(Settings.model_fields["log_format"].annotation)
    return next((each for each in formats if each == given.get(f"{ENV_PREFIX}LOG_FORMAT")), "auto")


def _unknown_variables() -> Iterator[str]:
    """The variables that pydantic-settings ignores."""
    fields = Settings.model_fields
    for variable in sorted(os.environ):
        if not variable.upper().startswith(ENV_PREFIX) or variable in _NOT_SETTINGS:
            continue
        name = variable[len(ENV_PREFIX) :].lower()
        top, delimiter, _ = name.partition(ENV_DELIMITER)
        if _is_service_link(variable):
            yield (
                f"{variable} is not a setting: Kubernetes sets it for a Service."
                " Set enableServiceLinks: false for the pod."
            )
        elif top not in fields or (delimiter and top not in _NESTED):
            known = [field.upper() for field in fields]
            yield unknown_key(variable, top.upper(), known, prefix=ENV_PREFIX)


def _missing_keys(settings: Settings) -> Iterator[str]:
    path = settings.keys_path
    if settings.requires_keys and not path.exists():
        if settings.keys_file is None:
            yield (
                f"{setting_name('host')}: Only a loopback address is allowed without API keys;"
                f" `poolkeeper keys create` creates one and stores its hash in {path}."
            )
        else:
            key = setting_name("keys_file")
            yield f"{key}: There is no file {path}; `poolkeeper keys create` creates it."


def _unreadable_secrets(settings: Settings) -> Iterator[str]:
    endpoints: dict[tuple[str, ...], Endpoint] = {
        ("servers", name): server for name, server in settings.servers.items()
    }
    if settings.catalog is not None:
        endpoints["catalog",] = settings.catalog
    for path, endpoint in endpoints.items():
        try:
            endpoint.read_password()
        except SettingsError as error:
            yield f"{setting_name(*path, 'password_file')}: {error}"
    try:
        settings.read_secret_key()
    except SettingsError as error:
        yield f"{setting_name('secret_key_file')}: {error}"
