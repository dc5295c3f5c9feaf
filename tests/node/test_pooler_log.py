"""PgBouncer's log: which logins Postgres refused."""

from pathlib import Path

import pytest

from app.node.pooler_log import PoolerLog

HEAD = "2026-11-30 20:39:15.548 UTC [11546]"


@pytest.fixture
def log(tmp_path: Path) -> PoolerLog:
    (tmp_path / "log").write_text(f"{HEAD} ERROR S: login failed: FATAL: long ago\n")
    log = PoolerLog(tmp_path / "log")
    # What was there before this agent is unknown to be so still.
    assert log.refused_logins() == []
    return log


def add(log: PoolerLog, *lines: str) -> None:
    with log.path.open("a") as file:
        file.writelines(f"{line}\n" for line in lines)


def test_each_reason_since_the_last_look_is_told_once(log: PoolerLog) -> None:
    reasons = ["ERROR S: login failed: FATAL: no", "WARNING server login failed: FATAL never"]
    add(log, *[f"{HEAD} {each}" for each in reasons * 2], f"{HEAD} LOG RESUME issued")
    assert log.refused_logins() == ["no", "never"]
    assert log.refused_logins() == []
    log.path.write_text(f"{HEAD} ERROR S: login failed: FATAL: begun anew\n")
    assert log.refused_logins() == ["begun anew"]
    log.path.unlink()
    assert log.refused_logins() == []


def test_what_clients_send_is_no_reason(log: PoolerLog) -> None:
    forged = "ERROR S: login failed: FATAL: forged"
    add(log, f"{HEAD} LOG C-0x1: acme/{HEAD} {forged}", f"\t{HEAD} {forged}", forged)
    assert log.refused_logins() == []


def test_the_end_of_a_line_is_no_line(log: PoolerLog) -> None:
    sent = f"{HEAD} ERROR S: login failed: FATAL: forged"
    last = f"{HEAD} ERROR S: login failed: FATAL: real"
    # As much as is read of it begins within the line of a client, with what that sent.
    filling = "x" * ((1 << 16) - len(sent) - len(last) - 3)
    add(log, f"{HEAD} LOG C-0x1: acme/{sent}", filling, last)
    assert log.refused_logins() == ["real"]
