"""`make bench` by name; no measured value is asserted."""

import json
import sys
from pathlib import Path

import pytest

from app.api.auth.api_key import token_digest
from app.api.auth.key_file import KeyList
from app.api.auth.key_scope import KeyScope
from benchmarks import contention
from benchmarks.__main__ import chosen, main, measured
from benchmarks.contention import Run
from benchmarks.figure import as_json
from benchmarks.service import write_keys
from benchmarks.suite import MEASURES


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
    main()


def test_every_measure_is_listed_with_its_rounds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _run(monkeypatch, "--list")

    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(MEASURES)
    for line, measure in zip(lines, MEASURES.values(), strict=True):
        assert line.split()[1:3] == [str(measure.rounds), "rounds"]
        assert line.split()[3:], "each says what it measures"


def test_an_unknown_measure_is_refused_with_the_names_that_exist(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        _run(monkeypatch, "memory", "contendedown")

    assert refused.value.code == 2
    message = capsys.readouterr().err
    assert "no such measure: contendedown;" in message
    assert all(name in message for name in MEASURES)


def test_the_first_word_of_several_measures_is_all_of_them() -> None:
    assert chosen("flood") == ["flood"]
    assert len(chosen("contended")) == 5
    assert all(name.startswith("nodes_") for name in chosen("nodes"))


def test_the_keys_of_measures_permit_all_but_to_be_a_node(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    [token] = write_keys(file, 1)

    [key] = KeyList.model_validate_json(file.read_bytes()).keys
    assert key.digest == token_digest(token)
    assert set(KeyScope) - set(key.scopes) == {KeyScope.NODE}


@pytest.mark.long
async def test_a_measure_runs_by_its_name_and_gives_median_least_and_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Here with few tenants, and only for a moment."""
    monkeypatch.setattr(contention, "_FEW", Run(tenants=2, seconds=0.1, patience=5.0))
    monkeypatch.setattr(contention, "_MANY", Run(tenants=30, seconds=0.5, patience=5.0))
    monkeypatch.setattr(contention, "_THINKING_SECONDS", 0.5)

    figures = json.loads(json.dumps(as_json(await measured(["contended_thinking"], 1))))

    ours = {key: figure for key, figure in figures.items() if "pgbouncer" not in key}
    assert set(ours) == {
        f"contended_thinking_{name}"
        for name in (
            "per_s",
            "longest_wait_s",
            "timeouts",
            "cpu_ms",
            "jain",
            "backends_vs_budget",
            "vs_20",
            "cpu_vs_20",
        )
    }
    assert set(figures["contended_thinking_per_s"]) == {"2", "30"}
    assert set(figures["contended_thinking_vs_20"]) == {"30"}
    served = figures["contended_thinking_per_s"]["2"]
    assert 0 < served["min"] == served["median"] == served["max"], "of one round"
    assert 0 < figures["contended_thinking_backends_vs_budget"]["max"] <= 1
