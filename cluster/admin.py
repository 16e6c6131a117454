"""The HTTP server of the admin port: metrics, health, readiness, and the console.

Rules
- It answers for as long as the supervisor runs. Metrics are collected in a thread, one scrape at
  a time, so that health and readiness never wait for a scrape.
- /health: the event loop of the supervisor runs. /ready: the cluster would serve a new client;
  if not, 503 with the reason as JSON.
- Only the console changes state, and only with `admin.key`.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web
from aiohttp.http import HttpProcessingError

from cluster import log
from cluster.children.listeners import BACKLOG
from cluster.console import Console, runbooks
from cluster.metrics.supervisor_metrics import CONTENT_TYPE

_SHUTDOWN_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether this cluster would serve a new client, why not, and the state of every child."""

    is_ready: bool
    reason: str
    children: Mapping[str, str] = field(default_factory=dict)


class AdminServer:
    """An HTTP server on a socket that is already listening.

    Args:
        sock: the socket, owned by the caller.
        version: the version of this program.
        instance: `host:port` of the admin port, the label of logs and metrics.
        readiness: called for every request of /ready.
        exposition: collects the metrics; called in a thread.
        scraped: called with the User-Agent after each scrape.
        console: the page at `/` and its routes.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        version: str,
        instance: str,
        readiness: Callable[[], Readiness],
        exposition: Callable[[], bytes],
        scraped: Callable[[str], None],
        console: Console,
    ) -> None:
        self._sock = sock
        self._version = version
        self._instance = instance
        self._readiness = readiness
        self._exposition = exposition
        self._scraped = scraped
        self._console = console
        self._collecting = asyncio.Lock()
        self._runner: web.AppRunner | None = None

    async def open(self) -> None:
        """Start the server."""
        app = web.Application()
        self._console.add_to(app)
        runbooks.add_to(app)
        app.router.add_get("/health", self._health)
        app.router.add_get("/ready", self._ready)
        app.router.add_get("/metrics", self._metrics)
        logging.getLogger("aiohttp.server").addFilter(log.ExceptionFilter(HttpProcessingError))
        self._runner = web.AppRunner(
            app, access_log=None, handle_signals=False, shutdown_timeout=_SHUTDOWN_SECONDS
        )
        await self._runner.setup()
        site = web.SockSite(self._runner, self._sock.dup(), backlog=BACKLOG)
        await site.start()

    async def close(self) -> None:
        """Finish the open requests and stop the server."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _health(self, request: web.Request) -> web.Response:
        return web.json_response(
            {"status": "ok", "version": self._version, "instance": self._instance}
        )

    async def _ready(self, request: web.Request) -> web.Response:
        readiness = self._readiness()
        return web.json_response(
            {
                "ready": readiness.is_ready,
                "reason": readiness.reason,
                "children": dict(readiness.children),
            },
            status=200 if readiness.is_ready else 503,
            headers={} if readiness.is_ready else {"Retry-After": "1"},
        )

    async def _metrics(self, request: web.Request) -> web.Response:
        async with self._collecting:
            text = await asyncio.to_thread(self._exposition)
        self._scraped(request.headers.get("User-Agent", ""))
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE})
