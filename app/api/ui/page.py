"""The page at `/`: who waits, why, and what to do; from this package's files alone.

It stands on the public API like anybody else: nothing here looks at a pool.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse

_FILES = Path(__file__).parent / "static" / "page"
# uPlot sets styles through the DOM, which needs no leave; markup with styles of its own has none.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

router = APIRouter(include_in_schema=False)


class PageAsset(StrEnum):
    """The files that the page loads."""

    API = "api.js"
    CHART = "chart.js"
    CHARTS = "uPlot.iife.min.js"
    CHARTS_STYLE = "uPlot.min.css"
    DRAWER = "drawer.js"
    ELEMENT = "element.js"
    PAGE = "page.js"
    POOLS = "pools.js"
    RECOMMENDATIONS = "recommendations.js"
    SERVERS = "servers.js"
    STYLE = "page.css"


@router.get("/")
async def page() -> FileResponse:
    """Show the page."""
    return FileResponse(
        _FILES / "index.html",
        headers={"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache"},
    )


@router.get("/page/{asset}")
async def page_asset(asset: PageAsset) -> FileResponse:
    """Serve a file of the page; asked about each time, so that an upgrade shows at once."""
    return FileResponse(_FILES / asset, headers={"Cache-Control": "no-cache"})
