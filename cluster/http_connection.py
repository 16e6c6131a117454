"""One connection of an aiohttp server, with bounds for what its client may make the others wait for.

Rules
- A head has a limit as a whole; aiohttp bounds each of its fields. One that is too long is refused with 431, in
  its turn, nothing more is read, and only its socket lingers.
- Heads, and bodies in chunks, which may be of one byte, are parsed in pieces, in turns of the event loop that all
  busy connections share.
- A client may send requests without waiting for answers. Those of all connections together are handled one by
  one, each in a turn of the event loop of its own.
- After a response aiohttp reads what is left of the request's body for a while, so that the client reads the
  response before the connection is closed: as fast as the client sends. Here that is bounded in bytes too.
- A client that reads nothing of its responses for `STALLED_SECONDS` is closed, and after the last one for
  `CLOSING_SECONDS`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Final, cast
from weakref import WeakKeyDictionary

from aiohttp import EMPTY_PAYLOAD, StreamReader, web
from aiohttp.http import HttpProcessingError
from aiohttp.web_protocol import _ErrInfo

from cluster.lingering import LINGERING_SECONDS, lingering_of
from cluster.turns import turns_of

_TOO_LARGE: Final = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE

#: A request head longer than this is refused with 431.
HEAD_LIMIT_BYTES: Final = 65_536
HEAD_TOO_LONG: Final = f"a head may have {HEAD_LIMIT_BYTES} bytes"

BODY_UNREADABLE: Final = "the body is not what Content-Encoding or Transfer-Encoding say"

#: So much of a head, or of a body in chunks, is parsed in one turn of the event loop.
PIECE_BYTES: Final = 4096

#: aiohttp stops parsing a body at twice as many unread bytes, or at a sixteenth as many unread chunks.
BODY_BUFFER_BYTES: Final = 16_384

#: What is read at most, within `LINGERING_SECONDS`, after a response whose request has not ended.
LINGERING_BYTES: Final = 1 << 20

#: How long a client may read nothing while a response waits for it, and after the last one has been written.
STALLED_SECONDS: Final = 30.0
CLOSING_SECONDS: Final = 5.0


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
    """A connection of an `HttpRunner`."""

    __slots__ = (
        "_body",
        "_head_bytes",
        "_is_chunked",
        "_is_refused",
        "_is_waiting",
        "_lingering",
        "_socket",
        "_stalled",
        "_unparsed",
    )

    _lingering: asyncio.Timeout | None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, read_bufsize=BODY_BUFFER_BYTES, **options)
        self._lingering = None
        # Until it is closed, or another protocol's; aiohttp lets go of its transport before.
        self._socket: asyncio.Transport | None = None
        self._stalled: asyncio.TimerHandle | None = None
        # Of the request that came last; what follows it is the head of another.
        self._body: StreamReader = EMPTY_PAYLOAD
        # What came of that head, but for what came in one piece with the end of the request before.
        self._head_bytes = 0
        self._is_chunked = False
        # What waits for a turn; nothing is read meanwhile.
        self._unparsed = b""
        self._is_waiting = False
        self._is_refused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports only look like asyncio.Transport.
        self._socket = cast(asyncio.Transport, transport)
        super().connection_made(transport)

    # --- reading in turns -------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if not self._unparsed:
            self._parse(data)
        elif data:
            self._unparsed += data
        else:
            # aiohttp goes on with what it has kept in a pause.
            self._received(data)

    def begin_turn(self) -> None:
        """Go on with what the last turn has left over, and read again if nothing is."""
        self._is_waiting = False
        if self.transport is None or self._is_held():
            return
        data, self._unparsed = self._unparsed, b""
        self._parse(data)
        if not self._is_held():
            self._resume_transport_reading()

    def _parse(self, data: bytes) -> None:
        """Parse what has come: of heads and chunks a piece, and the next one in another turn."""
        while not self._is_refused:
            # Of a longer head no more is parsed.
            most = HEAD_LIMIT_BYTES
            if self._goes_in_turns():
                most = min(PIECE_BYTES, HEAD_LIMIT_BYTES + 1 - self._head_bytes)
            self._received(data[:most])
            data = data[most:]
            if not data or self.transport is None:
                return
            if self._goes_in_turns() and not self._is_refused:
                self._unparsed = data
                self._pause_transport_reading()
                self._wait()
                return

    def _goes_in_turns(self) -> bool:
        """Whether the next byte may be anything that takes long to parse: not one of a body of known length."""
        return (self._is_chunked or self._body.is_eof()) and not self._upgraded

    def _is_held(self) -> bool:
        """Whether aiohttp reads nothing now: a body is not read yet, or many requests wait for their answers."""
        return self._reading_paused or self._buffer_paused

    def _wait(self) -> None:
        """Wait for a turn; aiohttp calls `_resume_transport_reading` when it has been paused."""
        if not (self._is_waiting or self._is_held()):
            self._is_waiting = True
            turns_of(self._loop).add(self)

    def _resume_transport_reading(self) -> None:
        if self._unparsed:
            self._wait()
        elif not self._is_refused:
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
        message, self._body = self._messages[-1]
        self._is_chunked = not isinstance(message, _ErrInfo) and message.chunked
        self._head_bytes = 0

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

    # --- a client that does not read ----------------------------------------------------------------

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_writing(STALLED_SECONDS)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()

    def _watch_writing(self, seconds: float) -> None:
        """Close the connection when nothing of what is unsent has been read for so long."""
        if self._socket is not None and (unsent := self._socket.get_write_buffer_size()):
            self._stalled = self._loop.call_later(seconds, self._close_if_stalled, unsent, seconds)

    def _close_if_stalled(self, unsent: int, seconds: float) -> None:
        if self._socket is None:
            return
        left = self._socket.get_write_buffer_size()
        if left >= unsent:
            self._socket.abort()
        else:
            self._stalled = self._loop.call_later(seconds, self._close_if_stalled, left, seconds)

    async def start(self) -> None:
        try:
            await super().start()
        finally:
            # aiohttp closes the connection, and waits until all has been sent.
            self._watch_writing(CLOSING_SECONDS)

    # --- answers ------------------------------------------------------------------------------------

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what a handler raised; 400 if the body was not what its headers say."""
        if isinstance(exc, web.RequestPayloadError):
            status, message = HTTPStatus.BAD_REQUEST, BODY_UNREADABLE
        return super().handle_error(request, status, exc, message)

    # --- the end of a response, and of the connection -------------------------------------------

    def connection_lost(self, exc: BaseException | None) -> None:
        self._end(exc)
        self.socket_closed()

    def socket_closed(self) -> None:
        """Called when the socket has been closed; a subclass may count sockets."""

    def _end(self, exc: BaseException | None) -> None:
        self._socket = None
        if self._stalled is not None:
            self._stalled.cancel()
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
