"""The runner of every aiohttp application of this program.

A request that comes over a unix socket has `remote` 127.0.0.1, as one over loopback.

aiohttp answers an `Expect` header that it does not know with 417 and the header's text, and with 500 if
that text is not UTF-8. A server may also ignore such a header (RFC 9110, section 10.1.1), which this does.

After a response aiohttp reads what is left of the request's body for a while, so that the client reads the
response before the connection is closed: as fast as the client sends. Here that is bounded in bytes too.

aiohttp bounds each field of a head, not the head. Here one that is too long is refused with 431, in its turn,
and nothing more is read. A long head is parsed in parts, in turns of the event loop that all connections share.

A client may send requests without waiting for answers. Those of all connections together are handled one
by one, each in a turn of the event loop of its own, so that nothing else waits for many of them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Final
from weakref import WeakKeyDictionary

from aiohttp import EMPTY_PAYLOAD, StreamReader, hdrs, web
from aiohttp.http import HttpProcessingError, RawRequestMessage
from aiohttp.web_protocol import _ErrInfo
from multidict import CIMultiDict, CIMultiDictProxy

from cluster import log
from cluster.addresses import peer_address
from cluster.lingering import LINGERING_SECONDS, lingering_of
from cluster.turns import turns_of

_KNOWN: Final = "100-continue"
_TOO_LARGE: Final = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE

#: A request head longer than this is refused with 431.
HEAD_LIMIT_BYTES: Final = 65_536
HEAD_TOO_LONG: Final = f"a head may have {HEAD_LIMIT_BYTES} bytes"

#: So much of a head is parsed in one turn of the event loop.
HEAD_PIECE_BYTES: Final = 4096

#: aiohttp stops parsing a body at twice as many unread bytes, or at a sixteenth as many unread chunks.
BODY_BUFFER_BYTES: Final = 16_384

#: What is read at most, within `LINGERING_SECONDS`, after a response whose request has not ended.
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


class _RefusedSocket(asyncio.Protocol):
    """A socket that lingers; nothing of its connection is left."""

    def __init__(self, closed: Callable[[], None]) -> None:
        self._closed = closed

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed()


class LingeringConnection(web.RequestHandler):
    """A connection that is closed a second after the response if the request has not ended by then."""

    __slots__ = ("_body", "_head_bytes", "_is_refused", "_lingering", "_unparsed")

    _lingering: asyncio.Timeout | None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, read_bufsize=BODY_BUFFER_BYTES, **options)
        self._lingering = None
        # Of the request that came last; what follows it is the head of another.
        self._body: StreamReader = EMPTY_PAYLOAD
        # What came of that head, but for what came in one piece with the end of the request before.
        self._head_bytes = 0
        # What waits for a turn; nothing is read meanwhile.
        self._unparsed = b""
        self._is_refused = False

    # --- reading a head in turns ---------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._unparsed:
            self._unparsed += data
        elif not self._is_refused:
            self._parse(data)

    def begin_turn(self) -> None:
        """Go on with what the last turn has left over, and read again if nothing is."""
        data, self._unparsed = self._unparsed, b""
        if self.transport is None or self._is_refused:
            return
        self._parse(data)
        if not (self._unparsed or self._reading_paused or self._buffer_paused):
            self._resume_transport_reading()

    def _parse(self, data: bytes) -> None:
        """Parse a body, or a piece of a head; if more of the head has come, go on in another turn."""
        while True:
            # Of a longer head no more is parsed; aiohttp goes on with b"" where it has paused.
            most = HEAD_LIMIT_BYTES
            if self._is_in_head():
                most = min(HEAD_PIECE_BYTES, HEAD_LIMIT_BYTES + 1 - self._head_bytes)
            self._received(data[:most])
            data = data[most:]
            if not data or self._is_refused or self.transport is None:
                return
            if self._is_in_head():
                self._unparsed = data
                self._pause_transport_reading()
                turns_of(self._loop).add(self)
                return

    def _resume_transport_reading(self) -> None:
        if not (self._unparsed or self._is_refused):
            super()._resume_transport_reading()

    def _received(self, piece: bytes) -> None:
        requests, is_head = self._request_count, self._is_in_head()
        super().data_received(piece)
        if self._request_count != requests:
            self._begin_body()
        elif is_head:
            self._head_bytes += len(piece)
            if self._head_bytes > HEAD_LIMIT_BYTES:
                self._refuse_head()

    def _is_in_head(self) -> bool:
        """Whether what comes is parsed at once, as the head of a request."""
        is_parsed = not (self._close or self._force_close or self._upgraded or self._buffer_paused)
        return is_parsed and self._body.is_eof()

    def _begin_body(self) -> None:
        self._body, self._head_bytes = self._messages[-1][1], 0

    def _refuse_head(self) -> None:
        """Answer 431 when the requests before it have their answers; nothing more is read."""
        self._is_refused = True
        error = HttpProcessingError(code=_TOO_LARGE, message=HEAD_TOO_LONG)
        # As aiohttp answers what is no HTTP.
        self._request_count += 1
        self._messages.append((_ErrInfo(_TOO_LARGE, error, HEAD_TOO_LONG), EMPTY_PAYLOAD))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        self._pause_transport_reading()
        # It holds the head; the socket stays open for a while.
        self._parser = None

    # --- the end of a response, and of the connection -------------------------------------------

    def connection_lost(self, exc: BaseException | None) -> None:
        self._end(exc)
        self.socket_closed()

    def socket_closed(self) -> None:
        """Called when the socket has been closed; a subclass may count sockets."""

    def _end(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._body, self._unparsed = EMPTY_PAYLOAD, b""
        # aiohttp tells the handler, and that has returned.
        if self._lingering is not None and not self._lingering.expired():
            self._lingering.reschedule(0.0)

    def release(self) -> asyncio.Transport | None:
        """Take the socket away from aiohttp without closing it.

        Returns:
            The transport, which needs another protocol; None if it has been closed.
        """
        transport, self.transport = self.transport, None
        self._end(None)
        return transport

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        requests = self._request_count
        finished = await super().finish_response(request, resp, start_time)
        if self._request_count != requests:
            # aiohttp may have found more behind an upgrade that was refused.
            self._begin_body()
        if self._is_refused and not self._messages:
            self._linger_refused()
        elif self.transport is not None:
            await self._linger(request.content)
        if self._messages:
            await _turn()
        return finished

    def _linger_refused(self) -> None:
        """Let the client read the response; aiohttp finds its connection lost and is done with it."""
        transport = self.release()
        if transport is not None:
            transport.set_protocol(_RefusedSocket(self.socket_closed))
            lingering_of(self._loop).add(transport)

    async def _linger(self, content: StreamReader) -> None:
        """Let the client read the response before the connection is closed, if it is to be closed."""
        if not content.is_eof():
            await self._for_a_while(_throw_away(content))
            if not content.is_eof():
                self.force_close()

    async def _for_a_while(self, lingering: Coroutine[Any, Any, None]) -> None:
        with suppress(TimeoutError, web.PayloadAccessError, ConnectionError):
            async with asyncio.timeout(LINGERING_SECONDS) as until:
                self._lingering = until
                try:
                    await lingering
                finally:
                    self._lingering = None


async def _throw_away(content: StreamReader) -> None:
    """Read the rest of a body; a long one is no longer read after `LINGERING_BYTES`."""
    left = LINGERING_BYTES
    while left > 0 and not content.is_eof():
        left -= len(await content.readany())
        # Reading what has come already awaits nothing, and lets more chunks be parsed.
        await _turn()
    if not content.is_eof():
        # aiohttp stops reading from the socket when its buffer is full.
        await asyncio.sleep(LINGERING_SECONDS)


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
