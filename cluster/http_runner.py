"""The runner of every aiohttp application of this program.

A request that comes over a unix socket has `remote` 127.0.0.1, as one over loopback.

aiohttp answers an `Expect` header that it does not know with 417 and the header's text, and with 500 if
that text is not UTF-8. A server may also ignore such a header (RFC 9110, section 10.1.1), which this does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from aiohttp import hdrs, web
from aiohttp.http import HttpProcessingError, RawRequestMessage
from multidict import CIMultiDict, CIMultiDictProxy

from cluster import log
from cluster.addresses import peer_address
from cluster.http_connection import LingeringConnection

_KNOWN: Final = "100-continue"


def log_no_client_faults(logger: logging.Logger, count: Callable[[], None] = lambda: None) -> None:
    """Keep tracebacks of clients' faults out of the logger of a runner.

    Args:
        count: called for each request that is no HTTP, or whose body is not what its headers say.
    """
    for kind in (HttpProcessingError, web.RequestPayloadError):
        logger.addFilter(log.ExceptionFilter(kind, count))
    # The client has left before its answer, or before "100 Continue".
    logger.addFilter(log.ExceptionFilter(ConnectionError))


class _Server(web.Server):
    def __call__(self) -> LingeringConnection:
        return LingeringConnection(self, loop=self._loop, **self._kwargs)


class HttpRunner(web.AppRunner):
    """A `web.AppRunner` whose requests have no unknown expectation, and no body without end."""

    async def _make_server(self) -> web.Server:
        server: Any = await super()._make_server()
        # aiohttp has no other place to name the class of connections.
        server.__class__ = _Server
        make_request = server.request_factory

        def make(message: RawRequestMessage, *more: Any) -> web.BaseRequest:
            request: web.BaseRequest = make_request(_without_unknown_expectation(message), *more)
            # Of a unix socket, whose other end has no address.
            return request.clone(remote=peer_address("")) if request.remote == "" else request

        server.request_factory = make
        return server  # type: ignore[no-any-return]


def _without_unknown_expectation(message: RawRequestMessage) -> RawRequestMessage:
    if message.headers.get(hdrs.EXPECT, _KNOWN).lower() == _KNOWN:
        return message
    headers = CIMultiDict(message.headers)
    headers.popall(hdrs.EXPECT)
    return message._replace(headers=CIMultiDictProxy(headers))
