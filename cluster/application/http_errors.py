"""The failures of an application's HTTP handlers: counted, logged, and answered with 500.

So many requests may be in progress at a time; those above it are answered with 503 before anything of the
application runs, and nginx tries the ones that may be repeated at another worker. A request may take as long
as it likes, because it may be a stream.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from aiohttp import web

from cluster.application.handler_calls import HandlerCalls

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def answer_failures(http: web.Application, calls: HandlerCalls) -> None:
    """Let no failure of an application pass, nor too many requests; call it before the application starts."""
    in_progress = 0

    @web.middleware
    async def answer(request: web.Request, handler: _Handler) -> web.StreamResponse:
        nonlocal in_progress
        if in_progress >= calls.most_requests:
            calls.failed("http", request.match_info.handler, "overload", None)
            return web.Response(status=503, headers={"Retry-After": "1"})
        in_progress += 1
        since = time.monotonic()
        try:
            return await handler(request)
        except (web.HTTPException, web.RequestPayloadError, ConnectionError):
            # The second is a client's fault: a body that is not what its headers say.
            raise
        except Exception as error:  # noqa: BLE001 - an application may raise anything
            calls.failed("http", request.match_info.handler, "exception", error)
            return web.Response(status=500, text="internal server error\n")
        finally:
            in_progress -= 1
            calls.observe("http", since)

    # First, so that it sees what the application's own middlewares let pass.
    http.middlewares.insert(0, answer)
