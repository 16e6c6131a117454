"""The runner of every aiohttp application of this program.

A request that comes over a unix socket has `remote` 127.0.0.1, as one over loopback.

aiohttp answers an `Expect` header that it does not know with 417 and the header's text, and with 500 if
that text is not UTF-8. A server may also ignore such a header (RFC 9110, section 10.1.1), which this does.

After a response aiohttp reads what is left of the request's body for a while, so that the client reads the
response before the connection is closed: as fast as the client sends. Here that is bounded in bytes too.

A client may send requests without waiting for answers. Those of all connections together are handled one
by one, each in a turn of the event loop of its own, so that nothing else waits for many of them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final
from weakref import WeakKeyDictionary

from aiohttp import hdrs, web
from aiohttp.http import HttpProcessingError, RawRequestMessage
from multidict import CIMultiDict, CIMultiDictProxy

from cluster import log
from cluster.addresses import peer_address

_KNOWN: Final = "100-continue"

#: How long a connection stays open after a response whose request has not ended, and what is read meanwhile.
LINGERING_SECONDS: Final = 1.0
LINGERING_BYTES: Final = 1 << 20


def log_no_client_faults(logger: logging.Logger, count: Callable[[], None] = lambda: None) -> None:
    """Keep tracebacks of clients' faults out of the logger of a runner.

    Args:
        count: called for each request that is no HTTP, or whose body is not what its headers say.
    """
    for kind in (HttpProcessingError, web.RequestPayloadError):
        logger.addFilter(log.ExceptionFilter(kind, count))
    # The client has left before its answer, or before "100 Continue".
    logger.addFilter(log.ExceptionFilter(ConnectionError))


class _RequestTurns:
    """Gives each turn of an event loop to one of those that wait, in the order in which they came."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_scheduled = False

    async def wait(self) -> None:
        future = self._loop.create_future()
        self._waiting.append(future)
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._next)
        await future

    def _next(self) -> None:
        # Of a connection that has ended meanwhile it is cancelled.
        while self._waiting and self._waiting[0].done():
            self._waiting.popleft()
        if self._waiting:
            self._waiting.popleft().set_result(None)
        self._is_scheduled = bool(self._waiting)
        if self._is_scheduled:
            self._loop.call_soon(self._next)


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, _RequestTurns] = WeakKeyDictionary()


async def _turn() -> None:
    loop = asyncio.get_running_loop()
    await _turns.setdefault(loop, _RequestTurns(loop)).wait()


class LingeringConnection(web.RequestHandler):
    """A connection that is closed a second after the response if the request has not ended by then."""

    __slots__ = ("_lingering",)

    _lingering: asyncio.Timeout | None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._lingering = None

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        # aiohttp tells the handler, and that has returned.
        if self._lingering is not None and not self._lingering.expired():
            self._lingering.reschedule(0.0)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        finished = await super().finish_response(request, resp, start_time)
        if not request.content.is_eof() and self.transport is not None:
            await self._linger(request)
            if not request.content.is_eof():
                self.force_close()
        if self._messages:
            await _turn()
        return finished

    async def _linger(self, request: web.BaseRequest) -> None:
        """Throw away the rest of a body; a long one is no longer read after `LINGERING_BYTES`."""
        content, left = request.content, LINGERING_BYTES
        with suppress(TimeoutError, web.PayloadAccessError, ConnectionError):
            async with asyncio.timeout(LINGERING_SECONDS) as until:
                self._lingering = until
                try:
                    while left > 0 and not content.is_eof():
                        left -= len(await content.readany())
                    if not content.is_eof():
                        # aiohttp stops reading from the socket when its buffer is full.
                        await asyncio.sleep(LINGERING_SECONDS)
                finally:
                    self._lingering = None


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
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
