"""`poolkeeper simulate` prints figures, or an error in one sentence with status 2."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from app.cli.main import cli
from app.cli.simulate import simulate

KEYS = {
    *("late_share", "timeouts", "p99_wait_ms", "goodput", "avg_connections", "connects_per_s"),
    *("resizes", "flips_per_hour", "settling_s", "regret", "tenants_over_target"),
}


@pytest.fixture
def trace(tmp_path: Path) -> str:
    path = tmp_path / "trace.csv"
    path.write_text("timestamp,value\n" + "".join(f"t{n},{40 + n % 7}\n" for n in range(10)))
    return str(path)


def run(*arguments: str) -> Result:
    app = typer.Typer()
    app.command()(simulate)
    return CliRunner().invoke(app, list(arguments))


def test_a_trace_gives_every_figure_as_json(trace: str) -> None:
    flags = (
        "--rule demand --p99-rate 60 --clip-rate 160 --bin-seconds 60 --hold-ms 150 --hold-cv 1.5 "
        "--late-ms 100 --tick 5 --budget 80 --seed 3 --json"
    )
    first = run(trace, *flags.split())
    assert first.exit_code == 0, first.output
    figures = json.loads(first.stdout)
    assert figures.keys() >= KEYS
    assert figures["regret"].keys() == {"10", "100", "1000"}
    assert 30_000 < figures["leases"] < 36_000
    assert 0 <= figures["late_share"] < 1
    assert run(trace, *flags.split()).stdout == first.stdout


def test_without_json_the_output_is_a_table(trace: str) -> None:
    result = run(trace, "--rule", "hpa", "--tenants", "4", "--arrivals", "bursty")
    assert result.exit_code == 0, result.output
    assert "late_share" in result.stdout
    assert "regret, 1000 per late wait" in result.stdout
    related = ["avg_connections", "avg_max_size", "avg_active", "connection_seconds"]
    lines = [line.split()[1] for line in result.stdout.splitlines() if "_" in line]
    first = lines.index(related[0])
    assert lines[first : first + len(related)] == related


def test_a_synthetic_load_needs_no_trace() -> None:
    result = run("--load", "burst", "--rule", "static", "--size", "20", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["avg_connections"] == pytest.approx(20, abs=0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "either a trace or a synthetic load"),
        (["{trace}", "--load", "step"], "either a trace or a synthetic load"),
        (["{folder}/nothing.csv"], "cannot be read"),
        (["{folder}"], "cannot be read"),
        (["{trace}", "--tick", "0"], "--tick must be a number above 0"),
        (["{trace}", "--p99-rate", "nan"], "--p99-rate must be a number above 0"),
        (["{trace}", "--hold-ms", "-1"], "--hold-ms must be a number above 0"),
        (["{trace}", "--knee", "1"], "more than 1 connection"),
        (["{trace}", "--rule", "static"], "--size"),
        (["{trace}", "--p99-rate", "1e12"], "too many requests"),
        (["{trace}", "--tick", "1e-9"], "too many ticks"),
    ],
)
def test_bad_input_ends_with_a_sentence(
    arguments: list[str], message: str, trace: str, tmp_path: Path
) -> None:
    filled = [argument.format(trace=trace, folder=tmp_path) for argument in arguments]
    result = run(*filled)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.startswith("poolkeeper: ")
    assert len(result.stderr.splitlines()) == 1
    assert not result.stdout


@pytest.mark.parametrize(
    "content", [b"timestamp,value\na,nan\n", b"\xff\xfe\x00", b"time,value\na,1\n", b""]
)
def test_a_broken_trace_ends_with_a_sentence(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.csv"
    path.write_bytes(content)
    result = run(str(path))
    assert result.exit_code == 2
    assert result.stderr.startswith("poolkeeper: ")
    assert "Traceback" not in result.output


def test_the_command_line_contains_it() -> None:
    assert "Sizing rule" in CliRunner().invoke(cli, ["simulate", "--help"]).stdout
