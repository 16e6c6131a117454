"""The runbooks of this version at /runbooks/: the target of an alert's link.

Rule: they contain no secret and are served as plain text, so that they can be read on a phone at night,
even if Prometheus and the other services are down.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from aiohttp import web

from cluster.console.page import SAFE_HEADERS

_NAME: Final = re.compile(r"([A-Za-z]{1,100})(?:\.md)?")
_INDEX: Final = "README"


def add_to(app: web.Application) -> None:
    """Add the routes."""
    app.router.add_get("/runbooks", _answer)
    app.router.add_get("/runbooks/", _answer)
    app.router.add_get("/runbooks/{name}", _answer)


async def _answer(request: web.Request) -> web.Response:
    text = page(request.match_info.get("name") or _INDEX)
    if text is None:
        error = "no runbook has this name; /runbooks/ lists them\n"
        return web.Response(text=error, status=404, headers=SAFE_HEADERS)
    return web.Response(text=text, headers=SAFE_HEADERS)


def page(name: str) -> str | None:
    """A runbook's text; None if no runbook has that name."""
    found = _NAME.fullmatch(name)
    folder = _folder()
    if found is None or folder is None:
        return None
    path = folder / f"{found[1]}.md"
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _folder() -> Path | None:
    """The folder in a checkout or in an installed package."""
    package = Path(__file__).resolve().parents[1]
    folders = (package / "docs" / "runbooks", package.parent / "docs" / "runbooks")
    return next((folder for folder in folders if folder.is_dir()), None)
