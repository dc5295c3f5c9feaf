"""`poolkeeper serve` and `poolkeeper demo`: the commands that run the service.

This file is imported only when one of them runs, because that takes seconds. A failed start prints
one sentence and exits with a non-zero status.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import typer
import uvicorn

from app.api.http.client_connections import ClientLimits
from app.cli.client.exit_status import ExitStatus
from app.cli.demo import DemoError, serve_with_traffic
from app.cli.log_failure import log_failure
from app.embedded import EmbeddedPostgres
from app.main import create_app
from app.runtime.lifecycle import STARTUP_ERRORS, startup_error_message
from app.runtime.logs import LogFormat, configure_logging
from app.runtime.server import ProcessStatus, ServeFunction, handle_stop_signals, run_server
from app.settings import Settings, SettingsError, configured_log_format, load_settings


def serve() -> None:
    settings = settings_or_exit()
    configure_logging(settings.log_format, settings.log_level)
    raise typer.Exit(_run(settings, uvicorn.Server.serve))


def demo() -> None:
    settings = settings_or_exit()
    refuse = partial(log_failure, log_format=settings.log_format, status=ExitStatus.USAGE)
    if not settings.is_embedded:
        refuse("The demo only runs on the embedded server.")
    if settings.requires_keys:
        refuse("The demo only runs on loopback and without API keys.")
    configure_logging(settings.log_format, settings.log_level)
    settings = _demo_settings(settings)
    with (
        exit_on_error(settings.log_format),
        handle_stop_signals() as is_stopping,
        _temporary_postgres(settings.data_dir),
    ):
        stopped = ProcessStatus.STOPPED
        status = stopped if is_stopping() else _run(settings, serve_with_traffic)
    raise typer.Exit(status)


def settings_or_exit() -> Settings:
    """The settings; if they are invalid, the command ends."""
    try:
        return load_settings()
    except SettingsError as error:
        log_failure(str(error), configured_log_format(), status=ExitStatus.USAGE)


def _demo_settings(settings: Settings) -> Settings:
    """Use a separate data directory, and recommend within a minute unless configured otherwise."""
    fast = {"advisor_interval_seconds": 5.0, "advisor_samples": 2}
    defaults = {key: fast[key] for key in fast.keys() - settings.model_fields_set}
    return settings.model_copy(update={**defaults, "data_dir": settings.data_dir / "demo"})


@contextmanager
def _temporary_postgres(data_dir: Path) -> Iterator[None]:
    """Delete the demo's Postgres at the end, and at the start if an earlier demo was killed."""
    postgres = EmbeddedPostgres(data_dir)
    had_parent = data_dir.parent.exists()
    asyncio.run(postgres.remove())
    try:
        yield
    finally:
        asyncio.run(postgres.remove())
        if not had_parent:
            with suppress(OSError):  # not empty: other files were created there in the meantime
                data_dir.parent.rmdir()


def _run(settings: Settings, serve: ServeFunction) -> ProcessStatus:
    """Serve until SIGTERM or Ctrl-C."""
    return run_server(
        create_app(settings),
        serve,
        host=settings.host,
        port=settings.port,
        shutdown_seconds=settings.shutdown_seconds,
        limits=ClientLimits(
            max_connections=settings.max_http_connections,
            header_timeout=settings.header_timeout_seconds,
            send_timeout=settings.send_timeout_seconds,
            keep_alive=settings.keep_alive_seconds,
        ),
    )


@contextmanager
def exit_on_error(log_format: LogFormat, event: str = "cannot start") -> Iterator[None]:
    """End the command with one sentence if the service cannot start."""
    try:
        yield
    except (DemoError, *STARTUP_ERRORS) as error:
        log_failure(startup_error_message(error), log_format, event=event)
