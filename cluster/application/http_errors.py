"""The failures of an application's HTTP handlers: counted, logged, and answered with 500."""

from __future__ import annotations

import time

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from cluster.application.handler_calls import HandlerCalls


def failures(calls: HandlerCalls) -> Middleware:
    """Make the middleware that lets no failure of an application pass."""

    @web.middleware
    async def answer_failures(request: web.Request, handler: Handler) -> web.StreamResponse:
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

    return answer_failures
