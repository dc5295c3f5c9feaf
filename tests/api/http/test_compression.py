"""Large responses are compressed for those who accept it; each representation has its own ETag."""

import asyncio
import gzip
import json
from collections.abc import Callable
from typing import Any

import pytest
from httpx import Response
from starlette.types import Message

from app.api.http import compression
from app.api.http.compression import MIN_BYTES, GzipSender, accepts_gzip
from tests.fixtures.app import Api, ok

LARGE = "/openapi.json"
GZIP = {"Accept-Encoding": "gzip"}
PLAIN = {"Accept-Encoding": "identity"}


async def sent(api: Api, url: str, **headers: str) -> tuple[Response, bytes]:
    """A response, and its body as it was sent."""
    async with api.client.stream("GET", url, headers={**GZIP, **headers}) as response:
        body = b"".join([part async for part in response.aiter_raw()])
    return response, body


async def fill(api: Api) -> None:
    """Make enough tenants for a large list."""
    for number in range(20):
        await api.client.put(f"/v1/tenants/t{number}", json={"labels": {"plan": "gold"}})


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        ("gzip", True),
        ("br, GZIP;q=0.5", True),
        ("*", True),
        ("identity", False),
        ("gzip;q=0", False),
        ("gzip; q=0.000, *", False),
        ("", False),
        ("x-gzip;;=,q=", False),
    ],
)
def test_gzip_is_accepted_by_name_or_by_asterisk(header: str, accepted: bool) -> None:  # noqa: FBT001
    assert accepts_gzip({b"accept-encoding": [header]}) is accepted
    assert not accepts_gzip({})


@pytest.mark.parametrize("url", ["/v1/tenants", "/v1/stats", "/v1/recommendations"])
async def test_a_compressed_response_says_the_same_and_has_its_own_etag(api: Api, url: str) -> None:
    await fill(api)
    plain = await api.client.get(url, headers=PLAIN)
    assert "content-encoding" not in plain.headers
    for _ in range(2):  # the second one of /v1/stats is from the cache
        response, body = await sent(api, url)
        if len(plain.content) < MIN_BYTES:
            assert "content-encoding" not in response.headers
            continue
        assert response.headers["content-encoding"] == "gzip"
        assert int(response.headers["content-length"]) == len(body) < len(plain.content) / 2
        assert json.loads(gzip.decompress(body)).keys() == plain.json().keys()
        assert response.headers["etag"].endswith('-gzip"')
    for each in (plain, response):
        assert each.headers["vary"] == "Accept-Encoding"


async def test_either_etag_of_a_version_answers_304(api: Api) -> None:
    await fill(api)
    url = "/v1/tenants"
    compressed, _ = await sent(api, url)
    plain = await api.client.get(url, headers=PLAIN)
    tag = plain.headers["etag"]
    assert compressed.headers["etag"] == tag[:-1] + '-gzip"'
    for known in (tag, compressed.headers["etag"], f"W/{tag}", f'"x", {tag}'):
        for accepted in (GZIP, PLAIN):
            response = await api.client.get(url, headers={"If-None-Match": known, **accepted})
            assert response.status_code == 304
            assert response.headers["etag"] in {known, tag}
    other = await api.client.get(url, headers={"If-None-Match": '"x-gzip"'})
    assert other.status_code == 200


async def test_a_cached_response_is_compressed_once_and_answers_304(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(api)
    compressed: list[int] = []

    async def compress(body: bytes) -> bytes:
        compressed.append(len(body))
        return gzip.compress(body)

    monkeypatch.setattr("app.api.http.response_cache.compress", compress)
    snapshots = api.service.snapshots
    snapshot = await snapshots.current()
    # Meanwhile no other snapshot is taken, however slow the machine is.
    monkeypatch.setattr(type(snapshots), "fresh", property(lambda _: snapshot))
    monkeypatch.setattr("app.api.http.response_cache.age_of", lambda _: 0)
    ok(await api.client.get("/v1/stats"))
    responses = await asyncio.gather(*(api.client.get("/v1/stats") for _ in range(10)))
    assert len(compressed) == 1
    [tag] = {each.headers["etag"] for each in responses}
    assert tag.endswith('-gzip"')
    known = await api.client.get("/v1/stats", headers={"If-None-Match": tag})
    assert (known.status_code, known.headers["etag"], known.content) == (304, tag, b"")


async def test_a_change_may_name_the_etag_of_the_compressed_response(api: Api) -> None:
    url = "/v1/tenants/acme"
    labels = {f"label-{number}": "x" * 200 for number in range(30)}
    ok(await api.client.put(url, json={"labels": labels}), 201)
    tag = (await api.client.get(url)).headers["etag"]
    assert tag.endswith('-gzip"')
    for weight, status in ((2, 200), (3, 412)):
        body = {"labels": labels, "weight": weight}
        changed = await api.client.put(url, json=body, headers={"If-Match": tag})
        assert changed.status_code == status


async def test_neither_data_of_tenants_nor_streams_nor_small_responses_are_compressed(
    api: Api,
) -> None:
    url = await api.tenant("acme")
    rows: dict[str, Any] = {"sql": "select repeat('x', 10000)"}
    queried = await api.client.post(f"{url}/query", json=rows, headers=GZIP)
    for response in (queried, await api.client.get(url, headers=GZIP)):
        assert response.status_code == 200
        assert "content-encoding" not in response.headers


async def test_a_large_response_is_compressed_beside_the_event_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A thread does it: meanwhile others run."""
    threads: list[str] = []

    async def to_thread(function: Callable[..., bytes], *arguments: object) -> bytes:
        threads.append(function.__name__)
        return function(*arguments)

    monkeypatch.setattr(asyncio, "to_thread", to_thread)
    for size, expected in ((32 * 1024, []), (33 * 1024, ["compress"])):
        assert gzip.decompress(await compression.compress(b"x" * size)) == b"x" * size
        assert threads == expected


async def test_a_response_to_head_has_the_headers_of_the_compressed_one(api: Api) -> None:
    head = await api.client.head(LARGE, headers=GZIP)
    assert head.headers["content-encoding"] == "gzip"
    assert head.content == b""
    assert (await api.client.get(LARGE, headers=GZIP)).json()["openapi"]


@pytest.mark.parametrize("kind", [b"text/event-stream", b"application/json"])
async def test_the_pieces_of_a_stream_are_sent_as_they_come(kind: bytes) -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    sender = GzipSender()
    start: Message = {
        "type": "http.response.start",
        "status": 200,
        "headers": [(b"content-type", kind)],
    }
    pieces: list[Message] = [
        {"type": "http.response.body", "body": b"x" * MIN_BYTES, "more_body": more}
        for more in (True, True, False)
    ]
    for message in (start, *pieces):
        await sender.send(message, send)
    assert sent == [start, *pieces]
