"""The failures of an application's HTTP handlers: counted, logged, and answered with 500."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from aiohttp import web

from cluster.application.handler_calls import HandlerCalls

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def answer_failures(http: web.Application, calls: HandlerCalls) -> None:
    """Let no failure of an application pass; call it before the application starts."""

    @web.middleware
    async def answer(request: web.Request, handler: _Handler) -> web.StreamResponse:
        since = time.monotonic()
        try:
            return await handler(request)
        except (web.HTTPException, ConnectionError):
            raise
        except Exception as error:  # noqa: BLE001 - an application may raise anything
            calls.failed("http", request.match_info.handler, "exception", error)
            return web.Response(status=500, text="internal server error\n")
        finally:
            calls.observe("http", since)

    # First, so that it sees what the application's own middlewares let pass.
    http.middlewares.insert(0, answer)
