"""The `aiohttp.web.Application` of a worker: all HTTP on its port but WebSocket handshakes.

Its server is aiohttp's own: router, middlewares, keep-alive, and a shutdown that lets requests in
progress finish. Each request is one log line at debug level, without its query, which may hold secrets.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import hdrs, web
from aiohttp.abc import AbstractAccessLogger

from cluster import log
from cluster.application import Application
from cluster.application.handler_calls import HandlerCalls
from cluster.application.http_errors import answer_failures
from cluster.http_connection import HEAD_LIMIT_BYTES
from cluster.http_runner import HttpRunner, log_no_client_faults
from cluster.websocket import handshake
from cluster.websocket.accept import upgrade_kept_alive
from cluster.websocket.server import WebSocketServer

#: Where the routes of the application begin.
APP_PATH: Final = "/app/"


class AccessLog(AbstractAccessLogger):
    """Writes one structured line per request."""

    _log = log.get_logger()

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        self._log.debug(
            "request_handled",
            method=request.method,
            path=request.path,
            status=response.status,
            bytes=response.body_length,
            seconds=round(time, 6),
        )


@web.middleware
async def answer_unknown_routes(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Answer what no route of the worker matches (404, 405), as aiohttp does.

    aiohttp raises an error that the request holds and whose traceback holds the request: with what it
    has read, it lives until the garbage is collected.
    """
    match = request.match_info
    error = match.http_exception
    if error is None or len(match.apps) > 1:
        return await handler(request)
    allowed = {hdrs.ALLOW: error.headers[hdrs.ALLOW]} if hdrs.ALLOW in error.headers else None
    return web.Response(status=error.status, text=error.text, headers=allowed)


def application(server: WebSocketServer) -> web.Application:
    """The application of a worker, before it is frozen: the place to add routes."""
    app = web.Application(middlewares=[answer_unknown_routes])
    app.router.add_route("*", handshake.PATH, upgrade_kept_alive(server))
    return app


def mount(app: web.Application, application: Application, calls: HandlerCalls) -> None:
    """Serve the HTTP routes of an application below `/app/`."""
    answer_failures(application.http, calls)
    app.add_subapp(APP_PATH, application.http)


def runner(
    app: web.Application,
    server: WebSocketServer,
    *,
    logs_requests: bool,
    idle_seconds: float,
    shutdown_seconds: float,
) -> web.AppRunner:
    """Make what starts the application, serves it and ends it.

    Args:
        logs_requests: whether each request is logged.
        idle_seconds: how long a connection may be idle between two requests.
        shutdown_seconds: how long requests in progress may take at the end.
    """
    errors = logging.getLogger("cluster.http")
    log_no_client_faults(errors, server.bad_http)
    return HttpRunner(
        app,
        access_log_class=AccessLog,
        access_log=logging.getLogger("cluster.access") if logs_requests else None,
        logger=errors,
        handle_signals=False,
        max_line_size=HEAD_LIMIT_BYTES,
        max_field_size=HEAD_LIMIT_BYTES,
        keepalive_timeout=idle_seconds,
        shutdown_timeout=shutdown_seconds,
    )
