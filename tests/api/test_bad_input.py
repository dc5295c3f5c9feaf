"""Whatever is sent, the answer is a problem with a 4xx status: never a 500, never a stack trace."""

import gzip
import itertools
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi.routing import APIRoute
from httpx import Response

from app.api.http.body_limits import MAX_BODY_BYTES, MAX_QUERY_BYTES
from app.api.http.strict_route import StrictRoute
from tests.fixtures.app import PROBLEM, Api, ok, pointers, problem
from tests.fixtures.openapi import committed

ACME = "/v1/tenants/acme"
TAKEN = "/v1/tenants/taken"
pytestmark = pytest.mark.asyncio(loop_scope="module")

AS_JSON = {"Content-Type": "application/json"}


async def put(
    api: Api, content: bytes, content_type: str = "application/json", *, url: str = ACME
) -> Response:
    return await api.client.put(url, content=content, headers={"Content-Type": content_type})


@pytest.mark.parametrize(
    "name",
    [
        "A",
        "a_b",
        "-a",
        "a-",
        "a.b",
        "a b",
        "a" * 49,
        "a" * 8000,
        "%00",
        "a%00",
        "acme%0A",
        "%ff",
        "%E2%80%AE",
        "%C3%A9",
        "a%27--",
        "%22;select",
    ],
)
async def test_an_invalid_id_is_refused_with_its_place(standing_api: Api, name: str) -> None:
    assert pointers(await standing_api.client.put(f"/v1/tenants/{name}", json={})) == [
        "/path/tenant"
    ]
    assert pointers(await standing_api.client.get(f"/v1/tenants/{name}/pool")) == ["/path/tenant"]


@pytest.mark.parametrize("name", ["public", "postgres", "template1", "pg-catalog", "poolkeeper"])
async def test_a_reserved_id_is_refused(standing_api: Api, name: str) -> None:
    problem(await standing_api.client.put(f"/v1/tenants/{name}", json={}), 422, "invalid-tenant-id")


@pytest.mark.parametrize("path", ["/v1/tenants/a%2Fb", "/v1/tenants/../acme", "/v1/nothing", "/x"])
async def test_an_unknown_path_is_not_found(standing_api: Api, path: str) -> None:
    refused = problem(await standing_api.client.get(path), 404, "not-found")
    assert refused["detail"] == "There is nothing at this path."


async def test_a_long_path_comes_back_short_and_printable(standing_api: Api) -> None:
    details = problem(
        await standing_api.client.get("/v1/nothing/%E2%80%AE" + "x" * 8000), 404, "not-found"
    )
    assert len(details["instance"]) == 200
    assert details["instance"].isprintable()


