"""The page at `/` and Swagger UI at `/docs`, from this package's files only.

Both use the public API like any other client. They need no request to other hosts, and their
content security policies forbid any.
"""

import asyncio
from pathlib import Path

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from app.api.http.etags import etag_known_to

_STATIC = Path(__file__).parent / "static"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'{inline_styles}; "
    "img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_ASSETS = {
    folder: {
        path.relative_to(_STATIC / folder).as_posix(): path
        for path in (_STATIC / folder).rglob("*")
        if path.suffix in {".css", ".js", ".png", ".svg"}
    }
    for folder in ("docs", "page")
}

router = APIRouter(include_in_schema=False)


class WholeFile(FileResponse):
    """A file, or 304 for a browser that has it; the header Range is ignored, as HTTP allows."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.stat_result = await asyncio.to_thread(Path(self.path).stat)
        self.set_stat_headers(self.stat_result)
        self.headers["accept-ranges"] = "none"
        known = etag_known_to(Request(scope), self.headers["etag"])
        if known is not None:
            del self.headers["content-length"]
            await Response(status_code=304, headers=dict(self.headers))(scope, receive, send)
            return
        headers = [header for header in scope["headers"] if header[0] != b"range"]
        await super().__call__({**scope, "headers": headers}, receive, send)


@router.get("/")
async def page() -> WholeFile:
    # Preact and uPlot set styles through the DOM, which the policy permits.
    policy = _POLICY.format(inline_styles="")
    headers = {"Content-Security-Policy": policy, "Cache-Control": "no-cache"}
    return WholeFile(_STATIC / "page" / "index.html", headers=headers)


@router.get("/page/{asset:path}")
async def page_asset(asset: str) -> WholeFile:
    # Revalidated each time, so that an upgrade is visible at once.
    return _asset("page", asset, "no-cache")


@router.get("/docs")
async def docs() -> WholeFile:
    # Swagger UI puts style attributes into the page.
    policy = _POLICY.format(inline_styles=" 'unsafe-inline'")
    return WholeFile(_STATIC / "docs" / "docs.html", headers={"Content-Security-Policy": policy})


@router.get("/docs/{asset}")
async def docs_asset(asset: str) -> WholeFile:
    return _asset("docs", asset, "public, max-age=3600")


def _asset(folder: str, name: str, cache_control: str) -> WholeFile:
    path = _ASSETS[folder].get(name)
    if path is None:
        raise HTTPException(404)
    return WholeFile(path, headers={"Cache-Control": cache_control})
