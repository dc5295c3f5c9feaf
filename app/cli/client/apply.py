"""`poolkeeper apply -f tenants.yaml`: show the way to what a file says, then go it."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from http.client import NOT_FOUND
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from app.cli.client.api_client import ApiClient, ApiError, ExitStatus, path_segment
from app.cli.client.manifest import Manifest, ManifestError, Step, Verb, plan
from app.cli.client.session import DEFAULT_URL, JsonOption, KeyFileOption, Session, UrlOption
from app.runtime.printable import print_error, printable, printable_lines

_SIGNS = {
    Verb.CREATE: ("+", "green"),
    Verb.CHANGE: ("~", "yellow"),
    Verb.PROVISION: ("+", "green"),
    Verb.RESIZE: ("~", "yellow"),
    Verb.DELETE: ("-", "red"),
    Verb.REFUSE: ("!", "red"),
}


def apply(
    *,
    file: Annotated[
        str, typer.Option("--file", "-f", help="YAML with the tenants; - reads stdin.")
    ],
    prune: Annotated[
        bool, typer.Option("--prune", help="Delete tenants the file does not name; data stays.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan, change nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before deleting.")] = False,
    url: UrlOption = DEFAULT_URL,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Declare, change, provision and resize tenants until they are as a file says."""
    manifest = _read(file)
    session = Session(url=url, key_file=key_file, as_json=as_json)
    with session.client() as remote:
        steps = _plan(remote, manifest, prune=prune)
        if dry_run or not steps or any(step.verb is Verb.REFUSE for step in steps):
            session.show(
                lambda: {"steps": [asdict(step) for step in steps]}, lambda _: _told(steps)
            )
            refused = any(step.verb is Verb.REFUSE for step in steps)
            raise typer.Exit(ExitStatus.REFUSED if refused else 0)
        if not as_json:
            Console(stderr=True).print(_told(steps))
        deleted = sum(step.verb is Verb.DELETE for step in steps)
        if deleted and not yes:
            typer.confirm(f"Delete {deleted} tenants? Their data stays.", abort=True, err=True)
        done, failures = _carry_out(remote, steps)
        session.show(
            lambda: {"done": done, "failed": failures},
            lambda _: f"{done} done, {len(failures)} failed",
        )
    if failures:
        raise typer.Exit(ExitStatus.REFUSED)


def _read(file: str) -> Manifest:
    try:
        # YAML is UTF-8, whatever the terminal speaks.
        raw = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        manifest = Manifest.parse(raw.decode("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not UTF-8 text"
        print_error(f"Cannot read {file}: {why}.")
        raise typer.Exit(ExitStatus.USAGE) from error
    except ManifestError as error:
        print_error(f"{file}: {error}")
        raise typer.Exit(ExitStatus.USAGE) from error
    if file == "-" and not raw:
        # Rather the output of a command that failed than the wish to have no tenants.
        print_error("Nothing came on standard input. To declare no tenants, send: tenants: {}")
        raise typer.Exit(ExitStatus.USAGE)
    return manifest


def _plan(remote: ApiClient, manifest: Manifest, *, prune: bool) -> list[Step]:
    actual = {each["id"]: each for each in remote.items("/v1/tenants")}
    pools: Mapping[str, Any] = {
        tenant: pool
        for tenant, declared in manifest.tenants.items()
        if declared.pool is not None and tenant in actual
        if (pool := _pool(remote, tenant)) is not None
    }
    return plan(manifest, actual, pools, prune=prune)


def _pool(remote: ApiClient, tenant: str) -> Mapping[str, Any] | None:
    """A tenant's pool; None while it has none."""
    try:
        return remote.get(f"/v1/tenants/{path_segment(tenant)}/pool")
    except ApiError as error:
        if error.http_status == NOT_FOUND:
            return None
        raise


def _carry_out(remote: ApiClient, steps: Sequence[Step]) -> tuple[int, list[dict[str, str]]]:
    """Do one step after the other; a tenant of which one failed is left alone from there on.

    How many were done, and which failed.
    """
    failures: list[dict[str, str]] = []
    done = 0
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task("applying", total=len(steps))
        failed: set[str] = set()
        for step in steps:
            progress.update(task, description=printable(f"{step.verb} {step.tenant}"))
            if step.tenant not in failed:
                try:
                    _do(remote, step)
                    done += 1
                except ApiError as error:
                    if error.exit_status in {ExitStatus.UNREACHABLE, ExitStatus.FORBIDDEN}:
                        raise
                    failed.add(step.tenant)
                    failures.append(
                        {"tenant": step.tenant, "step": step.verb, "reason": str(error)}
                    )
                    told = printable_lines(f"! {step.verb} {step.tenant}: {error}")
                    progress.console.print(Text(told, "red"))
            progress.advance(task)
    return done, failures


def _do(remote: ApiClient, step: Step) -> None:
    path = f"/v1/tenants/{path_segment(step.tenant)}"
    match step.verb:
        case Verb.CREATE | Verb.CHANGE:
            remote.put(path, step.body or {})
        case Verb.PROVISION:
            remote.post(f"{path}/provision")
        case Verb.RESIZE:
            remote.put(f"{path}/pool", step.body or {})
        case Verb.DELETE:
            remote.delete(path)
        case Verb.REFUSE:
            raise ApiError(step.summary, ExitStatus.REFUSED)


def _told(steps: Sequence[Step]) -> Text:
    """The plan, as tools people know show one."""
    if not steps:
        return Text("Nothing to do: the service is as the file says.")
    told = Text()
    for step in steps:
        sign, colour = _SIGNS[step.verb]
        said = printable(f"{sign} {step.verb} {step.tenant}: {step.summary}")
        told.append(f"{said}\n", style=colour)
    counts = Counter(step.verb for step in steps)
    told.append(", ".join(f"{counts[verb]} to {verb}" for verb in Verb if counts[verb]))
    return told
