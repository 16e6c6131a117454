"""`POST /api/<method>`: keys, bodies, and errors as HTTP.

- The key is in `X-API-Key: KEY` or `Authorization: apikey KEY`; a wrong one is 401. Without
  `http_api.key` the API is off and every request is 404.
- The answer is 200 with `result` or `error`. With `X-Centrifugo-Error-Mode: transport` an error has an
  HTTP status of its own and stands alone in the body.
- A worker that drains answers 503 before it does anything, so nginx may try the next one.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Any, Final

import orjson
from aiohttp import hdrs, web

from cluster import json_text
from cluster.api.server_methods import PARAMS, ServerMethods, error_body
from cluster.errors import ClientError
from cluster.metrics.counters import Counters

PATH: Final = "/api/{method}"

_STATUS_BY_CODE: Final = {100: 500, 102: 404, 104: 404, 107: 400, 108: 400, 112: 416, 113: 409}


def add_routes(
    app: web.Application,
    methods: ServerMethods,
    counters: Counters,
    *,
    key: str,
    is_draining: Callable[[], bool],
) -> None:
    """Serve the API on an application, if there is a key."""
    if key:
        api = HttpApi(methods, counters, key=key, is_draining=is_draining)
        app.router.add_post(PATH, api.handle)


class HttpApi:
    """The handler of all methods."""

    def __init__(
        self,
        methods: ServerMethods,
        counters: Counters,
        *,
        key: str,
        is_draining: Callable[[], bool],
    ) -> None:
        self._methods = methods
        self._counters = counters
        self._key = key.encode()
        self._is_draining = is_draining

    async def handle(self, request: web.Request) -> web.Response:
        """Answer one request."""
        if not hmac.compare_digest(_key_of(request), self._key):
            self._counters.api_requests["unauthorized"] += 1
            return web.Response(status=401)
        if self._is_draining():
            return web.Response(status=503, headers={"Retry-After": "1"})
        params = _object(await request.read())
        if params is None:
            self._counters.api_requests["error"] += 1
            return web.Response(status=400, text="the body must be one JSON object\n")
        method = request.match_info["method"]
        try:
            result = await self._methods.call(method, params)
        except ClientError as error:
            self._counters.api_requests["error"] += 1
            return _refused(request, error)
        self._counters.api_requests["ok"] += 1
        # Centrifugo answers a batch without the envelope.
        return _json(result if method == "batch" else {"result": result})


def _key_of(request: web.Request) -> bytes:
    given = request.headers.get("X-API-Key", "")
    if not given:
        scheme, _, value = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        given = value.strip() if scheme.lower() == "apikey" else ""
    return given.encode("utf-8", "surrogateescape")


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        return PARAMS.decode(body)
    except json_text.JsonTextInvalid:
        return None


def _refused(request: web.Request, error: ClientError) -> web.Response:
    body = error_body(error)
    if request.headers.get("X-Centrifugo-Error-Mode", "").lower() == "transport":
        return _json(body, status=_STATUS_BY_CODE.get(error.code, 400))
    return _json({"error": body})


def _json(body: dict[str, Any], status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(body), status=status, content_type="application/json")
