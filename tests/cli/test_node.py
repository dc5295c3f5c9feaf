"""What `poolkeeper node` refuses before it starts anything."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli.main import cli

LOOPBACK = "--server=http://127.0.0.1:1"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ([LOOPBACK], "Give --key-file"),
        ([LOOPBACK, "--name=edge", "--key-file={}/key"], "Give --key-file"),
        ([LOOPBACK, "--key-file={}/none"], "no API key"),
        (["--server=http://10.0.0.7", "--key-file={}/key"], "Use https"),
        ([LOOPBACK, "--name=edge", "--listen=127.0.0.1"], "give a host and a port"),
        ([LOOPBACK, "--name=edge", "--listen=127.0.0.1:0"], "give a host and a port"),
        ([LOOPBACK, "--name=edge", "--listen=0.0.0.0:6432"], "in clear"),
        ([LOOPBACK, "--name=edge", "--tls-cert={}/key"], "a certificate and its key"),
        ([LOOPBACK, "--name=edge", "--user=nosuch"], "nosuch"),
        ([LOOPBACK, "--name=edge", "--pgbouncer=/bin/true"], "is not PgBouncer"),
        ([LOOPBACK, "--name=edge", "--pgbouncer={}/pgbouncer"], "1.17.0 is too old"),
        (
            [LOOPBACK, "--name=edge", "--pgbouncer={}/later", "--refuse-vulnerable"],
            "PgBouncer 1.26.0: one user can log in as another (CVE-2026-107350)",
        ),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_what_cannot_work_is_refused_at_once(
    line: list[str], words: str, tmp_path: Path, restored_loggers: None
) -> None:
    (tmp_path / "key").write_text("poolkeeper_00000000_secret")
    for name, version in (("pgbouncer", "1.17.0"), ("later", "1.26.0")):
        (tmp_path / name).write_text(f"#!/bin/sh\necho PgBouncer {version}\n")
        (tmp_path / name).chmod(0o755)
    arguments = [each.format(tmp_path) for each in line]
    result = CliRunner().invoke(cli, ["node", f"--directory={tmp_path / 'node'}", *arguments])
    assert result.exit_code == 2, result.output
    assert words in " ".join(result.stderr.split())
    assert not (tmp_path / "node").exists()
