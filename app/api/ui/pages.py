"""The page at `/` and Swagger UI at `/docs`, from this package's files only.

Both use the public API like any other client. They need no request to other hosts, and their
content security policies forbid any.
"""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse
from starlette.exceptions import HTTPException

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


@router.get("/")
async def page() -> FileResponse:
    # Preact and uPlot set styles through the DOM, which the policy permits.
    policy = _POLICY.format(inline_styles="")
    headers = {"Content-Security-Policy": policy, "Cache-Control": "no-cache"}
    return FileResponse(_STATIC / "page" / "index.html", headers=headers)


@router.get("/page/{asset:path}")
async def page_asset(asset: str) -> FileResponse:
    # Revalidated each time, so that an upgrade is visible at once.
    return _asset("page", asset, "no-cache")


@router.get("/docs")
async def docs() -> FileResponse:
    # Swagger UI puts style attributes into the page.
    policy = _POLICY.format(inline_styles=" 'unsafe-inline'")
    return FileResponse(_STATIC / "docs" / "docs.html", headers={"Content-Security-Policy": policy})


@router.get("/docs/{asset}")
async def docs_asset(asset: str) -> FileResponse:
    return _asset("docs", asset, "public, max-age=3600")


def _asset(folder: str, name: str, cache_control: str) -> FileResponse:
    path = _ASSETS[folder].get(name)
    if path is None:
        raise HTTPException(404)
    return FileResponse(path, headers={"Cache-Control": cache_control})
