"""The log: one event per line from every source, and never a local variable."""

import json
import logging
import warnings
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pytest
import structlog
from asgi_correlation_id.context import correlation_id

from app.runtime.logs import configure_logging
from app.text.printable import is_printable

pytestmark = pytest.mark.usefixtures("restored_loggers")


def only_event(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    (line,) = capsys.readouterr().err.splitlines()
    event: dict[str, Any] = json.loads(line)
    return event


def connect_with_a_password() -> None:
    password = "s3cret-local"  # noqa: F841 - a local variable is the point
    raise ConnectionError("no answer")


def test_an_event_is_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("json", "INFO")
    structlog.get_logger("app.pools").info("pool resized", tenant="acme", to=7)
    event = only_event(capsys)
    moment = datetime.fromisoformat(event.pop("timestamp"))
    assert abs(datetime.now(UTC) - moment) < timedelta(minutes=1)
    assert event == {
        "event": "pool resized",
        "level": "info",
        "logger": "app.pools",
        "tenant": "acme",
        "to": 7,
    }


@pytest.mark.parametrize("name", ["uvicorn.error", "asyncpg", "anything"])
def test_a_library_speaks_the_same_way(capsys: pytest.CaptureFixture[str], name: str) -> None:
    configure_logging("json", "INFO")
    logging.getLogger(name).warning("lost %d of %d", 1, 2, extra={"server": "main"})
    event = only_event(capsys)
    assert (event["event"], event["logger"], event["server"]) == ("lost 1 of 2", name, "main")


def test_a_warning_of_python_is_an_event_too(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("json", "INFO")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn("old", stacklevel=1)
    assert only_event(capsys)["level"] == "warning"


def test_an_exception_is_one_line_without_locals(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("json", "INFO")
    try:
        connect_with_a_password()
    except ConnectionError:
        structlog.get_logger().exception("tick failed")
    text = capsys.readouterr().err
    assert '"locals"' not in text
    assert "s3cret" not in text
    (exception,) = json.loads(text)["exception"]
    assert exception["exc_type"] == "ConnectionError"
    assert exception["frames"][-1]["name"] == "connect_with_a_password"


def test_a_librarys_exception_is_without_locals_too(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("json", "INFO")
    try:
        connect_with_a_password()
    except ConnectionError:
        logging.getLogger("uvicorn.error").exception("failed")
    event = only_event(capsys)
    assert event["exception"][0]["exc_value"] == "no answer"
    assert "s3cret" not in json.dumps(event)


def test_a_person_reads_text_without_locals(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("console", "INFO")
    try:
        connect_with_a_password()
    except ConnectionError:
        structlog.get_logger().exception("tick failed", tenant="acme")
    text = capsys.readouterr().err
    assert "tick failed" in text
    assert "tenant=acme" in text
    assert "ConnectionError: no answer" in text
    assert "s3cret" not in text


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_nothing_in_an_event_changes_a_terminal(
    capsys: pytest.CaptureFixture[str], log_format: Literal["console", "json"]
) -> None:
    hostile = "\x1b[2J\x07\r\n2026 [info] forged\x9b\u202e\u2028"

    class Odd:
        def __repr__(self) -> str:
            return hostile

    configure_logging(log_format, "INFO")
    try:
        int(hostile)
    except ValueError as error:
        error.add_note(hostile)
        structlog.get_logger().exception("failed", label=hostile, odd=Odd(), many=[hostile])
        logging.getLogger("uvicorn.error").exception("foreign %s", hostile, extra={"a": hostile})
    text = capsys.readouterr().err
    assert [line for line in text.split("\n") if not is_printable(line)] == []
    assert "\n2026 [info] forged" not in text


def test_auto_means_json_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("auto", "INFO")
    structlog.get_logger().info("started")
    assert only_event(capsys)["event"] == "started"


def test_an_event_inside_a_request_carries_its_id(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("json", "INFO")
    token = correlation_id.set("r-1")
    try:
        structlog.get_logger().info("tenant created")
    finally:
        correlation_id.reset(token)
    assert only_event(capsys)["request_id"] == "r-1"


def test_what_is_below_the_level_is_not_said(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("json", "WARNING")
    structlog.get_logger().info("quiet")
    logging.getLogger("uvicorn.error").info("quiet")
    logging.getLogger("sqlalchemy.engine").info("quiet")
    assert capsys.readouterr().err == ""


def test_configuring_twice_does_not_say_everything_twice(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging("json", "INFO")
    configure_logging("json", "INFO")
    structlog.get_logger().info("once")
    assert only_event(capsys)["event"] == "once"
