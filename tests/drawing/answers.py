"""Asks Prometheus and Loki what every panel of a dashboard asks, at the times at which Grafana would."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.parse
from typing import Any, Final

from scripts.dashboards.__main__ import FOLDER
from scripts.dashboards.panels import Page
from tests.drawing.digests import picture_of
from tests.drawing.frames import (
    Frame,
    bucket_frames,
    interpolated,
    log_frame,
    moments,
    rate_interval,
    series_frames,
    step_seconds,
    table_frame,
)
from tests.drawing.loaded_cluster import SCRAPE_SECONDS, Loaded
from tests.harness.cluster import http_get

POINTS: Final = 250
_MOST_LINES: Final = 40
_OF_EXPORTERS: Final = re.compile(r'job="(?:redis|nginx)"')

Document = dict[str, Any]
Result = list[dict[str, Any]]


class Answers:
    """What dashboards show; `missing` has the queries that returned nothing."""

    def __init__(self, loaded: Loaded, until: float) -> None:
        self.missing: list[str] = []
        self._loaded = loaded
        self._from = loaded.began
        self._to = until
        self._step = step_seconds(until - loaded.began, POINTS, SCRAPE_SECONDS)

    async def document(self, page: Page) -> Document:
        """The dashboard with the frames of its panels, as page.jsx draws it."""
        dashboard = json.loads((FOLDER / f"{page.uid}.json").read_text(encoding="utf-8"))
        values = {
            "source": "Prometheus",
            "logs": "Loki",
            "job": "websocket-app",
            "instance": ".*",
            "worker": ".*",
            "__range": f"{self._to - self._from:.0f}s",
            "__rate_interval": rate_interval(self._step, SCRAPE_SECONDS),
            "__auto": f"{2 * self._step:g}s",
            **{one.name: one.value for one in page.variables},
        }
        panels = {panel["id"]: await self._frames(panel, values) for panel in dashboard["panels"]}
        return {
            "dashboard": dashboard,
            "values": values,
            "range": {"from": round(self._from * 1000), "to": round(self._to * 1000)},
            "panels": panels,
            "annotations": await self._annotations(dashboard, values),
        }

    async def _annotations(self, dashboard: Document, values: dict[str, str]) -> list[Document]:
        found = []
        for one in dashboard["annotations"]["list"]:
            expr = interpolated(one["expr"], values)
            result = await self._asked(self._loaded.prometheus, expr, is_instant=False)
            for first, last in moments(result, self._step):
                found.append({"color": one["iconColor"], "from": first, "to": last})
        return found

    async def _frames(self, panel: Document, values: dict[str, str]) -> list[Frame]:
        found: list[Frame] = []
        targets = panel.get("targets", [])
        for target in targets:
            expr = interpolated(target["expr"], values)
            is_of_exporters = _OF_EXPORTERS.search(target["expr"])
            port = self._loaded.exporters if is_of_exporters else self._loaded.prometheus
            ref, legend = target["refId"], target.get("legendFormat", "")
            if target["datasource"]["type"] == "loki":
                result = await self._of_logs(expr, target["queryType"] == "instant")
            else:
                is_instant = bool(target.get("instant"))
                result = await self._asked(port, expr, is_instant=is_instant)
            if not result:
                self.missing.append(f"{panel['title']}: {expr}")
            if panel["type"] == "logs":
                found.append(log_frame(result, ref, _MOST_LINES))
            elif target.get("format") == "table":
                found.append(table_frame(result, ref, is_only=len(targets) == 1))
            elif target.get("format") == "heatmap":
                found += bucket_frames(result, ref)
            else:
                found += series_frames(result, ref, legend, expr, self._step)
        return found

    async def _of_logs(self, expr: str, is_instant: bool) -> Result:
        server = self._loaded.loki
        assert server is not None
        step = 0.0 if is_instant else 2 * self._step
        result: Result = (await server.ask(expr, self._from, self._to, step))["result"]
        return result

    async def _asked(self, port: int, expr: str, *, is_instant: bool) -> Result:
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
        address = f"{path}?{urllib.parse.urlencode(words)}"
        body = json.loads((await asyncio.to_thread(http_get, port, address)).body)
        if body["status"] != "success":
            raise SystemExit(f"{expr}: {body.get('error')}")
        result: Result = body["data"]["result"]
        return result


async def collected(loaded: Loaded, until: float, pages: tuple[Page, ...]) -> dict[str, Document]:
    """The documents of the dashboards, by the names of their pictures; without a Loki not that of logs.

    Raises:
        SystemExit: queries return nothing; the text names them.
    """
    answers = Answers(loaded, until)
    documents = {}
    for page in pages:
        if loaded.loki is None and any(panel.is_of_logs for panel in page.panels):
            print(f"no loki on PATH: {page.uid} is not drawn")
            continue
        documents[picture_of(page.uid)] = await answers.document(page)
    if answers.missing:
        raise SystemExit("no data:\n" + "\n".join(answers.missing))
    return documents
