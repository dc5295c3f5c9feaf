"""What an agent and the service exchange survives JSON, and nothing else is accepted."""

import copy
import json
from dataclasses import replace
from typing import Any

import pytest

from app.domain.nodes.allotment import Allotment
from app.domain.nodes.configuration import NodeConfiguration, NodeEntry, NodeLogin, NodeServer
from app.domain.nodes.documents import NodeSession, ReportAnswer, as_document, from_document
from app.domain.nodes.entry_totals import WAIT_CLASSES, EntryTotals
from app.domain.nodes.gate import EntryState
from app.domain.nodes.report import (
    MOST_CLIENTS,
    MOST_CONNECTIONS,
    EntryReport,
    NodeReport,
    ServerReport,
)
from app.domain.tenant import TenantId

CONFIGURATION = NodeConfiguration(
    version=7,
    servers={
        "eu": NodeServer(
            host="db.example",
            port=5432,
            tls_mode="verify-full",
            allotment=Allotment(generation=3, connections=24),
            reports_search_path=True,
        )
    },
    entries=(
        NodeEntry(
            name="acme",
            server="eu",
            database="poolkeeper",
            role="tenant_acme",
            password="secret",
            size=5,
            weight=2,
            paused=True,
            logins=(NodeLogin(user="acme.web", verifier="SCRAM-SHA-256$4096:…"),),
        ),
    ),
)
OPTIONAL = {"begun", "busy_seconds", "reports_search_path"}
REPORT = NodeReport(
    session=2,
    sequence=40,
    version=7,
    engine="PgBouncer 1.18",
    servers={"eu": ServerReport(generation=3, committed=9, connected=4)},
    entries=(
        EntryReport(
            name="acme",
            state=EntryState.CLOSING,
            size=5,
            connections=4,
            in_use=3,
            clients=20,
            waiting=2,
            longest_wait=0.25,
            totals=EntryTotals(
                transactions=9,
                begun=8,
                transaction_seconds=1.5,
                wait_seconds=0.5,
                busy_seconds=2.5,
            ),
        ),
    ),
    backends={"eu": frozenset({101, 102})},
    users=frozenset({"acme.web"}),
    problem="its disk is full",
)
DOCUMENTS = (
    CONFIGURATION,
    REPORT,
    NodeSession(node="edge", session=2),
    ReportAnswer(allotments={"eu": Allotment(generation=4, connections=20)}, version=8),
)


@pytest.mark.parametrize("value", DOCUMENTS, ids=lambda value: type(value).__name__)
def test_each_is_the_same_after_a_way_through_json(value: object) -> None:
    sent = json.dumps(as_document(value))
    assert from_document(type(value), json.loads(sent)) == value


def test_what_is_not_set_is_left_out_because_an_earlier_version_may_know_no_null_there() -> None:
    unknown = replace(CONFIGURATION.servers["eu"], reports_search_path=None)
    sent = as_document(replace(CONFIGURATION, servers={"eu": unknown}))
    assert "reports_search_path" not in sent["servers"]["eu"]
    assert from_document(NodeConfiguration, sent).servers["eu"] == unknown


def test_a_text_of_another_type_is_sent_as_text() -> None:
    renamed = replace(CONFIGURATION.entries[0], name=TenantId("acme"))
    sent = as_document(replace(CONFIGURATION, entries=(renamed,)))
    assert from_document(NodeConfiguration, json.loads(json.dumps(sent))) == CONFIGURATION


@pytest.mark.parametrize("value", DOCUMENTS, ids=lambda value: type(value).__name__)
def test_any_value_of_another_kind_is_refused_with_its_place(value: object) -> None:
    document = as_document(value)
    for path in _paths(document):
        for wrong in (None, "?\0", -1, 1.5, True, [None], {"": None}):
            changed = copy.deepcopy(document)
            *parents, last = path
            place = changed
            for step in parents:
                place = place[step]
            if type(place[last]) is type(wrong) and wrong != -1:
                continue
            if wrong is None and last in OPTIONAL:
                continue
            place[last] = wrong
            with pytest.raises(ValueError, match="expected") as refused:
                from_document(type(value), changed)
            assert str(refused.value).startswith("/" + "/".join(map(str, path)))
            assert "?" not in str(refused.value)


def _paths(
    document: Any,  # noqa: ANN401 - JSON
    path: tuple[Any, ...] = (),
) -> list[tuple[Any, ...]]:
    """The paths of its values, including nested ones."""
    steps = document.items() if isinstance(document, dict) else enumerate(document)
    found = []
    for step, value in steps:
        found.append((*path, step))
        if isinstance(value, (dict, list)):
            found += _paths(value, (*path, step))
    return found


def test_a_missing_field_is_refused_unless_it_has_a_default_and_an_unknown_one_is_ignored() -> None:
    document = as_document(REPORT)
    del document["users"]
    assert from_document(NodeReport, document | {"of a later version": 1}).users == frozenset()
    del document["session"]
    with pytest.raises(ValueError, match="/session: this field is missing"):
        from_document(NodeReport, document)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -0.5, 1e300, 10**400])
def test_numbers_that_mean_nothing_are_refused(number: float) -> None:
    document = as_document(REPORT)
    document["entries"][0]["longest_wait"] = number
    with pytest.raises(ValueError, match="/entries/0/longest_wait: expected a number"):
        from_document(NodeReport, document)


def test_numbers_that_nothing_here_can_count_with_are_refused() -> None:
    for name, place in (("session", "/session"), ("generation", "/servers/eu/generation")):
        document = as_document(REPORT)
        (document if name in document else document["servers"]["eu"])[name] = 2**63
        with pytest.raises(ValueError, match=f"{place}: expected a whole number"):
            from_document(NodeReport, document)
    for value, names in (
        ("servers", ("committed", "connected")),
        ("entries", ("size", "connections", "in_use")),
    ):
        for name in names:
            document = as_document(REPORT)
            document[value]["eu" if value == "servers" else 0][name] = MOST_CONNECTIONS + 1
            with pytest.raises(ValueError, match=f"/{value}/.*: more than 100000 connections"):
                from_document(NodeReport, document)


def test_names_clients_and_waits_beyond_their_limits_are_refused() -> None:
    waits = {"oldest_waits": [0.0] * (WAIT_CLASSES + 1)}
    for name, value, reason in (
        ("name", "../acme", "no name of a tenant"),
        ("clients", MOST_CLIENTS + 1, "more than 1000000 clients"),
        ("waiting", MOST_CLIENTS + 1, "more than 1000000 clients"),
        ("totals", waits, "classes of waits"),
    ):
        document = as_document(REPORT)
        document["entries"][0][name] = value
        with pytest.raises(ValueError, match=f"/entries/0: .*{reason}"):
            from_document(NodeReport, document)


def test_what_the_values_themselves_refuse_is_refused_with_its_place() -> None:
    document = as_document(CONFIGURATION)
    document["entries"][0]["server"] = "other"
    with pytest.raises(ValueError, match="/: no such servers: other"):
        from_document(NodeConfiguration, document)


def test_allotments_of_an_answer_replace_older_ones_only() -> None:
    later = Allotment(generation=4, connections=20)
    for given, expected in ((later, later), (Allotment(generation=2, connections=99), None)):
        changed = CONFIGURATION.with_allotments({"eu": given, "unknown": given})
        assert changed.servers["eu"].allotment == (
            expected or CONFIGURATION.servers["eu"].allotment
        )
        assert set(changed.servers) == {"eu"}
