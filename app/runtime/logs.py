"""Logging: structlog's events and the libraries' records go to stderr in one format.

That is one JSON event per line, or text for a person at a terminal. Local variables of a failed
function are never written: they could hold a password.
"""

import logging
import sys
from collections.abc import Sequence
from io import StringIO
from typing import Literal, TextIO

import structlog
from asgi_correlation_id.context import correlation_id
from structlog.processors import ExceptionRenderer
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, ExcInfo, Processor, WrappedLogger

from app.text.printable import is_printable, printable, printable_lines

_MULTILINE_KEYS = ("event", "exception", "stack")

LogFormat = Literal["auto", "json", "console"]

# Uvicorn installs its own handlers; its records use the common ones instead.
_WITH_OWN_HANDLERS = ("uvicorn", "uvicorn.access", "uvicorn.error")
# These loggers log each statement or request at INFO.
_VERBOSE = ("alembic", "asyncio", "httpcore", "httpx", "sqlalchemy", "uvicorn.access")


def configure_logging(log_format: LogFormat, level: str) -> None:
    """Send every event of this process to stderr; safe to call again."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        _add_request_id,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _without_colours,
                *(_for_people() if is_for_people(log_format) else _for_machines()),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    _route_libraries(level)


def is_for_people(log_format: LogFormat) -> bool:
    """Whether a log in *log_format* is text for people; `auto` is if stderr is a terminal."""
    return log_format == "console" or (log_format == "auto" and sys.stderr.isatty())


def _route_libraries(level: str) -> None:
    for name in _WITH_OWN_HANDLERS:
        logger = logging.getLogger(name)
        logger.handlers = []
        logger.propagate = True
        logger.setLevel(logging.NOTSET)
    for name in _VERBOSE:
        logging.getLogger(name).setLevel("DEBUG" if level == "DEBUG" else "WARNING")
    logging.captureWarnings(capture=True)


def _for_people() -> Sequence[Processor]:
    renderer = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=_printable_traceback
    )
    return [_printable, renderer]


def _for_machines() -> Sequence[Processor]:
    return [
        ExceptionRenderer(ExceptionDictTransformer(show_locals=False)),
        structlog.processors.JSONRenderer(),
    ]


def _add_request_id(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    request_id = correlation_id.get()
    if request_id is not None:
        event.setdefault("request_id", request_id)
    return event


def _printable(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Remove control characters from an event; JSON escapes them anyway."""
    return {key: _shown(key, value) for key, value in event.items()}


def _shown(key: str, value: object) -> object:
    if key == "exc_info":
        return value
    if key in _MULTILINE_KEYS:
        return _indented(str(value))
    if isinstance(value, str):
        return printable(value)
    return value if is_printable(said := repr(value)) else printable(said)


def _printable_traceback(out: TextIO, exc_info: ExcInfo) -> None:
    whole = StringIO()
    structlog.dev.plain_traceback(whole, exc_info)
    out.write("\n    " + _indented(whole.getvalue().strip("\n")))


def _indented(text: str) -> str:
    """Indent *text*, so that no line of a message looks like an event."""
    return printable_lines(text).replace("\n", "\n    ")


def _without_colours(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Drop uvicorn's second copy of the message, which is for coloured terminals."""
    event.pop("color_message", None)
    return event
