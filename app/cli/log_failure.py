"""How commands that write a log end early: with an event in the log, or a sentence for people."""

from typing import NoReturn

import structlog
import typer

from app.cli.client.exit_status import ExitStatus, fail
from app.runtime.logs import LogFormat, configure_logging, is_for_people

_log = structlog.get_logger(__name__)


def log_failure(
    reason: str,
    log_format: LogFormat,
    *,
    event: str = "cannot start",
    status: int = ExitStatus.REFUSED,
) -> NoReturn:
    """End the command with *status*; *reason*, one or several sentences, says why.

    Raises:
        typer.Exit: always.
    """
    if is_for_people(log_format):
        fail(reason, status)
    configure_logging(log_format, "CRITICAL")
    _log.critical(event, reason=" ".join(reason.splitlines()))
    raise typer.Exit(status)
