"""The routes of the console: the page, its events, and what an operator may do.

Rules
- A request that is forbidden or cannot be understood is answered with JSON: one sentence in `error`.
- A viewer that does not read is disconnected; streams end when the admin server shuts down.
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
from cluster.alerting.async_http import AsyncHttpService
from cluster.alerting.http import HttpEndpoint
from cluster.config import Config, ConsoleConfig
from cluster.console import alerts, silence_requests
from cluster.console.access import Denied, Guard, error_response
from cluster.console.broadcast import Broadcast, Publish, TooManyViewers
from cluster.console.page import SAFE_HEADERS, Page
from cluster.console.silence_requests import InvalidRequest, SilenceRequest
from cluster.console.stats import ClusterState, EndedWorker, Meter
from cluster.errors import NotAnswering
from cluster.url_credentials import without_credentials

_NUMBERS_SECONDS: Final = 1.0
_ALERTS_SECONDS: Final = 2.0
_WRITE_TIMEOUT_SECONDS: Final = 10.0
_BODY_SECONDS: Final = 10.0
_KEPT_PLACES: Final = 8
_BUSY_SECONDS: Final = 5
# Smaller than a command's: these requests run in the supervisor's event loop.
_SERVICE_TIMEOUT_SECONDS: Final = 3.0
_MOST_ANSWER_BYTES: Final = 8 << 20
_HISTORY: Final = 120
_MOST_ENDED: Final = 10
_PLOTTED: Final = (
    "connections",
    "sessions",
    "messages_in_per_second",
    "messages_out_per_second",
    "errors_last_minute",
)

Action = Callable[[AsyncHttpService, Any], Awaitable[dict[str, Any]]]


def links(options: ConsoleConfig) -> dict[str, str]:
    """Where the other services are, for every viewer: credentials are only for this server's queries."""
    shown = {
        "prometheus": options.prometheus_link or without_credentials(options.prometheus_url),
        "alertmanager": options.alertmanager_link or without_credentials(options.alertmanager_url),
        "grafana": options.grafana_link,
    }
    return {name: without_credentials(url, keeps_query=True) for name, url in shown.items()}


