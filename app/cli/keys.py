"""`poolkeeper keys …`: create, list and revoke API keys in the file that the service reads.

Only this command writes the file: it replaces it atomically, readable by its owner only. A key is
printed once, alone on standard output, and is not stored.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from app.api.auth.key_scope import KeyScope
from app.cli.client.exit_status import ExitStatus, confirm, fail
from app.cli.client.output import print_document
from app.cli.client.service_command import OUTPUT_OPTIONS, OutputCommand, YesOption, resource
from app.cli.client.table import ALWAYS, WIDE, Table, number, text
from app.cli.client.times import ExpiresOption, expiry
from app.cli.command import Command, Group, Options
from app.text.validation_messages import validation_message

if TYPE_CHECKING:
    from pydantic import ValidationError

    from app.api.auth.api_key import ApiKey

_OPTIONS = {
    "node": "--node",
    "requests_per_second": "--rate",
    "scopes": "--scope",
    "tenants": "--tenant",
}

COLUMNS = (
    text("NAME", "name", ALWAYS),
    text("ID", "id"),
    text("SCOPES", lambda key: " ".join(key["scopes"])),
    text("TENANTS", lambda key: " ".join(key.get("tenants") or ()) or "all"),
    text("EXPIRES", lambda key: key.get("expires_at", "never")[:16]),
    text("CREATED", lambda key: key["created_at"][:10], WIDE),
    number("RATE", "requests_per_second", WIDE),
    text("NODE", "node", WIDE),
)


class Keys(Group):
    """The commands of API keys."""

    shared: ClassVar[Options] = OUTPUT_OPTIONS
    default = ("list",)


keys = resource("Create, list and revoke API keys.", kind=Keys)

FileOption = Annotated[
    Path | None,
    typer.Option("--file", help="Key file; default from the settings."),
]


@keys.command(cls=Command)
def create(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Key name, shown in the log and the audit trail.")
    ],
    scope: Annotated[list[KeyScope], typer.Option(help="Scope; repeatable.")],
    *,
    tenant: Annotated[
        list[str] | None, typer.Option(help="Bind the key to this tenant; repeatable.")
    ] = None,
    node: Annotated[
        str | None,
        typer.Option(help="The node whose agent gets the key; with --scope node and no other."),
    ] = None,
    expires: ExpiresOption = None,
    rate: Annotated[
        int | None, typer.Option(help="Maximum requests per second; default: the service's limit.")
    ] = None,
    file: FileOption = None,
) -> None:
    """Create a key and print it once. admin includes operate; operate includes read."""
    from pydantic import ValidationError

    from app.api.auth.api_key import api_key_for, new_token

    token, now = new_token(), datetime.now(UTC).replace(microsecond=0)
    with _key_file(file) as (path, known):
        if any(key.name == name for key in known):
            fail(f"{path} already contains a key named {name}.")
        try:
            made = api_key_for(
                token,
                name=name,
                scopes=scope,
                created_at=now,
                tenants=tenant or (),
                node=node,
                expires_at=expiry(expires, now),
                requests_per_second=rate,
            )
        except ValidationError as error:
            fail(_sentence(error), ExitStatus.USAGE)
        except ValueError as error:
            fail(str(error), ExitStatus.USAGE)
        _write(path, (*known, made))
    typer.echo(f"Key {name}, shown only once; its hash is in {path}:", err=True)
    typer.echo(token)


@keys.command("list", cls=OutputCommand)
def list_keys(context: typer.Context, *, file: FileOption = None) -> None:
    """List the keys, without their secrets."""
    with _key_file(file) as (_, known):
        found = [
            key.model_dump(mode="json", exclude_none=True, exclude={"sha256"}) for key in known
        ]
    print_document(found, lambda items: Table(columns=COLUMNS, items=items), context.obj.output)


@keys.command(cls=Command)
def revoke(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Key name.")],
    *,
    file: FileOption = None,
    yes: YesOption = False,
) -> None:
    """Revoke a key; the service rejects it within a second."""
    if not yes:
        confirm(f"Revoke key {name}? Its holders can no longer use the service.")
    with _key_file(file) as (path, known):
        others = tuple(key for key in known if key.name != name)
        if len(others) == len(known):
            fail(f"{path} contains no key named {name}.", ExitStatus.NOT_FOUND)
        _write(path, others)
    typer.echo(f"Revoked key {name} in {path}.", err=True)


@contextmanager
def _key_file(given: Path | None) -> Iterator[tuple[Path, tuple[ApiKey, ...]]]:
    """Lock the key file; yield its path and its keys."""
    from app.api.auth.key_file import InvalidKeyFile, read_keys
    from app.embedded.binaries import make_enterable
    from app.settings import SettingsError, load_settings

    path = given
    try:
        if path is None:
            settings = load_settings(to_serve=False)
            path = settings.keys_path
            if settings.keys_file is None:
                make_enterable(settings.data_dir)  # Postgres and PgBouncer are other users
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(path.parent):
            yield path, read_keys(path).keys if path.exists() else ()
    except (InvalidKeyFile, SettingsError) as error:
        fail(str(error), ExitStatus.USAGE)
    except OSError as error:
        fail(f"Cannot use {error.filename or path or 'the settings'}: {error.strerror}.")


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    handle = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        fail(f"Another command is using {directory}.")
    finally:
        os.close(handle)


def _write(path: Path, known: tuple[ApiKey, ...]) -> None:
    from app.api.auth.key_file import KeyList
    from app.embedded.data_directory import write_private_file

    owner = (path if path.exists() else path.parent).stat()
    write_private_file(path, KeyList(keys=known).model_dump_json(indent=2, exclude_none=True))
    if os.geteuid() == 0:  # the service that reads it may run as another user
        os.chown(path, owner.st_uid, owner.st_gid)


def _sentence(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    if not first["loc"]:  # about several options together
        return "A key of a node has --scope node and --node NAME, and nothing else."
    option = _OPTIONS.get(str(first["loc"][0]), "Key name")
    return f"{option}: {validation_message(first)}"
