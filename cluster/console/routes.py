"""The routes of the console: the page, its events, and what an operator may do.

Rules
- An answer to somebody who may not, or asks nonsense, is JSON with one sentence in `error`.
- A viewer that does not read is let go; streams end when the door closes.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import aiohttp
import orjson
from aiohttp import web

from cluster import log
from cluster.config import Config
from cluster.console import alertmanager, alerts
from cluster.console.access import Denied, check_reader, check_writer, has_key
from cluster.console.asking import Service, Unanswered
from cluster.console.broadcast import Broadcast, Publish, TooManyViewers
from cluster.console.page import SAFE_HEADERS, Page
from cluster.console.stats import ClusterState, EndedWorker, Meter

_NUMBERS_SECONDS: Final = 1.0
_ALERTS_SECONDS: Final = 2.0
_PATIENCE_SECONDS: Final = 10.0
_WRONG_KEY_SECONDS: Final = 0.5
_HISTORY: Final = 120
_MOST_ENDED: Final = 10
_LONGEST_BODY: Final = 65536
_PLOTTED: Final = (
    "connections",
    "sessions",
    "messages_in_per_second",
    "messages_out_per_second",
    "errors_last_minute",
)

Action = Callable[[Service, Any], Awaitable[dict[str, Any]]]


class Console:
    """Everything at `/` and below `/console/`.

    Args:
        config: asked anew, because a roll may change it.
        key: what whoever changes something must have; empty if nobody may.
        version: of this program.
        facts: what the supervisor knows.
        metrics_dir: the directory of the workers' multiprocess files.
        public_port: where clients connect.
        ended: workers that ended in an earlier run.
    """

    def __init__(
        self,
        config: Callable[[], Config],
        *,
        key: Callable[[], str],
        version: str,
        facts: Callable[[], ClusterState],
        metrics_dir: Path,
        public_port: int,
        ended: Iterable[EndedWorker] = (),
    ) -> None:
        self._config = config
        self._key = key
        self._version = version
        self._facts = facts
        self._metrics_dir = metrics_dir
        self._page = Page(public_port)
        self._ended = deque(ended, maxlen=_MOST_ENDED)
        self._past: deque[dict[str, Any]] = deque(maxlen=_HISTORY)
        self._broadcast = Broadcast(self._collect, most_viewers=config().console.viewers)
        self._session: aiohttp.ClientSession | None = None
        self._log = log.get_logger()

    def add_to(self, app: web.Application) -> None:
        """Add the routes, and the end of what they hold."""
        app.router.add_get("/", self._file)
        app.router.add_get("/console/events", self._events)
        app.router.add_get("/console/{name}", self._file)
        for name, action in _ACTIONS.items():
            app.router.add_post(f"/console/{name}", self._doing(name, action))
        app.on_shutdown.append(self._close)

    def worker_ended(self, ended: EndedWorker) -> None:
        """Show how a worker ended."""
        self._ended.append(ended)

    async def _close(self, app: web.Application) -> None:
        self._broadcast.close()
        if self._session is not None:
            await self._session.close()

    # --- reading -------------------------------------------------------------------------

    async def _file(self, request: web.Request) -> web.Response:
        return self._page.answer(request)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        try:
            check_reader(request, self._key())
            with self._broadcast.watching() as frames:
                response = web.StreamResponse(
                    headers={
                        "Content-Type": "text/event-stream",
                        "Cache-Control": "no-store",
                        **SAFE_HEADERS,
                    }
                )
                await response.prepare(request)
                await response.write(_frame("hello", self._hello(request)))
                async for frame in frames:
                    async with asyncio.timeout(_PATIENCE_SECONDS):
                        await response.write(frame)
        except Denied as denied:
            return await self._denied(request, denied)
        except TooManyViewers:
            return _said(503, "too many are looking at this console: raise console.viewers")
        except (ConnectionError, TimeoutError):
            if request.transport is not None:
                request.transport.abort()
        return response

    def _hello(self, request: web.Request) -> dict[str, Any]:
        """What holds for this viewer."""
        config = self._config()
        places = config.console
        return {
            "version": self._version,
            "has_key": has_key(request, self._key()),
            "can_write": bool(self._key()),
            "live_address": self._page.live_address(request),
            "is_insecure": config.client.insecure,
            "links": {
                "prometheus": places.prometheus_link or places.prometheus_url,
                "alertmanager": places.alertmanager_link or places.alertmanager_url,
                "grafana": places.grafana_link,
            },
            "past": list(self._past),
        }

    # --- collecting ----------------------------------------------------------------------

    async def _collect(self, publish: Publish) -> None:
        self._past.clear()
        async with asyncio.TaskGroup() as both:
            both.create_task(self._collect_numbers(publish))
            both.create_task(self._collect_alerts(publish))

    async def _collect_numbers(self, publish: Publish) -> None:
        meter = Meter(self._metrics_dir)
        while True:
            numbers = await asyncio.to_thread(meter.read, self._facts(), time.monotonic())
            numbers["at"] = time.time()
            numbers["ended"] = [asdict(one) for one in reversed(self._ended)]
            self._past.append({name: numbers[name] for name in _PLOTTED})
            publish("numbers", _frame("numbers", numbers))
            await asyncio.sleep(_NUMBERS_SECONDS)

    async def _collect_alerts(self, publish: Publish) -> None:
        while True:
            publish("alerts", _frame("alerts", await self._alerts()))
            await asyncio.sleep(_ALERTS_SECONDS)

    async def _alerts(self) -> dict[str, Any]:
        prometheus = Service("Prometheus", self._config().console.prometheus_url, self._http())
        return await alerts.collect(prometheus, self._alertmanager())

    def _alertmanager(self) -> Service:
        url = self._config().console.alertmanager_url
        return Service("Alertmanager", url, self._http())

    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession()
        return self._session

    # --- changing ------------------------------------------------------------------------

    def _doing(
        self, name: str, action: Action
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                check_writer(request, self._key())
                done = await action(self._alertmanager(), await _read(request))
            except Denied as denied:
                return await self._denied(request, denied)
            except alertmanager.Refused as refused:
                return _said(400, str(refused))
            except Unanswered as unanswered:
                return _said(502, str(unanswered))
            self._log.info("console_action_taken", action=name, **done)
            return web.json_response(done)

        return handle

    async def _denied(self, request: web.Request, denied: Denied) -> web.Response:
        if "Authorization" in request.headers:
            self._log.warning("console_key_refused", status=denied.status)
            await asyncio.sleep(_WRONG_KEY_SECONDS)
        return _said(denied.status, str(denied))


async def _acknowledge(service: Service, document: Any) -> dict[str, Any]:
    order = alertmanager.order_of(document)
    made = await alertmanager.silence(service, order, is_ack=True, now=time.time())
    return {"id": made, "alert": order.labels["alertname"], "author": order.author}


async def _silence(service: Service, document: Any) -> dict[str, Any]:
    order = alertmanager.order_of(document)
    made = await alertmanager.silence(service, order, is_ack=False, now=time.time())
    return {"id": made, "alert": order.labels["alertname"], "author": order.author}


async def _end(service: Service, document: Any) -> dict[str, Any]:
    ended = document.get("id") if isinstance(document, dict) else None
    await alertmanager.end_silence(service, ended)
    return {"id": ended}


async def _nothing(service: Service, document: Any) -> dict[str, Any]:
    """Only the key is looked at."""
    return {}


_ACTIONS: Final[dict[str, Action]] = {
    "ack": _acknowledge,
    "silence": _silence,
    "unsilence": _end,
    "key": _nothing,
}


async def _read(request: web.Request) -> Any:
    try:
        body = await request.read()
        if len(body) > _LONGEST_BODY:
            raise alertmanager.Refused(f"send {_LONGEST_BODY} bytes at most")
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise alertmanager.Refused("send a JSON object") from None


def _said(status: int, text: str) -> web.Response:
    headers = {"Retry-After": "5"} if status == 503 else {}
    return web.json_response({"error": text}, status=status, headers=headers)


def _frame(kind: str, document: Any) -> bytes:
    return b"event: " + kind.encode() + b"\ndata: " + orjson.dumps(document) + b"\n\n"