async def test_an_unknown_method_lists_the_allowed_ones(standing_api: Api) -> None:
    refused = await standing_api.client.patch(ACME, content=b"{}")
    problem(refused, 405, "method-not-allowed")
    assert "PUT" in refused.headers["allow"]


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"{'a': 1}",
        b'{"weight": 1,}',
        b"nonsense",
        b"\xff\xfe",
        b'{"labels": {"a": "\xff"}}',
        b"[" * 75_000,
        b'{"labels":' * 37_500,
        b"[" * 1000 + b"]" * 1000,
        b'{"weight": ' + b"9" * 5000 + b"}",
        b'{"weight": NaN}',
        b'{"weight": -Infinity}',
        b"NaN",
        b'{"weight": 1, "weight": 1}',
        b'{"labels": {"a": "x", "\\u0061": "y"}}',
        b'{"labels": {"a": "\\ud800"}}',
        b'{"labels": {"a": "\\udc00\\ud800"}}',
        b'{"\\ud800": 1}',
        b'{"labels": {"a": "\xed\xa0\x80"}}',
        b'{"labels": {"a": "x\0"}}',
        b"\xef\xbb\xbf{}",
        "{}".encode("utf-16"),
        b"{} {}",
        b'{"weight": 01}',
        b'{"weight": +1}',
        b'{"a": 1 /* no */}',
    ],
)
async def test_a_body_that_is_not_json_is_a_bad_request(standing_api: Api, content: bytes) -> None:
    response = await put(standing_api, content)
    problem(response, 400, "malformed-json")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"weight": 1, "weight": 2}', "an object has the same key twice, at line 1, column 24"),
        (b'{"labels": {"a": "\xff"}}', "it is not UTF-8, at line 1, column 19"),
        (b'{"labels": {"a": "\\udc00"}}', "half of a surrogate pair stands alone"),
        (b'{"labels": {"a": "\\ud800"}}', "half of a surrogate pair"),
        (b'{"weight": NaN}', "JSON has no NaN"),
        (b'{"weight": -Infinity}', "JSON has no NaN"),
        (b"[" * 1000, "it is nested too deeply"),
        (b'{"weight": %b}' % (b"1" * 5000), "a number has too many digits"),
        (b'{"weight": 1', "it ends too early"),
        (b"{'weight': 1}", "a key must be a string in double quotes"),
    ],
)
async def test_a_body_that_is_not_json_is_refused_with_the_reason(
    standing_api: Api, content: bytes, reason: str
) -> None:
    refused = problem(await put(standing_api, content), 400, "malformed-json")
    assert refused["detail"].startswith("The body is not valid JSON: ")
    assert reason in refused["detail"]


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "",
        "application/json; charset=latin-1",
        "application/json; charset=utf-16",
        "application/json; charset*=xyz''%ff",
        "application/json, text/plain",
        "text/json",
        "json",
        'application/json; a="' + ";" * 15_000 + '"',
    ],
)
async def test_a_body_of_another_type_is_not_read(standing_api: Api, content_type: str) -> None:
    problem(await put(standing_api, b"{}", content_type), 415, "unsupported-media-type")


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json; charset=utf-8",
        'application/json;charset="UTF-8"',
        "APPLICATION/JSON",
        "application/x+json",
    ],
)
async def test_json_is_accepted_under_all_its_media_types(
    standing_api: Api, content_type: str
) -> None:
    response = await put(standing_api, b"{}", content_type, url=TAKEN)
    assert response.is_success


async def test_a_body_above_the_limit_is_refused_whether_announced_or_not(
    standing_api: Api,
) -> None:
    body = b'{"labels": {"a": "' + b"x" * MAX_BODY_BYTES + b'"}}'
    problem(await put(standing_api, body), 413, "content-too-large")

    async def in_pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 65_536):
            yield body[start : start + 65_536]

    response = await standing_api.client.put(ACME, content=in_pieces(), headers=AS_JSON)
    problem(response, 413, "content-too-large")


