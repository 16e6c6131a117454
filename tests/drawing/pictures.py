"""Draws dashboards with Grafana's components in Chromium."""

from __future__ import annotations

import subprocess
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.console.browser import chromium, visit
from tests.drawing.answers import Document
from tests.drawing.digests import digest
from tests.drawing.frames import with_gaps

if TYPE_CHECKING:
    from playwright.async_api import Route

HERE: Final = Path(__file__).resolve().parent
#: Icons, which the components load by their addresses.
PUBLIC: Final = HERE / "node_modules" / "@grafana" / "ui" / "dist"
# The page has 13 MB of scripts.
_LOAD_WITHIN_MS: Final = 180_000
_FONT_FILES: Final = HERE / "node_modules" / "@fontsource" / "inter" / "files"
#: Fonts of Grafana's server, which are not in its package.
_FONTS: Final = {
    f"public/fonts/inter/Inter-{name}.woff2": _FONT_FILES / f"inter-latin-{weight}-normal.woff2"
    for name, weight in (("Regular", 400), ("Medium", 500))
}
_ADDRESS: Final = "http://drawing.invalid/"
_HTML: Final = (
    "<!doctype html><meta charset=utf-8><link rel=icon href=data:,><link rel=stylesheet href=page.css>"
    "<body><div id=root></div><script src=page.js></script>"
)
_KINDS: Final = {
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}


def bundle(folder: Path) -> None:
    """Make page.js and page.css of page.jsx.

    Raises:
        SystemExit: the packages are not installed.
    """
    if not (HERE / "node_modules" / ".bin" / "esbuild").exists():
        raise SystemExit("the packages of tests/drawing are not installed: make dashboards-drawn")
    command = ["npm", "run", "--silent", "build", "--", f"--outdir={folder}"]
    subprocess.run(command, cwd=HERE, check=True)


async def draw(documents: dict[str, Document], folder: Path, pictures: Path) -> None:
    """Draw each document as a PNG of its name, and write the digest of its dashboard beside it if all are right.

    Args:
        folder: where page.js and page.css are.

    Raises:
        SystemExit: the browser has reported errors, or a panel says that it has no data.
    """
    (folder / "index.html").write_text(_HTML, encoding="utf-8")
    wrong: list[str] = []

    async def serve(route: Route) -> None:
        name = urllib.parse.urlsplit(route.request.url).path.lstrip("/") or "index.html"
        path = _FONTS.get(name) or (PUBLIC if name.startswith("public/") else folder) / name
        kind = _KINDS.get(path.suffix, "text/html")
        if path.is_file():
            await route.fulfill(body=path.read_bytes(), content_type=kind)
        else:
            wrong.append(f"{name} is not there")
            await route.fulfill(status=404)

    async with chromium() as browser:
        size = {"width": 1500, "height": 900}
        async with visit(browser, "about:blank", viewport=size) as seen:
            await seen.page.route(f"{_ADDRESS}**", serve)
            await seen.page.goto(_ADDRESS, timeout=_LOAD_WITHIN_MS)
            for name, document in documents.items():
                panels = {
                    panel: [with_gaps(frame) for frame in frames]
                    for panel, frames in document["panels"].items()
                }
                drawn_from = {**document, "panels": panels}
                await seen.page.evaluate("document => window.draw(document)", drawn_from)
                await seen.page.wait_for_load_state("networkidle")
                empty = await seen.page.locator(".no-data").count()
                wrong += [f"{name}: {empty} panels without data"] if empty else []
                drawn = seen.page.locator("#dashboard")
                await drawn.screenshot(path=str(pictures / f"{name}.png"))
            wrong += [one for one in seen.problems if one.startswith("error")]
    if wrong:
        raise SystemExit("\n".join(wrong))
    for name, document in documents.items():
        (pictures / f"{name}.sha256").write_text(digest(document["dashboard"]), encoding="utf-8")
