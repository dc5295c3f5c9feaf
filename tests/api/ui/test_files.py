"""The page's files: served only from here, under a strict policy."""

import re
from posixpath import dirname, join, normpath

import httpx
import pytest

_LOADED = re.compile(r"""(?:from|src=|href=)\s*"([^"#$]+\.(?:js|css|svg))\"""")


async def test_the_policy_allows_neither_inline_code_nor_other_origins(
    unstarted: httpx.AsyncClient,
) -> None:
    assert (await unstarted.get("/")).headers["content-security-policy"] == (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


async def test_every_module_that_is_imported_is_served(unstarted: httpx.AsyncClient) -> None:
    found = dict.fromkeys(_LOADED.findall((await unstarted.get("/")).text), "")
    waiting = list(found)
    while waiting:
        name = waiting.pop()
        response = await unstarted.get(f"/{name}")
        assert response.status_code == 200, name
        found[name] = response.headers["content-type"].partition(";")[0]
        if name.endswith(".js"):
            # An address in the markup is relative to the page, an import to its module.
            imported = {
                each if each.startswith("page/") else normpath(join(dirname(name), each))
                for each in _LOADED.findall(response.text)
            }
            waiting += imported - found.keys()
            found |= dict.fromkeys(imported - found.keys(), "")
    assert "page/views/tenants.js" in found
    assert "page/vendor/preact.js" in found
    types = {name.rpartition(".")[2]: kind for name, kind in found.items()}
    assert types == {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}


@pytest.mark.parametrize("name", ["index.html", "vendor/README.md", "..%2Fdocs%2Fdocs.js", "core"])
async def test_no_other_file_is_served(unstarted: httpx.AsyncClient, name: str) -> None:
    assert (await unstarted.get(f"/page/{name}")).status_code == 404


async def test_no_script_evaluates_text_as_code(unstarted: httpx.AsyncClient) -> None:
    for name in ("app.js", "vendor/preact.js", "vendor/preact-hooks.js", "vendor/htm.js"):
        script = (await unstarted.get(f"/page/{name}")).text
        assert not re.search(r"\beval\(|\bFunction\(", script), name


@pytest.mark.parametrize("path", ["/", "/docs", "/page/app.js", "/docs/swagger-ui.css"])
async def test_a_file_that_the_browser_has_is_not_sent_again(
    unstarted: httpx.AsyncClient, path: str
) -> None:
    first = await unstarted.get(path)
    known = await unstarted.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert (known.status_code, known.content) == (304, b"")
    # The browser takes the headers of the 304 for those of the file that it has.
    for name in ("etag", "cache-control", "content-security-policy"):
        assert known.headers[name] == first.headers[name]


@pytest.mark.parametrize("part", ["bytes=0-9", "bytes=9999999-", "bytes=5-1", "x", "bytes=a-b"])
async def test_a_file_is_sent_as_a_whole(unstarted: httpx.AsyncClient, part: str) -> None:
    response = await unstarted.get("/page/app.js", headers={"Range": part})
    assert (response.status_code, response.headers["accept-ranges"]) == (200, "none")
    assert response.content == (await unstarted.get("/page/app.js")).content