async def test_a_body_just_under_the_limit_is_read(standing_api: Api) -> None:
    response = await put(standing_api, b"{}" + b" " * (MAX_BODY_BYTES - 2), url=TAKEN)
    assert response.is_success


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ('{"weight": "10"}', "/body/weight"),
        ('{"weight": 1.5}', "/body/weight"),
        ('{"weight": 1e3}', "/body/weight"),
        ('{"weight": true}', "/body/weight"),
        ('{"weight": null}', "/body/weight"),
        ('{"weight": 0}', "/body/weight"),
        ('{"weight": 1001}', "/body/weight"),
        ('{"weight": 99999999999999999999999999}', "/body/weight"),
        ('{"max_leases": 0}', "/body/max_leases"),
        ('{"max_leases": 10001}', "/body/max_leases"),
        ('{"strategy": "SHARED"}', "/body/strategy"),
        ('{"strategy": 1}', "/body/strategy"),
        ('{"server": "Local"}', "/body/server"),
        ('{"server": "a\\u0000"}', "/body/server"),
        ('{"server": ""}', "/body/server"),
        ('{"labels": []}', "/body/labels"),
        ('{"labels": {"a": 1}}', "/body/labels/a"),
        ('{"labels": {"a": null}}', "/body/labels/a"),
        ('{"labels": {"a": "b\\u0000"}}', "/body/labels/a"),
        *(
            (f'{{"labels": {{"a": "b{sign}"}}}}', "/body/labels/a")
            for sign in ("\\u001b[2J", "\\u007f", "\x7f", "\x9b", "\u202e", "\u2066", "\u2028")
        ),
        ('{"labels": {"a\u2029": "x"}}', "/body/labels/a\ufffd/[key]"),
        ('{"labels": {"a:b": "x"}}', "/body/labels/a:b/[key]"),
        ('{"labels": {"": "x"}}', "/body/labels//[key]"),
        ('{"labels": {"a\\u0000": "x"}}', "/body/labels/a\ufffd/[key]"),
        ('{"id": "other"}', "/body/id"),
        ('{"\\u202e": 1}', "/body/\ufffd"),
        ("[]", "/body"),
        ("null", "/body"),
        ('"text"', "/body"),
    ],
)
async def test_a_body_that_does_not_fit_is_refused_with_its_place(
    standing_api: Api, content: str, place: str
) -> None:
    response = await put(standing_api, content.encode())
    assert pointers(response) == [place]
    problem(await standing_api.client.get(ACME), 404, "tenant-not-found")


async def test_a_missing_body_is_refused(standing_api: Api) -> None:
    assert pointers(await standing_api.client.put(ACME)) == ["/body"]


@pytest.mark.parametrize(
    "labels",
    [
        {f"key{number}": "x" for number in range(33)},
        {"k" * 64: "x"},
        {"k": "v" * 257},
    ],
)
async def test_labels_are_few_and_short(standing_api: Api, labels: dict[str, str]) -> None:
    [place] = pointers(await standing_api.client.put(ACME, json={"labels": labels}))
    assert place.startswith("/body/labels")


async def test_ten_thousand_errors_are_not_all_listed(standing_api: Api) -> None:
    response = await put(
        standing_api, json.dumps({f"x{number}": 1 for number in range(10_000)}).encode()
    )
    assert len(pointers(response)) == 50


@pytest.mark.parametrize("url", ["/v1/tenants", "/v1/pools", "/v1/servers"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("limit", "0"),
        ("limit", "-1"),
        ("limit", "1000000000"),
        ("limit", "9" * 5000),
        ("limit", "x"),
        ("limit", "1.5"),
        ("cursor", "x"),
        ("cursor", "%00"),
        ("cursor", "é"),
        ("cursor", "W10"),  # []
        ("cursor", "WzFd"),  # [1]
        ("cursor", "WyIAIl0"),  # a raw NUL
        ("cursor", "WyJcdTAwMDAiXQ"),  # ["\u0000"]
        ("cursor", "W05hTl0"),  # [NaN]
        ("cursor", "bnVsbA"),  # null
        ("cursor", "e30"),  # {}
        ("cursor", "x" * 201),
        ("cursor", "A"),
    ],
)
async def test_an_invalid_page_is_refused_with_its_place(
    standing_api: Api, url: str, name: str, value: str
) -> None:
    assert pointers(await standing_api.client.get(url, params={name: value})) == [f"/query/{name}"]


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("/v1/tenants?strategy=none", "/query/strategy"),
        ("/v1/tenants?state=gone", "/query/state"),
        ("/v1/tenants?label=nocolon", "/query/label/0"),
        ("/v1/tenants?" + "label=a:b&" * 9, "/query/label"),
        ("/v1/tenants?server=" + "x" * 49, "/query/server"),
        ("/v1/pools?sort=name", "/query/sort"),
        ("/v1/pools?strategy=", "/query/strategy"),
        (f"{ACME}/pool?scope=all", "/query/scope"),
    ],
)
async def test_an_invalid_filter_is_refused_with_its_place(
    standing_api: Api, url: str, place: str
) -> None:
    ask = standing_api.client.put if "scope" in url else standing_api.client.get
    assert pointers(await ask(url)) == [place]


