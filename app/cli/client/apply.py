"""`poolkeeper apply -f tenants.yaml`: make a service match a file of tenants."""

from __future__ import annotations

import sys
from collections import Counter, deque
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

# Failures in a row for the same reason, after which `apply` stops: no coincidence any more.
_MOST_ALIKE = 5
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
        str, typer.Option("--file", "-f", help="YAML file of tenants; - reads standard input.")
    ],
    prune: Annotated[
        bool, typer.Option("--prune", help="Delete tenants missing from the file; keep their data.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan and change nothing.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not ask for confirmation before deleting.")
    ] = False,
    url: UrlOption = DEFAULT_URL,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create, change, provision and resize tenants to match a file."""
    manifest = _read(file)
    session = Session(url, key_file, as_json)
    with session.client() as client:
        steps = _plan(client, manifest, prune=prune)
        is_refused = any(step.verb is Verb.REFUSE for step in steps)
        if dry_run or not steps or is_refused:
            session.print({"steps": [asdict(step) for step in steps]}, lambda _: _render(steps))
            raise typer.Exit(ExitStatus.REFUSED if is_refused else 0)
        if not as_json:
            Console(stderr=True).print(_render(steps))
        deletions = sum(step.verb is Verb.DELETE for step in steps)
        if deletions and not yes:
            typer.confirm(f"Delete {deletions} tenants? Their data is kept.", abort=True, err=True)
        done, failed = _execute(client, steps)
    session.print({"done": done, "failed": failed}, lambda _: f"{done} done, {len(failed)} failed")
    if failed:
        raise typer.Exit(ExitStatus.REFUSED)


def _read(file: str) -> Manifest:
    try:
        # YAML is UTF-8 in every locale.
        raw = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        manifest = Manifest.parse(raw.decode("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        print_error(f"Cannot read {file}: {reason}.")
        raise typer.Exit(ExitStatus.USAGE) from error
    except ManifestError as error:
        print_error(f"{file}: {error}")
        raise typer.Exit(ExitStatus.USAGE) from error
    if file == "-" and not raw:
        # More likely the output of a command that failed than a request for no tenants.
        print_error("Standard input is empty. To declare no tenants, send: tenants: {}")
        raise typer.Exit(ExitStatus.USAGE)
    return manifest


def _plan(client: ApiClient, manifest: Manifest, *, prune: bool) -> list[Step]:
    actual = {each["id"]: each for each in client.items("/v1/tenants")}
    pools: Mapping[str, Any] = {
        tenant: pool
        for tenant, declared in manifest.tenants.items()
        if declared.pool is not None and tenant in actual
        if (pool := _pool(client, tenant)) is not None
    }
    return plan(manifest, actual, pools, prune=prune)


def _pool(client: ApiClient, tenant: str) -> Mapping[str, Any] | None:
    try:
        return client.get(f"/v1/tenants/{path_segment(tenant)}/pool")
    except ApiError as error:
        if error.http_status == NOT_FOUND:
            return None
        raise


def _execute(client: ApiClient, steps: Sequence[Step]) -> tuple[int, list[dict[str, str]]]:
    """Execute the steps in order; after a failed step, skip the other steps of its tenant.

    What fails several tenants in a row in the same way would fail all: then the rest is not tried.

    Returns the number of executed steps, and the failures.
    """
    failures: list[dict[str, str]] = []
    done = 0
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task("applying", total=len(steps))
        failed: set[str] = set()
        latest_causes: deque[str] = deque(maxlen=_MOST_ALIKE)
        for number, step in enumerate(steps, start=1):
            progress.update(task, description=printable(f"{step.verb} {step.tenant}"))
            if step.tenant not in failed:
                try:
                    _execute_step(client, step)
                    done += 1
                except ApiError as error:
                    if error.exit_status in {ExitStatus.UNREACHABLE, ExitStatus.FORBIDDEN}:
                        raise
                    failed.add(step.tenant)
                    failures.append(
                        {"tenant": step.tenant, "step": step.verb, "reason": str(error)}
                    )
                    line = printable_lines(f"! {step.verb} {step.tenant}: {error}")
                    progress.console.print(Text(line, "red"))
                    latest_causes.append(str(error).replace(step.tenant, ""))
                    if latest_causes.count(latest_causes[0]) == _MOST_ALIKE:
                        left = f"{len(steps) - number} steps were not tried."
                        progress.console.print(f"Stopped: the same reason again and again. {left}")
                        break
            progress.advance(task)
    return done, failures


def _execute_step(client: ApiClient, step: Step) -> None:
    path = f"/v1/tenants/{path_segment(step.tenant)}"
    match step.verb:
        case Verb.CREATE | Verb.CHANGE:
            client.put(path, step.body or {})
        case Verb.PROVISION:
            client.post(f"{path}/provision")
        case Verb.RESIZE:
            client.put(f"{path}/pool", step.body or {})
        case Verb.DELETE:
            client.delete(path)
        case Verb.REFUSE:
            raise ApiError(step.summary, ExitStatus.REFUSED)


def _render(steps: Sequence[Step]) -> Text:
    if not steps:
        return Text("No changes: the service matches the file.")
    text = Text()
    for step in steps:
        sign, colour = _SIGNS[step.verb]
        line = printable(f"{sign} {step.verb} {step.tenant}: {step.summary}")
        text.append(f"{line}\n", style=colour)
    counts = Counter(step.verb for step in steps)
    return text.append(", ".join(f"{counts[verb]} to {verb}" for verb in Verb if counts[verb]))
