"""`poolkeeper top` in a real terminal: its screens, keys, sizes, and a service that goes away."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.fixtures.echo_service import EchoService
from tests.fixtures.pseudo_terminal import terminal

POOLS = 10_000
# Digits that a narrow terminal used to cut, and a name of the maximum length.
LONGEST = "tenant-with-a-name-of-forty-eight-characters-xyz"
TOP = ["top", "--interval", "0.2"]


class ManyPools:
    """Answers like a service with 10,000 pools; pool-n has n waiting callers."""

    def __init__(self, service: EchoService) -> None:
        self._examples = service.answer
        self.asked: list[Mapping[str, Any]] = []
        self.sent = 0

    def answer(self, method: str, path: str, body: object) -> tuple[int, Mapping[str, Any]]:
        status, document = self._examples(method, path, body)
        if urlsplit(path).path == "/v1/stats":
            # They have a line of their own.
            document = {**document, "nodes": None}
        if urlsplit(path).path != "/v1/pools":
            return status, document
        query = {name: values[0] for name, values in parse_qs(urlsplit(path).query).items()}
        self.asked.append(query)
        names = [f"pool-{number:05}" for number in range(POOLS)] + [LONGEST]
        found = [name for name in reversed(names) if query.get("search", "") in name]
        start = int(query.get("offset", 0))
        shown = found[start : start + int(query["limit"])]
        self.sent = max(self.sent, len(shown))
        [example] = document["items"]
        items = [example | _pool(name) for name in shown]
        return 200, {**document, "items": items, "matches": len(found)}


def _pool(name: str) -> Mapping[str, Any]:
    desired = {"min_size": 0, "max_size": 20, "warmup_size": 1, "paused": False}
    waiting = 1234 if name == LONGEST else int(name[-5:])
    return {
        "pool_id": name,
        "tenant": name,
        "waiting": waiting,
        "wait_p99_ms": 4967.4,
        "desired": desired,
    }


@pytest.fixture
def many(service: EchoService, monkeypatch: pytest.MonkeyPatch) -> ManyPools:
    found = ManyPools(service)
    monkeypatch.setattr(EchoService, "answer", lambda _, *request: found.answer(*request))
    return found


def cells(screen: list[str], name: str) -> list[str]:
    """The values of a row, by its first one."""
    [row] = [line for line in screen if line.startswith(name)]
    return row.split()


@pytest.mark.parametrize("columns", [80, 120, 200])
def test_names_and_numbers_are_whole(service: EchoService, many: ManyPools, columns: int) -> None:
    with terminal(TOP, service.url, columns=columns) as top:
        screen = top.wait_for("1 to 17 of 10,001")
        assert max(map(len, screen)) <= columns
        assert len(screen) == 24
        assert cells(screen, LONGEST)[:3] == [LONGEST, "ready", "1234"]
        top.press("/pool-09\r")
        screen = top.wait_for("1 to 17 of 1,000")
        titles = next(line for line in screen if line.startswith("POOL"))
        assert titles.split()[:6] == ["POOL", "STATE", "WAITING", "WAIT", "P99", "MS"]
        assert cells(screen, "pool-09999")[:7] == [
            *("pool-09999", "ready", "9999", "4,967.4", "2", "3", "20"),
        ]
        top.press("q")
        assert top.end() == 0


def test_it_scrolls_and_fetches_no_more_than_it_shows(
    service: EchoService, many: ManyPools
) -> None:
    with terminal(TOP, service.url) as top:
        top.wait_for("1 to 17 of 10,001")
        top.press("\x1b[6~")
        top.wait_for("18 to 34 of 10,001")
        top.press("\x1b[F")
        screen = top.wait_for("9,985 to 10,001 of 10,001")
        top.wait(lambda screen: any(line.startswith("pool-00000") for line in screen))
        top.press("\x1b[A" * 17)
        top.wait_for("9,984 to 10,000 of 10,001")
        top.press("\x1b[H")
        screen = top.wait_for("1 to 17 of 10,001")
        top.wait(lambda screen: any(line.startswith("pool-09999") for line in screen))
        top.resize(120, 40)
        screen = top.wait_for("1 to 33 of 10,001")
        assert len(screen) == 40
        top.wait(lambda screen: sum(line.startswith("pool-") for line in screen) == 32)
        top.press("s")
        top.wait_for("pools by wait p99 ms")
        top.press("q")
        assert top.end() == 0
    assert many.sent <= 33
    assert all("fields" in query for query in many.asked)


REASON = (
    "At 41 leases/s × 150 ms, 10 connections make 6 % of callers wait over 100 ms; 12 make under "
    "1 % wait; 15 includes 1 more because callers were late repeatedly, and 2 for bursts"
)


def test_a_pool_opens_in_detail_and_closes_again(service: EchoService) -> None:
    def recommend(path: str, document: Mapping[str, Any]) -> Mapping[str, Any]:
        if path.endswith("/pool"):
            advice = {"current_size": 10, "new_size": 12, "reason": REASON, "blocked_by": "a test"}
            made = (datetime.now(UTC) - timedelta(minutes=20)).isoformat()
            recommendation = {"id": "1", "new_size": 15, "reason": REASON, "created_at": made}
            document = {**document, "recommendation": recommendation, "advice": advice}
        return document

    service.change = recommend
    with terminal(TOP, service.url, lines=40) as top:
        top.wait_for("pools by waiting")
        top.press("\r")
        screen = top.wait_for("wait for")
        shown = "\n".join(screen)
        for part in ("acme: per_tenant on local", "3 open: 2 on lease, 1 idle", "p99 8.5 ms"):
            assert part in shown
        assert max(map(len, screen)) <= 80
        # The lines are as long as they can be, and no word is broken.
        [at] = [at for at, line in enumerate(screen) if line.startswith("recommended")]
        assert len(screen[at]) > 70
        words = " ".join(" ".join(screen[at:]).split())
        assert re.match(
            rf"recommended [0-9]+ → 15, 20m ago: {re.escape(REASON)} advice 10 → 12: ", words
        )
        assert f"{REASON} (not applied: a test)" in words
        top.press("\x1b")
        top.wait_for("pools by waiting")
        top.press("q")
        assert top.end() == 0


def test_a_shared_pool_opens_as_its_tenants(service: EchoService) -> None:
    def share(path: str, document: Mapping[str, Any]) -> Mapping[str, Any]:
        if urlsplit(path).path == "/v1/pools":
            [pool] = document["items"]
            shared = {"pool_id": "shared@local", "tenant": None, "shared": True}
            document = {**document, "items": [pool | shared]}
        return document

    service.change = share
    with terminal(TOP, service.url) as top:
        top.wait_for("shared@local")
        top.press("\r")
        top.wait_for("tenants of shared@local by waiting requests")
        top.wait(lambda screen: any(line.startswith("acme") for line in screen))
        top.press("\r")
        top.wait_for("acme: per_tenant on local")
        top.press("\x1b")
        top.wait_for("tenants of shared@local")
        top.press("\x1b")
        top.wait_for("pools by waiting")
        top.press("q")
        assert top.end() == 0


PROBLEM = "port 6432 is taken by another program, so that no application can connect here"


@pytest.mark.parametrize("columns", [80, 120, 200])
def test_nodes_open_as_their_tenants_and_these_with_what_they_have_there(
    service: EchoService, columns: int
) -> None:
    def in_trouble(path: str, document: Mapping[str, Any]) -> Mapping[str, Any]:
        if urlsplit(path).path == "/v1/nodes":
            [node] = document["items"]
            troubled = {"name": LONGEST, "waiting": 1234, "paused": True, "problem": PROBLEM}
            document = {**document, "items": [node, node | troubled]}
        if urlsplit(path).path == "/v1/stats":
            document = {**document, "nodes": {**document["nodes"], "vulnerable": 1}}
        return document

    service.change = in_trouble
    with terminal(TOP, service.url, columns=columns, lines=40) as top:
        head, *_ = top.wait_for("nodes         2 ready, 1 vulnerable; 85 clients, 0 waiting")
        assert re.match(r"Poolkeeper: \d+ active, \d+ waiting, \d+ timeouts, event loop lag", head)
        top.press("n")
        screen = top.wait_for("nodes by waiting  1 to 2 of 2")
        screen = top.wait(lambda screen: any(line.startswith(LONGEST) for line in screen))
        assert max(map(len, screen)) <= columns
        row = cells(screen, LONGEST)
        assert row[:3] == [LONGEST, "ready,", "problem,"]
        assert ("paused" in row) is (columns > 80)
        assert "1234" in row
        assert any(PROBLEM[:12] in line for line in screen) is (columns == 200)
        # The tenant that waits longest is first.
        top.press("\r")
        top.wait_for(f"tenants on node {LONGEST[:20]}")
        screen = top.wait(lambda screen: any(line.startswith("acme") for line in screen))
        [titles] = [line for line in screen if line.startswith("TENANT")]
        assert "ACTIVE  SHARE  EST P99 MS" in titles
        assert ("CLIENTS" in titles) is (columns > 80)
        assert max(map(len, screen)) <= columns
        top.press("\r")
        screen = top.wait(lambda screen: any(line.startswith("on node") for line in screen))
        shown = " ".join(" ".join(screen).split())
        # The parts of its size that the service itself and the node may have.
        assert "min 0, max 5, share 1" in shown
        assert "edge-1: open, share 4, 2 of 4 connections active, 12 clients, 0 waiting;" in shown
        assert "41.0 transactions/s of 12.5 ms, wait 0.2 ms, estimated p99 3.1 ms" in shown
        top.press("\x1b")
        top.wait_for("tenants on node")
        top.press("\x1b")
        top.wait_for("nodes by waiting")
        top.press("\x1b")
        top.wait_for("pools by waiting")
        top.press("q")
        assert top.end() == 0


def test_it_survives_a_service_that_fails_and_comes_back(service: EchoService) -> None:
    with terminal(TOP, service.url) as top:
        top.wait_for("arrows")
        service.refusals = [(500, "internal")] * 1000
        screen = top.wait_for("s old: Refused")
        assert any(line.startswith("acme") for line in screen)
        service.refusals = []
        top.wait_for("arrows")
        top.press("q")
        assert top.end() == 0
        assert top.process.stderr is not None
        assert top.process.stderr.read() == b""


def test_keys_that_mean_nothing_do_nothing(service: EchoService, many: ManyPools) -> None:
    with terminal(TOP, service.url) as top:
        first = top.wait_for("1 to 17 of 10,001")
        top.press("\xe4\x1b[99~x\xc3\x1b[6~\x1b[5~")
        assert top.wait_for("1 to 17 of 10,001")[:1] == first[:1]
        top.press("/POOL-0")
        top.wait_for("filter: pool-0_")
        top.press("\x7f\x1b")
        top.wait(lambda screen: not any("filter:" in line for line in screen))
        top.press("q")
        assert top.end() == 0


def test_a_pool_that_was_evicted_is_not_open(
    service: EchoService, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = service.answer

    def answer(
        _: EchoService, method: str, path: str, body: object
    ) -> tuple[int, Mapping[str, Any]]:
        if path.endswith("/pool"):
            return 404, {"detail": "Not open.", "code": "pool-not-found", "retryable": False}
        return examples(method, path, body)

    monkeypatch.setattr(EchoService, "answer", answer)
    with terminal(TOP, service.url) as top:
        top.wait_for("pools by waiting")
        top.press("\r")
        top.wait_for("not open; its next use opens it")
        top.press("q")
        assert top.end() == 0


LEASES = [
    {
        "state": "active",
        "tenant": "acme",
        "age_seconds": 1234.56,
        "position": None,
        "pid": 4711,
        "task": "request 5d1c4a2e8b7f4c6d5d1c4a2e8b7f4c6d",
        "taken_at": "/srv/app/orders/a/very/long/path/orders.py:120",
        "statement": "select count(*) from orders where customer = $1 and item = $2 and n = $3",
    },
    {
        "state": "waiting",
        "tenant": "acme",
        "age_seconds": 3.21,
        "position": 1,
        "pid": None,
        "task": None,
        "taken_at": None,
        "statement": None,
    },
]


def test_a_tenant_shows_who_holds_its_connections_and_who_waits(service: EchoService) -> None:
    asked = []

    def hold(path: str, document: Mapping[str, Any]) -> Mapping[str, Any]:
        url = urlsplit(path)
        if url.path == "/v1/leases":
            asked.append(parse_qs(url.query)["tenant"])
            document = {**document, "items": LEASES, "active": 1, "waiting": 4}
        return document

    service.change = hold
    with terminal(TOP, service.url, lines=40) as top:
        top.wait_for("pools by waiting")
        top.press("\r")
        screen = top.wait_for("and 3 more")
        assert max(map(len, screen)) <= 80
        told = " ".join(" ".join(screen).split())
        assert "holds 1,234.6 s, back-end 4711, request 5d1c4a2e8b7f4c6d5d1c4a2e8b7f4c6d" in told
        assert "at /srv/app/orders/a/very/long/path/orders.py:120" in told
        assert "customer = $1 and item = $2 and n = $3" in told
        assert "waits 3.2 s, place 1" in told
        assert "wait for a lease to end: all 5 connections of the pool are on lease" in told
        assert "…" not in told
        top.press("q")
        assert top.end() == 0
    assert {tuple(each) for each in asked} == {("acme",)}


@pytest.mark.parametrize(
    ("instances", "line"),
    [
        (
            [
                {"id": "3f2a9c1b", "url": "http://10.0.0.7:8080", "state": "active"},
                {"id": "77aa00bb", "url": "http://10.0.0.8:8080", "state": "standby"},
                {"id": "77aa00bc", "url": "http://10.0.0.9:8080", "state": "standby"},
            ],
            "active        http://10.0.0.7:8080 (3f2a9c1b); 2 standby",
        ),
        (
            [{"id": "77aa00bb", "url": "http://10.0.0.8:8080", "state": "standby"}],
            "active        no instance; 1 standby",
        ),
        ([{"id": "3f2a9c1b", "url": None, "state": "active"}], None),
        (None, None),  # the catalog, which knows them, is away
    ],
)
def test_the_head_says_which_instance_responds(
    service: EchoService,
    monkeypatch: pytest.MonkeyPatch,
    instances: list[Mapping[str, Any]] | None,
    line: str | None,
) -> None:
    examples = service.answer

    def answer(
        _: EchoService, method: str, path: str, body: object
    ) -> tuple[int, Mapping[str, Any]]:
        if urlsplit(path).path != "/v1/instances":
            return examples(method, path, body)
        if instances is None:
            return 503, {"detail": "Away.", "code": "catalog-unavailable", "retryable": True}
        return 200, {"items": instances, "next_cursor": None}

    monkeypatch.setattr(EchoService, "answer", answer)
    with terminal(TOP, service.url) as top:
        screen = top.wait_for("pools by waiting")
        assert [each.rstrip() for each in screen if each.startswith("active  ")] == [line] * (
            line is not None
        )
        top.press("q")
        assert top.end() == 0


def test_a_server_that_takes_no_writes_is_marked(service: EchoService) -> None:
    def change(path: str, example: Any) -> Any:  # noqa: ANN401 - JSON
        if urlsplit(path).path != "/v1/stats":
            return example
        return {**example, "servers": [{**one, "read_only": True} for one in example["servers"]]}

    service.change = change
    with terminal(TOP, service.url, columns=80) as top:
        top.wait_for("  read-only")
        top.press("q")
        assert top.end() == 0


def test_the_head_keeps_the_active_instance_while_the_catalog_is_away(
    service: EchoService, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples, asked = service.answer, 0

    def answer(
        _: EchoService, method: str, path: str, body: object
    ) -> tuple[int, Mapping[str, Any]]:
        nonlocal asked
        status, document = examples(method, path, body)
        match urlsplit(path).path:
            case "/v1/instances":
                asked += 1
                if asked > 1:
                    return 503, {"detail": "Away.", "code": "catalog-unavailable"}
            case "/v1/stats" if asked > 2:
                document = {**document, "totals": {**document["totals"], "waiting_requests": 777}}
        return status, document

    monkeypatch.setattr(EchoService, "answer", answer)
    with terminal(TOP, service.url) as top:
        top.wait_for("pools by waiting")
        screen = top.wait_for("777 waiting")
        assert any(each.startswith("active  ") for each in screen)
        top.press("q")
        assert top.end() == 0