async def test_a_problem_carries_the_callers_request_id(standing_api: Api) -> None:
    response = await standing_api.client.get(ACME, headers={"X-Request-ID": "mine-1"})
    assert response.headers["content-type"] == PROBLEM
    assert response.json()["request_id"] == response.headers["x-request-id"] == "mine-1"


async def test_a_body_in_another_coding_or_of_two_types_is_not_read(standing_api: Api) -> None:
    packed = {**AS_JSON, "Content-Encoding": "gzip"}
    response = await standing_api.client.put(ACME, content=gzip.compress(b"{}"), headers=packed)
    problem(response, 415, "unsupported-media-type")
    hidden = [*AS_JSON.items(), ("Content-Encoding", "identity"), ("Content-Encoding", "gzip")]
    response = await standing_api.client.put(ACME, content=b"{}", headers=hidden)
    problem(response, 415, "unsupported-media-type")
    twice = [("Content-Type", "application/json"), ("Content-Type", "text/plain")]
    response = await standing_api.client.put(ACME, content=b"{}", headers=twice)
    problem(response, 415, "unsupported-media-type")


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"{", 400, "malformed-json"),
        (b'{"paused": true}', 422, "validation-failed"),
        (b"[]", 422, "validation-failed"),
        (b"{}", 404, "tenant-not-found"),
        (b"null", 404, "tenant-not-found"),
    ],
)
async def test_an_unexpected_body_is_not_ignored(
    standing_api: Api, content: bytes, status: int, code: str
) -> None:
    for method, path in (("POST", "/pool/pause"), ("DELETE", "/pool")):
        response = await standing_api.client.request(
            method, "/v1/tenants/nobody" + path, content=content, headers=AS_JSON
        )
        problem(response, status, code)


@pytest.mark.parametrize(
    ("method", "url", "places"),
    [
        ("GET", "/v1/tenants?limit=1&limit=2", ["/query/limit"]),
        ("GET", "/v1/tenants?label=a:b&label=c:d", []),
        ("GET", "/v1/tenants?limit=1&%6cimit=2", ["/query/limit"]),
        ("GET", "/v1/tenants?Limit=1", ["/query/Limit"]),
        ("DELETE", f"{ACME}?dryrun=true", ["/query/dryrun"]),
        ("DELETE", f"{ACME}?dry_run=true&dry_run=false", ["/query/dry_run"]),
        ("GET", f"{ACME}?api_key=secret", ["/query/api_key"]),
        ("GET", f"{ACME}?\u202e=1", ["/query/\ufffd"]),
        ("GET", f"{ACME}?%00=1", ["/query/\ufffd"]),
    ],
)
async def test_an_unknown_or_repeated_parameter_is_refused(
    standing_api: Api, method: str, url: str, places: list[str]
) -> None:
    response = await standing_api.client.request(method, url)
    if places:
        assert pointers(response) == places
        assert "secret" not in response.text
    else:
        ok(response)


async def test_an_overlong_query_is_refused(standing_api: Api) -> None:
    response = await standing_api.client.get("/v1/tenants?server=" + "x" * MAX_QUERY_BYTES)
    problem(response, 414, "uri-too-long")


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "PATCH", "FOO", "POST"])
async def test_an_unknown_method_lists_all_allowed_ones(standing_api: Api, method: str) -> None:
    asking = {"Origin": "http://localhost", "Access-Control-Request-Method": "PUT"}
    response = await standing_api.client.request(method, ACME, headers=asking)
    refused = problem(response, 405, "method-not-allowed")
    assert refused["detail"] == "This path takes DELETE, GET, PUT, HEAD."
    assert response.headers["allow"] == "DELETE, GET, PUT, HEAD"
    assert not [name for name in response.headers if name.startswith("access-control")]


