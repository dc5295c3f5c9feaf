"""`poolkeeper keys …`: make, list and revoke API keys, in the file that the service reads.

The only place that writes this file: all of it or nothing, readable by its owner alone. A key
is printed once, on standard output and with nothing else there, and is kept nowhere.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from app.api.auth.api_key import ApiKey, KeyScope, api_key_for, new_token
from app.api.auth.key_file import InvalidKeyFile, KeyList, read_keys
from app.embedded.password import write_private_file
from app.runtime.printable import print_error
from app.settings import SettingsError, load_settings

_LIFETIME = re.compile(r"([1-9]\d{0,4})([hdw])")
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}

keys = typer.Typer(name="keys", help="Make, list and revoke API keys.", no_args_is_help=True)

FileOption = Annotated[
    Path | None,
    typer.Option("--file", help="The file of keys; that of the settings if omitted."),
]


@keys.command()
def new(
    name: Annotated[str, typer.Argument(help="Its name in the log and the audit trail.")],
    scope: Annotated[list[KeyScope], typer.Option(help="What it may do; give several if need be.")],
    *,
    tenant: Annotated[
        list[str] | None, typer.Option(help="Bind it to this tenant; give several if need be.")
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option(metavar="90d", help="Its lifetime, in h, d or w; no end if omitted."),
    ] = None,
    rate: Annotated[
        int | None, typer.Option(help="Most requests a second, instead of the service's limit.")
    ] = None,
    file: FileOption = None,
) -> None:
    """Make a key and print it, this once; `admin` includes `operate`, and that `read`."""
    token, now = new_token(), datetime.now(UTC).replace(microsecond=0)
    with _file(file) as (path, known):
        if any(key.name == name for key in known):
            _refuse(f"There is a key {name} in {path} already.")
        try:
            made = api_key_for(
                token,
                name=name,
                scopes=tuple(scope),
                created_at=now,
                tenants=tuple(tenant or ()),
                expires_at=now + _lifetime(expires) if expires else None,
                requests_per_second=rate,
            )
        except ValidationError as error:
            _refuse(_sentence(error))
        _write(path, (*known, made))
    typer.echo(f"The key {name}, which is not shown again; {path} has its hash:", err=True)
    typer.echo(token)


@keys.command(name="list")
def list_keys(*, file: FileOption = None) -> None:
    """List the keys, without what would let anybody in."""
    table = Table("name", "id", "scopes", "tenants", "created", "expires", "rate", box=None)
    with _file(file) as (_, known):
        for key in known:
            table.add_row(
                key.name,
                key.id,
                " ".join(key.scopes),
                " ".join(key.tenants) if key.tenants else "all",
                f"{key.created_at:%Y-%m-%d}",
                f"{key.expires_at:%Y-%m-%d %H:%M}" if key.expires_at else "never",
                str(key.requests_per_second or ""),
            )
    Console(soft_wrap=True).print(table)


@keys.command()
def revoke(
    name: Annotated[str, typer.Argument(help="The key's name.")], *, file: FileOption = None
) -> None:
    """Take a key back; the service refuses it from the next second on."""
    with _file(file) as (path, known):
        others = tuple(key for key in known if key.name != name)
        if len(others) == len(known):
            _refuse(f"There is no key {name} in {path}.")
        _write(path, others)
    typer.echo(f"The key {name} is no longer in {path}.", err=True)


@contextmanager
def _file(given: Path | None) -> Iterator[tuple[Path, tuple[ApiKey, ...]]]:
    """The file of keys and what is in it, while no other command may change it."""
    path = given
    try:
        path = given or load_settings(to_serve=False).keys_path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone_in(path.parent):
            yield path, read_keys(path).keys if path.exists() else ()
    except (InvalidKeyFile, SettingsError) as error:
        _refuse(str(error))
    except OSError as error:
        _refuse(f"Cannot use {error.filename or path or 'the settings'}: {error.strerror}.")


@contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    handle = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        _refuse(f"Another command works in {directory} right now.")
    finally:
        os.close(handle)


def _write(path: Path, known: tuple[ApiKey, ...]) -> None:
    owner = (path if path.exists() else path.parent).stat()
    write_private_file(path, KeyList(keys=known).model_dump_json(indent=2, exclude_none=True))
    if os.geteuid() == 0:  # the service that must read it may be somebody else
        os.chown(path, owner.st_uid, owner.st_gid)


def _lifetime(text: str) -> timedelta:
    found = _LIFETIME.fullmatch(text)
    if found is None:
        _refuse(f"{text} is no lifetime; give a number and h, d or w, such as 90d.")
    return int(found[1]) * _UNITS[found[2]]


def _sentence(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    said = first["msg"].removeprefix("Value error, ").rstrip(".")
    return f"{first['loc'][0]}: {said}."


def _refuse(sentence: str) -> NoReturn:
    print_error(sentence)
    raise typer.Exit(1)
