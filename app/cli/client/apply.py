"""`poolkeeper apply -f tenants.yaml`: its options; the rest is imported when it runs."""

from typing import Annotated

import typer

from app.cli.client.service_command import YesOption


def apply(
    context: typer.Context,
    *,
    file: Annotated[
        str, typer.Option("--file", "-f", help="YAML file of tenants; - reads standard input.")
    ],
    prune: Annotated[
        bool, typer.Option("--prune", help="Delete tenants missing from the file; keep their data.")
    ] = False,
    adopt: Annotated[
        bool, typer.Option("--adopt", help="Take over existing objects of tenants in the file.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show the plan and what would be refused; change nothing."),
    ] = False,
    yes: YesOption = False,
    parallel: Annotated[int, typer.Option(min=1, max=64, help="Number of tenants at a time.")] = 16,
) -> None:
    """Create, change, provision and resize tenants to match a file."""
    from app.cli.client.apply_file import apply_file

    apply_file(
        context.obj, file, prune=prune, adopt=adopt, dry_run=dry_run, yes=yes, parallel=parallel
    )
