"""Makes a service match a file of tenants: reads, plans, asks, executes, reports."""

import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from http import HTTPStatus
from pathlib import Path
from threading import Event
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from app.cli.client.api_client import ApiClient, ApiError, path_segment
from app.cli.client.apply_report import render_plan, render_summary
from app.cli.client.dry_run import check, refusing, unchecked
from app.cli.client.execution import Execution, Summary
from app.cli.client.exit_status import ExitStatus, confirm, fail
from app.cli.client.manifest import Manifest, ManifestError, Stage, Step, Verb, plan
from app.cli.client.minimum_sizes import too_many
from app.cli.client.parallel_requests import patiently, work_in_parallel
from app.cli.client.session import Session
from app.cli.client.table import counted
from app.text.printable import print_error, printable

# By verb: the method, and the path below the tenant's.
_REQUESTS = {
    Verb.CREATE: ("PUT", ""),
    Verb.CHANGE: ("PUT", ""),
    Verb.PROVISION: ("POST", "/provision"),
    Verb.RESIZE: ("PUT", "/pool"),
    Verb.DELETE: ("DELETE", ""),
}


def apply_file(
    session: Session,
    file: str,
    *,
    prune: bool,
    adopt: bool,
    dry_run: bool,
    yes: bool,
    parallel: int,
) -> None:
    """Make the service match *file*."""
    manifest = _read(file)
    with session.client() as client:
        try:
            actual = {each["id"]: each for each in client.items("/v1/tenants")}
            pools = _pools(client, manifest, actual, threads=parallel)
            steps = plan(manifest, actual, pools, prune=prune, adopt=adopt)
            checks = unchecked(steps)
            if dry_run:
                checks = check(steps, partial(_send, client, dry_run=True), threads=parallel)
                too_large = too_many(manifest, actual, pools, _budgets(client, steps))
                checks = refusing(checks, too_large)
        except KeyboardInterrupt:
            fail("Interrupted; nothing was changed.", ExitStatus.INTERRUPTED)
        is_refused = any(each.refusal for each in checks)
        if dry_run or not steps or is_refused:
            document = {"steps": [each.document for each in checks]}
            session.print(document, lambda _: render_plan(checks))
            if is_refused and not dry_run:
                print_error("The file is refused; nothing was changed.")
            raise typer.Exit(ExitStatus.REFUSED if is_refused else 0)
        if session.output in {"table", "wide"}:
            session.print(None, lambda _: render_plan(checks))
        deletions = sum(step.verb is Verb.DELETE for step in steps)
        if deletions and not yes:
            confirm(f"Delete {counted(deletions, 'tenant')}? Their data is kept.")
        unchanged = sorted(manifest.tenants.keys() - {step.tenant for step in steps})
        summary, exit_status = _execute(client, steps, unchanged, threads=parallel)
    session.print(asdict(summary), lambda _: render_summary(summary))
    if exit_status:
        raise typer.Exit(exit_status)


def _read(file: str) -> Manifest:
    try:
        # YAML is UTF-8 in every locale.
        raw = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        manifest = Manifest.parse(raw.decode("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        fail(f"Cannot read {file}: {reason}.", ExitStatus.USAGE)
    except ManifestError as error:
        fail(f"{file}: {error}", ExitStatus.USAGE)
    if file == "-" and not raw:
        # It is more likely the output of a failed command than a request for no tenants.
        fail("Standard input is empty. To declare no tenants, send: tenants: {}", ExitStatus.USAGE)
    return manifest


def _budgets(client: ApiClient, steps: Iterable[Step]) -> Mapping[str, int]:
    """The connection budgets of the servers, if a step depends on them."""
    if not any(step.stage is Stage.RAISE_MIN_SIZE for step in steps):
        return {}
    return {each["name"]: each["budget"]["limit"] for each in client.items("/v1/servers")}


def _pools(
    client: ApiClient, manifest: Manifest, actual: Collection[str], *, threads: int
) -> Mapping[str, Any]:
    """The existing pools of the tenants whose pools the file declares, by tenant."""
    tenants = [
        tenant
        for tenant, declared in manifest.tenants.items()
        if declared.pool is not None and tenant in actual
    ]
    pools: dict[str, Any] = {}
    stop = Event()

    def fetch(tenant: str) -> None:
        path = f"/v1/tenants/{path_segment(tenant)}/pool"
        try:
            pools[tenant] = patiently(partial(client.get, path), stop)
        except ApiError as error:
            if error.http_status != HTTPStatus.NOT_FOUND:
                raise

    work_in_parallel(fetch, tenants, threads=threads, stop=stop)
    return pools


def _execute(
    client: ApiClient, steps: Sequence[Step], unchanged: list[str], *, threads: int
) -> tuple[Summary, int]:
    """Execute *steps* and show the progress; return the summary and the exit status."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task("applying", total=len(steps))

        def show(step: Step) -> None:
            progress.update(task, advance=1, description=printable(f"{step.verb} {step.tenant}"))

        execution = Execution(partial(_send, client), on_end=show)
        execution.run(steps, threads=threads)
    return execution.summarize(steps, unchanged), execution.exit_status


def _send(client: ApiClient, step: Step, *, dry_run: bool | None = None) -> Mapping[str, Any]:
    if step.verb is Verb.REFUSE:
        raise ApiError(step.summary, ExitStatus.REFUSED)
    method, below = _REQUESTS[step.verb]
    path = f"/v1/tenants/{path_segment(step.tenant)}{below}"
    return client.request(method, path, step.body, dry_run=dry_run, **step.query)