async def test_head_answers_as_get_does_without_a_body(standing_api: Api) -> None:
    for url in ("/v1/tenants", "/livez", "/docs", "/openapi.json", "/v1/nothing"):
        plain = {"Accept-Encoding": "identity"}
        got = await standing_api.client.get(url, headers=plain)
        asked = await standing_api.client.head(url, headers=plain)
        assert (asked.status_code, asked.content) == (got.status_code, b"")
        if got.is_success:
            assert asked.headers["content-length"] == str(len(got.content))


async def test_a_probe_ignores_its_body(standing_api: Api) -> None:
    """Its OpenAPI document knows no refusal, and orchestrators send what they like."""
    for url, method in itertools.product(("/livez", "/readyz"), ("GET", "HEAD")):
        plain = await standing_api.client.request(method, url)
        for sent in ({"content": b"hello"}, {"data": {"a": "b"}}, {"content": b"{"}):
            got = await standing_api.client.request(method, url, **sent)
            assert got.status_code == plain.status_code == 200


@pytest.mark.parametrize(
    "value", ["a b", "x" * 129, "a\tb", "é", "a,b", "<script>", "%0d%0aSet-Cookie:a=b"]
)
async def test_a_request_id_that_could_be_more_is_not_echoed(standing_api: Api, value: str) -> None:
    sent = [(b"X-Request-ID", value.encode("latin-1"))]
    response = await standing_api.client.get("/livez", headers=sent)
    assert re.fullmatch("[0-9a-f]{32}", response.headers["x-request-id"])


async def test_every_route_of_the_api_is_strict(standing_api: Api) -> None:
    loose = [
        route.path
        for route in standing_api.app.routes
        if isinstance(route, APIRoute)
        and route.path.startswith("/v1")
        and not isinstance(route, StrictRoute)
    ]
    assert loose == []


WORDS_OF_PYTHON = re.compile(
    r"input|unable to parse|valid (string|integer|number|boolean|list|dict)|type=|extra inputs",
    re.IGNORECASE,
)
WRONG = [[], {}, "x" * 5000, "", -1, 1.5, True, None]


async def test_every_field_and_parameter_is_refused_in_plain_words(standing_api: Api) -> None:
    """An unknown field makes each request invalid, so that none is carried out."""
    spec = committed()
    said = set()
    for path, methods in spec["paths"].items():
        url = path.replace("{tenant}", "acme").replace("{recommendation}", "x")
        for method, operation in methods.items():
            responses = []
            if method == "get" and "stream" not in path:
                parameters = operation.get("parameters", ())
                names = [each["name"] for each in parameters if each["in"] == "query"]
                for value in ("", "\u2028", "x" * 5000, "-1"):
                    given = dict.fromkeys(names, value)
                    responses.append(await standing_api.client.get(url, params=given))
            body = operation.get("requestBody")
            if body is not None:
                fields = _fields(spec, body["content"]["application/json"]["schema"])
                responses += [
                    await standing_api.client.request(
                        method, url, json={**dict.fromkeys(fields, value), "no-such-field": 1}
                    )
                    for value in WRONG
                ]
            said |= {
                each["detail"]
                for response in responses
                if response.status_code == 422
                for each in response.json().get("errors", ())
            }
    assert len(said) >= 15  # kinds, with their limits
    assert [each for each in said if WORDS_OF_PYTHON.search(each)] == []
    assert [each for each in said if not each.endswith((".", "$"))] == []


def _fields(spec: dict[str, Any], schema: dict[str, Any]) -> list[str]:
    """The names of the fields of a body, all its alternatives together."""
    if "$ref" in schema:
        schema = spec["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    parts = [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
    return [
        *schema.get("properties", ()),
        *(name for each in parts for name in _fields(spec, each)),
    ]
