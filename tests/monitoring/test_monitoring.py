"""The shipped alerts and dashboards: each expression parses, and reads what the service has."""

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from tests.fixtures.app import Api
from tests.fixtures.missing import missing
from tests.fixtures.waiting import eventually

FOLDER = Path(__file__).parents[2] / "monitoring"
DASHBOARDS = sorted((FOLDER / "grafana" / "dashboards").glob("*.json"))
# Prometheus' own, of each target and each alert.
NOT_OURS = {"up", "ALERTS"}
VARIABLES = {"$__rate_interval": "5m", "$server": "local", "$tenant": "acme"}
UNITS = {"short", "s", "ops", "percentunit"}


def alerts() -> list[dict[str, Any]]:
    """Every alert of the rules' file."""
    groups = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every panel of every dashboard that shows something."""
    for file in DASHBOARDS:
        for panel in json.loads(file.read_text())["panels"]:
            if panel["type"] != "row":
                yield file.stem, panel


def expressions() -> list[str]:
    """Every query of alerts and dashboards, with values for its variables."""
    found = [alert["expr"] for alert in alerts()]
    found += [target["expr"] for _, panel in panels() for target in panel["targets"]]
    return [_filled_in(each) for each in found]


def _filled_in(expression: str) -> str:
    for variable, value in VARIABLES.items():
        expression = expression.replace(variable, value)
    return expression


def asked_for(expression: str) -> set[str]:
    """The metrics that an expression reads.

    Names of functions and labels are recognized by what precedes or follows them.
    """
    promql_parser.parse(expression)
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\b(by|without)\s*\([^)]*\)', "", expression)
    return set(re.findall(r"\b(?:poolkeeper_\w+|db_client_\w+|up|ALERTS)\b", bare))


@pytest.mark.parametrize("expression", expressions())
def test_an_expression_parses_and_asks_for_something(expression: str) -> None:
    assert asked_for(expression)


def test_a_broken_expression_does_not_pass() -> None:
    with pytest.raises(ValueError, match="parenthesis"):
        asked_for("sum by (server (poolkeeper_server_up)")


async def test_the_service_has_every_metric_that_is_asked_for(api: Api) -> None:
    await eventually(lambda: _has_polled(api))
    exposed = (await api.client.get("/metrics")).text
    families = dict(re.findall(r"^# TYPE (\S+) (\S+)$", exposed, re.MULTILINE))
    known = set(families)
    for name, kind in families.items():
        if kind == "histogram":
            known |= {f"{name}_bucket", f"{name}_sum", f"{name}_count"}
    wanted = {name for expression in expressions() for name in asked_for(expression)}
    assert wanted - known - NOT_OURS == set()


async def _has_polled(api: Api) -> bool:
    return "poolkeeper_poll_age_seconds" in (await api.client.get("/metrics")).text


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_an_alert_says_what_happened_and_where_to_read_on(alert: dict[str, Any]) -> None:
    assert re.fullmatch(r"Poolkeeper[A-Z]\w+", alert["alert"])
    assert alert["labels"]["severity"] in {"warning", "critical"}
    notes = alert["annotations"]
    assert notes["summary"].endswith(".")
    assert notes["description"].endswith(".")
    document, _, anchor = notes["runbook_url"].partition("#")
    headings = re.findall(r"^#+ (\w+)$", (FOLDER.parent / document).read_text(), re.MULTILINE)
    assert anchor == alert["alert"].lower()
    assert alert["alert"] in headings


def test_alerts_have_names_of_their_own() -> None:
    names = [alert["alert"] for alert in alerts()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_a_dashboard_can_be_imported_anywhere(file: Path) -> None:
    board = json.loads(file.read_text())
    ids = [panel["id"] for panel in board["panels"]]
    assert board["id"] is None
    assert board["uid"] == f"poolkeeper-{file.stem}"
    assert len(ids) == len(set(ids))
    variables = {variable["name"] for variable in board["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", file.read_text())) - {"__rate_interval"}
    assert used <= variables


@pytest.mark.parametrize(
    "panel", [pytest.param(panel, id=f"{file}: {panel['title']}") for file, panel in panels()]
)
def test_a_panel_is_described_and_has_a_unit(panel: dict[str, Any]) -> None:
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    assert panel["datasource"]["uid"] == "${datasource}"
    assert panel["targets"]


@pytest.mark.parametrize(
    "words", [("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")]
)
def test_promtool_agrees(words: tuple[str, ...]) -> None:
    done = promtool(*words)
    assert done.returncode == 0, done.stdout + done.stderr


async def test_promtool_objects_to_one_name_which_is_opentelemetrys(api: Api) -> None:
    await api.value(await api.tenant("acme"), "select 1")  # some metrics need a pool
    await api.service.exposition.prepare(await api.service.snapshots.publish())
    exposed = (await api.client.get("/metrics")).text
    done = await asyncio.to_thread(promtool, "check", "metrics", given=exposed)
    objections = (done.stdout + done.stderr).splitlines()
    assert [each.split()[0] for each in objections] == ["db_client_connection_count"], objections


def promtool(*words: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run promtool, if it is installed."""
    found = shutil.which("promtool")
    if found is None:
        missing("There is no promtool on this machine: the rules were only parsed.")
    return subprocess.run(
        [found, *words],
        cwd=FOLDER,
        input=given,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
