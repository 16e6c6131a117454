"""Asks Prometheus what every panel of a dashboard asks, and draws it in Chromium.

Rule: a panel without data ends the program: a picture of an empty panel proves nothing.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from scripts.dashboards.__main__ import FOLDER
from scripts.dashboards.panels import Page, panel_id
from tests.console.browser import chromium, visit
from tests.drawing.frames import (
    Frame,
    bucket_frames,
    interpolated,
    rate_interval,
    series_frames,
    step_seconds,
    table_frame,
)
from tests.drawing.loaded_cluster import SCRAPE_SECONDS, Loaded
from tests.harness.cluster import http_get

if TYPE_CHECKING:
    from playwright.async_api import Route

HERE: Final = Path(__file__).resolve().parent
PUBLIC: Final = HERE / "node_modules" / "@grafana" / "ui" / "dist" / "public"
POINTS: Final = 250
_ADDRESS: Final = "http://drawing.invalid/"
_HTML: Final = (
    "<!doctype html><meta charset=utf-8><link rel=stylesheet href=page.css>"
    "<body><div id=root></div><script src=page.js></script>"
)
_KINDS: Final = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}

Document = dict[str, Any]


class Answers:
    """What one dashboard shows: its queries, sent to the Prometheus that has the answer."""

    def __init__(self, loaded: Loaded, until: float) -> None:
        self._loaded = loaded
        self._from = loaded.began
        self._to = until
        self._step = step_seconds(until - loaded.began, POINTS, SCRAPE_SECONDS)

    def document(self, page: Page) -> Document:
        """The dashboard with the frames of its panels.

        Raises:
            SystemExit: a query returns nothing.
        """
        dashboard = json.loads((FOLDER / f"{page.uid}.json").read_text(encoding="utf-8"))
        values = {
            "source": "Prometheus",
            "job": "websocket-app",
            "instance": ".*",
            **{one.name: one.value for one in page.variables},
        }
        of_exporters = {panel_id(one.name) for one in page.panels if one.job}
        panels = {}
        for panel in dashboard["panels"]:
            port = self._loaded.exporters if panel["id"] in of_exporters else self._loaded.prometheus
            panels[panel["id"]] = self._frames(panel, port, values)
        return {
            "dashboard": dashboard,
            "values": values,
            "range": {"from": round(self._from * 1000), "to": round(self._to * 1000)},
            "panels": panels,
        }

    def _frames(self, panel: dict[str, Any], port: int, values: dict[str, str]) -> list[Frame]:
        found: list[Frame] = []
        targets = panel.get("targets", [])
        for target in targets:
            rate = rate_interval(self._step, SCRAPE_SECONDS)
            expr = interpolated(target["expr"], {**values, "__rate_interval": rate})
            result = self._asked(port, expr, is_instant=bool(target.get("instant")))
            if not result:
                raise SystemExit(f"no data: {panel['title']}: {expr}")
            ref, legend = target["refId"], target.get("legendFormat", "")
            if target.get("format") == "table":
                found.append(table_frame(result, ref, is_only=len(targets) == 1))
            elif target.get("format") == "heatmap":
                found += bucket_frames(result, ref)
            else:
                found += series_frames(result, ref, legend, expr, self._step)
        return found

    def _asked(self, port: int, expr: str, *, is_instant: bool) -> list[dict[str, Any]]:
        words = {"query": expr}
        if is_instant:
            path, words["time"] = "/api/v1/query", f"{self._to:.3f}"
        else:
            path = "/api/v1/query_range"
            # As Grafana does: points at multiples of the step, so that they stay when time goes on.
            words |= {
                "start": f"{self._from // self._step * self._step:.3f}",
                "end": f"{self._to // self._step * self._step:.3f}",
                "step": f"{self._step:g}",
            }
        body = json.loads(http_get(port, f"{path}?{urllib.parse.urlencode(words)}").body)
        if body["status"] != "success":
            raise SystemExit(f"{expr}: {body.get('error')}")
        result: list[dict[str, Any]] = body["data"]["result"]
        return result


def bundle(folder: Path) -> None:
    """Make page.js and page.css of page.jsx.

    Raises:
        SystemExit: the packages are not installed.
    """
    program = HERE / "node_modules" / ".bin" / "esbuild"
    if not program.exists():
        raise SystemExit(f"run `npm ci` in {HERE.relative_to(Path.cwd())} first")
    subprocess.run(
        [
            *(program, "page.jsx", "--bundle", f"--outdir={folder}", "--jsx=automatic"),
            *("--loader:.woff2=dataurl", "--loader:.woff=dataurl", "--log-level=error"),
            *("--define:process.env.NODE_ENV='production'", "--define:global=window"),
        ],
        cwd=HERE,
        check=True,
    )


async def draw(documents: dict[str, Document], folder: Path, pictures: Path) -> None:
    """Draw each document as a PNG of its name.

    Args:
        folder: where page.js and page.css are.
    """
    (folder / "index.html").write_text(_HTML, encoding="utf-8")

    async def serve(route: Route) -> None:
        name = urllib.parse.urlsplit(route.request.url).path.lstrip("/") or "index.html"
        path = PUBLIC / name.removeprefix("public/") if name.startswith("public/") else folder / name
        if not path.is_file():
            await route.fulfill(status=404)
        else:
            kind = _KINDS.get(path.suffix, "text/html")
            await route.fulfill(body=path.read_bytes(), content_type=kind)

    async with chromium() as browser:
        size = {"width": 1500, "height": 900}
        async with visit(browser, "about:blank", viewport=size) as seen:
            await seen.page.route("**/*", serve)
            await seen.page.goto(_ADDRESS)
            for name, document in documents.items():
                await seen.page.evaluate("document => window.draw(document)", document)
                await seen.page.wait_for_load_state("networkidle")
                drawn = seen.page.locator("#dashboard")
                await drawn.screenshot(path=str(pictures / f"{name}.png"))
            if seen.problems:
                print("\n".join(seen.problems))


async def collected(loaded: Loaded, until: float, pages: tuple[Page, ...]) -> dict[str, Document]:
    """The documents of the dashboards, by the names of their pictures."""
    answers = Answers(loaded, until)
    return {
        page.uid.replace("ws-", "grafana-", 1): await asyncio.to_thread(answers.document, page)
        for page in pages
    }
