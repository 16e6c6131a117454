"""The HTTP server of the admin port: metrics, health, readiness, and the console.

Rules
- It answers for as long as the supervisor runs. Metrics are collected in a thread, one scrape at
  a time, so that health and readiness never wait for a scrape.
- /health: the event loop of the supervisor runs. /ready: the cluster would serve a new client;
  if not, 503. Everybody gets yes or no; the version, the reason and the children are for those whom
  the guard lets read.
- Only the console changes state, and only with `admin.key`.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web

from cluster import log
from cluster.bounded_connections import BoundedConnections
from cluster.console import Console, Denied, Guard, error_response, runbooks
from cluster.http_runner import HttpRunner, log_no_client_faults
from cluster.metrics.supervisor_metrics import CONTENT_TYPE

#: Counts one event of a counter: its name, and its labels by keyword.
Count = Callable[..., None]

_SHUTDOWN_SECONDS: Final = 1.0
#: The longest body of a request; only the console reads bodies.
LONGEST_BODY_BYTES: Final = 65536


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
        guard: decides who may read metrics and details.
        limit: most open connections.
        count: counts refusals and faults.
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
        guard: Guard,
        limit: int,
        count: Count,
    ) -> None:
        self._sock = sock
        self._version = version
        self._instance = instance
        self._readiness = readiness
        self._exposition = exposition
        self._scraped = scraped
        self._console = console
        self._guard = guard
        self._limit = limit
        self._count = count
        self._log = log.get_logger()
        self._collecting = asyncio.Lock()
        self._runner: web.AppRunner | None = None
        self._connections: BoundedConnections | None = None

    async def open(self) -> None:
        """Start the server."""
        app = web.Application(middlewares=[self._count_faults], client_max_size=LONGEST_BODY_BYTES)
        self._console.add_to(app)
        runbooks.add_to(app)
        app.router.add_get("/health", self._health)
        app.router.add_get("/ready", self._ready)
        app.router.add_get("/metrics", self._metrics)
        log_no_client_faults(logging.getLogger("aiohttp.server"), self._count_malformed)
        self._runner = HttpRunner(
            app, access_log=None, handle_signals=False, shutdown_timeout=_SHUTDOWN_SECONDS
        )
        await self._runner.setup()
        assert self._runner.server is not None
        self._connections = BoundedConnections(
            self._sock,
            self._runner.server,
            limit=self._limit,
            refused=lambda why: self._count("app_admin_connections_rejected_total", reason=why),
            failed=lambda: self._count("app_supervisor_errors_total", type="accept"),
        )

    async def close(self) -> None:
        """Finish the open requests and stop the server."""
        if self._connections is not None:
            self._connections.close()
        if self._runner is not None:
            await self._runner.cleanup()

    def _count_malformed(self) -> None:
        self._count("app_admin_requests_rejected_total", reason="malformed")

    @web.middleware
    async def _count_faults(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Count what would be answered with 500; aiohttp logs it."""
        try:
            return await handler(request)
        except (
            web.HTTPException,
            web.RequestPayloadError,
            ConnectionError,
            asyncio.CancelledError,
        ):
            raise
        except Exception:
            self._count("app_supervisor_errors_total", type="http")
            raise

    async def _health(self, request: web.Request) -> web.Response:
        facts = {"status": "ok"}
        if self._guard.may_read(request):
            facts |= {"version": self._version, "instance": self._instance}
        return web.json_response(facts)

    async def _ready(self, request: web.Request) -> web.Response:
        readiness = self._readiness()
        facts: dict[str, Any] = {"ready": readiness.is_ready}
        if self._guard.may_read(request):
            facts |= {"reason": readiness.reason, "children": dict(readiness.children)}
        return web.json_response(
            facts,
            status=200 if readiness.is_ready else 503,
            headers={} if readiness.is_ready else {"Retry-After": "1"},
        )

    async def _metrics(self, request: web.Request) -> web.Response:
        try:
            self._guard.check_reader(request)
        except Denied as denied:
            return await self._guard.refuse(request, denied)
        try:
            async with self._collecting:
                text = await asyncio.to_thread(self._exposition)
        except OSError as error:
            self._count("app_supervisor_errors_total", type="collect")
            self._log.error("metrics_collection_failed", error=str(error))
            return error_response(503, f"metrics cannot be collected: {error}", retry_after=1)
        self._scraped(request.headers.get("User-Agent", ""))
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE})