class Console:
    """Everything at `/` and below `/console/`.

    Args:
        config: called for each use, because a roll may change it.
        guard: decides who may read and who may change something.
        version: of this program.
        state: what the supervisor knows.
        metrics_dir: the directory of the workers' multiprocess files.
        public_port: where clients connect.
        ended: workers that ended in an earlier run.
    """

    def __init__(
        self,
        config: Callable[[], Config],
        *,
        guard: Guard,
        version: str,
        state: Callable[[], ClusterState],
        metrics_dir: Path,
        public_port: int,
        ended: Iterable[EndedWorker] = (),
    ) -> None:
        self._config = config
        self._guard = guard
        self._version = version
        self._state = state
        self._metrics_dir = metrics_dir
        self._page = Page(public_port)
        self._ended = deque(ended, maxlen=_MOST_ENDED)
        self._past: deque[dict[str, Any]] = deque(maxlen=_HISTORY)
        self._broadcast = Broadcast(
            self._collect, most_viewers=config().console.viewers, kept_places=_KEPT_PLACES
        )
        self._session: aiohttp.ClientSession | None = None
        self._log = log.get_logger()

    def add_to(self, app: web.Application) -> None:
        """Add the routes, and close what they hold open when the application shuts down."""
        app.router.add_get("/", self._file)
        app.router.add_get("/console/events", self._events)
        app.router.add_get("/console/{name}", self._file)
        for name, action in _ACTIONS.items():
            app.router.add_post(f"/console/{name}", self._handler(name, action))
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
            has_key = self._guard.check_reader(request)
            with self._broadcast.watching(has_key=has_key) as frames:
                response = web.StreamResponse(
                    headers={
                        "Content-Type": "text/event-stream",
                        "Cache-Control": "no-store",
                        **SAFE_HEADERS,
                    }
                )
                await response.prepare(request)
                async with asyncio.timeout(_WRITE_TIMEOUT_SECONDS):
                    await response.write(_frame("hello", self._hello(request, has_key=has_key)))
                async for frame in frames:
                    async with asyncio.timeout(_WRITE_TIMEOUT_SECONDS):
                        await response.write(frame)
        except Denied as denied:
            return await self._guard.refuse(request, denied)
        except TooManyViewers:
            text = (
                "this console has too many viewers: open it with #key=…, or raise console.viewers"
            )
            full = Denied(503, "viewers", text, retry_after=_BUSY_SECONDS)
            return await self._guard.refuse(request, full)
        except (ConnectionError, TimeoutError):
            if request.transport is not None:
                request.transport.abort()
        return response

    def _hello(self, request: web.Request, *, has_key: bool) -> dict[str, Any]:
        """The first event: what this viewer may do, and where the other services are."""
        config = self._config()
        return {
            "version": self._version,
            "has_key": has_key,
            "can_write": self._guard.can_write,
            "live_address": self._page.live_address(request),
            "is_insecure": config.client.insecure,
            "links": links(config.console),
            "past": list(self._past),
        }

    # --- collecting ----------------------------------------------------------------------

    async def _collect(self, publish: Publish) -> None:
        self._past.clear()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._collect_numbers(publish))
            tasks.create_task(self._collect_alerts(publish))

    async def _collect_numbers(self, publish: Publish) -> None:
        meter = Meter(self._metrics_dir)
        while True:
            numbers = await asyncio.to_thread(meter.read, self._state(), time.monotonic())
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
        prometheus = self._service("Prometheus", self._config().console.prometheus_url)
        return await alerts.collect(prometheus, self._alertmanager())

    def _alertmanager(self) -> AsyncHttpService:
        return self._service("Alertmanager", self._config().console.alertmanager_url)

    def _service(self, name: str, url: str) -> AsyncHttpService:
        if self._session is None:
            self._session = aiohttp.ClientSession()
        endpoint = HttpEndpoint(
            name,
            url.rstrip("/"),
            "" if url else f"set console.{name.lower()}_url",
            timeout_seconds=_SERVICE_TIMEOUT_SECONDS,
            max_bytes=_MOST_ANSWER_BYTES,
        )
        return AsyncHttpService(endpoint, self._session)

    # --- changing ------------------------------------------------------------------------

    def _handler(
        self, name: str, action: Action
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                self._guard.check_writer(request)
                done = await action(self._alertmanager(), await _read(request))
            except Denied as denied:
                return await self._guard.refuse(request, denied)
            except InvalidRequest as invalid:
                malformed = Denied(400, "malformed", str(invalid))
                return await self._guard.refuse(request, malformed)
            except NotAnswering as error:
                return error_response(502, str(error))
            client = self._guard.client(request)
            self._log.info("console_action_taken", action=name, client=client, **done)
            return web.json_response(done)

        return handle


async def _acknowledge(service: AsyncHttpService, document: Any) -> dict[str, Any]:
    request = SilenceRequest.of(document)
    made = await silence_requests.acknowledge(service, request, now=time.time())
    return {"id": made, "alert": request.labels["alertname"], "author": request.author}


async def _silence(service: AsyncHttpService, document: Any) -> dict[str, Any]:
    request = SilenceRequest.of(document)
    made = await silence_requests.make_silence(service, request, now=time.time())
    return {"id": made, "alert": request.labels["alertname"], "author": request.author}


async def _unsilence(service: AsyncHttpService, document: Any) -> dict[str, Any]:
    silence_id = document.get("id") if isinstance(document, dict) else None
    await silence_requests.end_silence(service, silence_id)
    return {"id": silence_id}


async def _check_key(service: AsyncHttpService, document: Any) -> dict[str, Any]:
    """Change nothing: the request's key has been checked before."""
    return {}


_ACTIONS: Final[dict[str, Action]] = {
    "ack": _acknowledge,
    "silence": _silence,
    "unsilence": _unsilence,
    "key": _check_key,
}


async def _read(request: web.Request) -> Any:
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            return orjson.loads(await request.read())
    except web.HTTPRequestEntityTooLarge as error:
        raise InvalidRequest(f"send {request.client_max_size} bytes at most") from error
    except TimeoutError:
        raise InvalidRequest(f"send the body within {_BODY_SECONDS:g} s") from None
    except orjson.JSONDecodeError:
        raise InvalidRequest("send a JSON object") from None


def _frame(kind: str, document: Any) -> bytes:
    return b"event: " + kind.encode() + b"\ndata: " + orjson.dumps(document) + b"\n\n"
