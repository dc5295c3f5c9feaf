"""The documentation page: complete, and served only from this machine."""

import json
import re
import zlib
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest
from pydantic_core import to_json

from tests.fixtures.app import problem
from tests.fixtures.openapi import committed


class Links(HTMLParser):
    """The files that a page makes a browser load."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("href", "src", "action")]


async def links(unstarted: httpx.AsyncClient) -> list[str]:
    parser = Links()
    parser.feed((await unstarted.get("/docs")).text)
    return parser.found


async def test_everything_the_page_loads_is_served_from_here(unstarted: httpx.AsyncClient) -> None:
    found = await links(unstarted)
    assert len(found) == 4
    for link in found:
        assert "//" not in link
        assert (await unstarted.get(f"/{link}")).status_code == 200, link


async def test_files_have_their_types(unstarted: httpx.AsyncClient) -> None:
    types = {
        link: (await unstarted.get(f"/{link}")).headers["content-type"].partition(";")[0]
        for link in await links(unstarted)
    }
    assert types == {
        "docs/swagger-ui.css": "text/css",
        "docs/favicon-32x32.png": "image/png",
        "docs/swagger-ui-bundle.js": "text/javascript",
        "docs/docs.js": "text/javascript",
    }


async def test_its_script_shows_our_document_and_requests_no_other_host(
    unstarted: httpx.AsyncClient,
) -> None:
    script = (await unstarted.get("/docs/docs.js")).text
    assert "http" not in script
    options = dict(re.findall(r"^  (\w+): (.+),$", script, re.MULTILINE))
    assert options == {
        "url": '"openapi.json"',
        "dom_id": '"#swagger-ui"',
        "deepLinking": "true",
        "displayRequestDuration": "true",
        "filter": "true",
        "persistAuthorization": "true",
        "showCommonExtensions": "true",
        "tryItOutEnabled": "true",
        "validatorUrl": "null",
    }


async def test_the_pages_policy_lets_no_other_origin_in(unstarted: httpx.AsyncClient) -> None:
    """Neither foreign scripts, nor inline ones, nor requests to other hosts."""
    policy = (await unstarted.get("/docs")).headers["content-security-policy"]
    rules = {name: set(sources) for name, *sources in map(str.split, policy.split(";"))}
    assert rules["default-src"] == {"'none'"}
    assert rules["script-src"] == rules["connect-src"] == {"'self'"}
    assert set().union(*rules.values()) <= {"'none'", "'self'", "'unsafe-inline'", "data:"}


@pytest.mark.parametrize("asset", ["README.md", "docs.html", "..%2Fdocs.py", "%2Fetc%2Fpasswd"])
async def test_no_other_file_is_served(unstarted: httpx.AsyncClient, asset: str) -> None:
    assert (await unstarted.get(f"/docs/{asset}")).status_code in (404, 422)


async def test_the_document_served_is_the_document(unstarted: httpx.AsyncClient) -> None:
    served = (await unstarted.get("/openapi.json")).json()
    assert served == committed()


async def test_strangers_have_the_document_rendered_and_compressed_once(
    unstarted: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each rendering takes ten milliseconds in which nobody else is served."""
    plain = await unstarted.get("/openapi.json", headers={"Accept-Encoding": "identity"})
    packed = await unstarted.get("/openapi.json", headers={"Accept-Encoding": "gzip"})
    assert packed.content == plain.content
    work: list[str] = []

    def count(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> object:
            work.append(name)
            return function(*arguments, **options)

        return counted

    monkeypatch.setattr(json.JSONEncoder, "encode", count("render", json.JSONEncoder.encode))
    monkeypatch.setattr("app.api.openapi.to_json", count("render", to_json))
    monkeypatch.setattr(zlib, "compress", count("compress", zlib.compress))
    for first in (plain, packed):
        coding, tag = first.request.headers["accept-encoding"], first.headers["etag"]
        again = await unstarted.get("/openapi.json", headers={"Accept-Encoding": coding})
        assert again.content == first.content
        known = await unstarted.get("/openapi.json", headers={"If-None-Match": tag})
        assert (known.status_code, known.headers["etag"], known.content) == (304, tag, b"")
    assert work == []


async def test_there_is_no_redoc(unstarted: httpx.AsyncClient) -> None:
    problem(await unstarted.get("/redoc"), 404, "not-found")
