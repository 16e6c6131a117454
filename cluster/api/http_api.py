"""`POST /api/<method>`: keys, bodies, and errors as HTTP.

- The key is in `X-API-Key: KEY`, `Authorization: apikey KEY` or `?api_key=KEY`; a wrong one is 401, and
  what a limited key may not do is 403. Without any key in the configuration every request is 404.
- The answer is 200 with `result` or `error`. With `X-Centrifugo-Error-Mode: transport`, or
  `http_api.error_mode`, an error has an HTTP status of its own and stands alone in the body.
- Methods that only read and take strings answer GET too, with their parameters in the query.
- `POST /api` is the older format, which Centrifugo answers too: the body has commands with `method` and
  `params`, one on each line, and the answer has a line with `result` or `error` for each.
- A worker that drains answers 503 before it does anything, so nginx may try the next one.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import orjson
from aiohttp import hdrs, web

from cluster import json_text
from cluster.api.api_keys import ApiKey, ApiKeys, KeyForbids
from cluster.api.method_table import API_TABLE
from cluster.api.openapi import document
from cluster.api.request_params import PARAMS, Params, commands
from cluster.api.server_methods import ServerMethods, error_body
from cluster.config import HttpApiConfig
from cluster.errors import BAD_REQUEST, ClientError
from cluster.metrics.counters import Counters

PATH: Final = "/api/{method}"
DOCUMENT_PATH: Final = "/api/openapi.json"
COMMANDS_PATH: Final = "/api"

#: HTTP statuses of errors in the mode `transport`; an error of an application's handler is 400.
STATUS_BY_CODE: Final = {100: 500, 102: 404, 104: 404, 107: 400, 108: 400, 112: 416, 113: 409}


def add_routes(
    app: web.Application,
    methods: ServerMethods,
    counters: Counters,
    *,
    config: HttpApiConfig,
    namespace_of: Callable[[str], str],
    is_draining: Callable[[], bool],
) -> None:
    """Serve the API on an application, if there is a key."""
    keys = ApiKeys(config, namespace_of)
    if not keys:
        return
    api = HttpApi(
        methods,
        counters,
        keys=keys,
        has_transport_errors=config.error_mode == "transport",
        is_draining=is_draining,
    )
    app.router.add_get(DOCUMENT_PATH, api.handle_document)
    for name, method in API_TABLE.items():
        if method.is_readable:
            app.router.add_get(f"/api/{name}", api.handle)
    app.router.add_post(PATH, api.handle)
    app.router.add_post(COMMANDS_PATH, api.handle_commands)


class HttpApi:
    """The handler of all methods."""

    def __init__(
        self,
        methods: ServerMethods,
        counters: Counters,
        *,
        keys: ApiKeys,
        has_transport_errors: bool,
        is_draining: Callable[[], bool],
    ) -> None:
        self._methods = methods
        self._counters = counters
        self._keys = keys
        self._has_transport_errors = has_transport_errors
        self._is_draining = is_draining

    async def handle(self, request: web.Request) -> web.Response:
        """Answer one request."""
        # GET has its own routes, so its method is the last word of the path.
        method = request.match_info.get("method") or request.path.rpartition("/")[2]
        return await self._handle(request, method, self._answer)

    async def handle_commands(self, request: web.Request) -> web.Response:
        """Answer the commands of one request."""
        return await self._handle(request, "", self._answer_commands)

    async def _handle(
        self,
        request: web.Request,
        method: str,
        answer: Callable[[web.Request, str, ApiKey], Awaitable[web.Response]],
    ) -> web.Response:
        since = time.monotonic()
        key = self._keys.find(_key_of(request))
        if key is None:
            self._counters.api_requests["unauthorized"] += 1
            return web.Response(status=401)
        if self._is_draining():
            return web.Response(status=503, headers={"Retry-After": "1"})
        counted = self._counters.api_requests
        try:
            response = await answer(request, method, key)
        except KeyForbids as error:
            counted["forbidden"] += 1
            response = web.Response(status=403, text=f"{error}\n")
        except ClientError as error:
            counted["error"] += 1
            self._counters.api_error(error.code)
            response = self._refused(request, error)
        durations = self._counters.api_duration
        durations[method if method in durations else "other"].observe(time.monotonic() - since)
        return response

    async def _answer(self, request: web.Request, method: str, key: ApiKey) -> web.Response:
        if request.method == hdrs.METH_POST:
            params = _object(await request.read())
        else:
            params = _query(method, request)
        if params is None:
            return self._no_json("the body must be one JSON object")
        result = await self._methods.call(method, params, key)
        self._counters.api_requests["ok"] += 1
        # Centrifugo answers a batch without the envelope.
        return _json(result if method == "batch" else {"result": result})

    async def _answer_commands(
        self, request: web.Request, method: str, key: ApiKey
    ) -> web.Response:
        try:
            given = commands(await request.read())
        except json_text.JsonTextInvalid:
            return self._no_json("the body must be JSON objects with a method, one on each line")
        replies = await self._methods.call_each([(one.method, one.params) for one in given], key)
        self._counters.api_requests["ok"] += 1
        lines = [
            orjson.dumps({"id": one.id} | reply if one.id else reply)
            for one, reply in zip(given, replies, strict=True)
        ]
        return web.Response(body=b"\n".join(lines), content_type="application/json")

    def _no_json(self, text: str) -> web.Response:
        self._counters.api_requests["error"] += 1
        self._counters.api_error(BAD_REQUEST.code)
        return web.Response(status=400, text=f"{text}\n")

    async def handle_document(self, request: web.Request) -> web.Response:
        """Answer with the OpenAPI document; a key is needed, as for the methods."""
        if self._keys.find(_key_of(request)) is None:
            self._counters.api_requests["unauthorized"] += 1
            return web.Response(status=401)
        self._counters.api_requests["ok"] += 1
        return _json(document())

    def _refused(self, request: web.Request, error: ClientError) -> web.Response:
        body = error_body(error)
        mode = request.headers.get("X-Centrifugo-Error-Mode", "").lower()
        if mode == "transport" or self._has_transport_errors:
            return _json(body, status=STATUS_BY_CODE.get(error.code, 400))
        return _json({"error": body})


def _key_of(request: web.Request) -> bytes:
    given = request.headers.get("X-API-Key", "")
    if not given:
        scheme, _, value = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        given = value.strip() if scheme.lower() == "apikey" else request.query.get("api_key", "")
    return given.encode("utf-8", "surrogateescape")


def _object(body: bytes) -> Params | None:
    try:
        return PARAMS.decode(body)
    except json_text.JsonTextInvalid:
        return None


def _query(method: str, request: web.Request) -> Params:
    """The parameters of a GET; what should be a number and is none stays a string, which is refused."""
    params: Params = {}
    for param in API_TABLE[method].params:
        value = request.query.get(param.name)
        if value is not None:
            is_number = param.kind == "integer" and value.isascii() and value.isdigit()
            params[param.name] = int(value) if is_number and len(value) < 17 else value
    return params


def _json(body: dict[str, Any], status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(body), status=status, content_type="application/json")
