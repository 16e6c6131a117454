"""The runbooks of this version at /runbooks/: the target of an alert's link.

Rules
- They contain no secret and are served as plain text, so that they can be read on a phone at night,
  even if Prometheus and the other services are down.
- They are read once, so that they can be read too when the supervisor has no free descriptor.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from aiohttp import web

from cluster.console.page import SAFE_HEADERS

_NAME: Final = re.compile(r"([A-Za-z]{1,100})(?:\.md)?")
_INDEX: Final = "README"


def add_to(app: web.Application) -> None:
    """Read the runbooks, and add the routes."""
    texts = _read()

    async def answer(request: web.Request) -> web.Response:
        found = _NAME.fullmatch(request.match_info.get("name") or _INDEX)
        text = texts.get(found[1]) if found else None
        if text is None:
            error = "no runbook has this name; /runbooks/ lists them\n"
            return web.Response(text=error, status=404, headers=SAFE_HEADERS)
        return web.Response(text=text, headers=SAFE_HEADERS)

    app.router.add_get("/runbooks", answer)
    app.router.add_get("/runbooks/", answer)
    app.router.add_get("/runbooks/{name}", answer)


def _read() -> Mapping[str, str]:
    """The texts by name; a runbook that cannot be read is left out."""
    texts: dict[str, str] = {}
    for path in _folder().glob("*.md"):
        with suppress(OSError):
            texts[path.stem] = path.read_text(encoding="utf-8", errors="replace")
    return texts


def _folder() -> Path:
    """The folder in an installed package or, without that, in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "docs" / "runbooks"
    return installed if installed.is_dir() else package.parent / "docs" / "runbooks"
