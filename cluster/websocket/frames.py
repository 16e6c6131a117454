"""A socket with WebSocket frames on it: parsed messages in, bytes out.

aiohttp's reader in C parses the frames and calls this object for each message, without a queue. A
peer that does not read is noticed by the transport: above the limit of unsent bytes it calls
`pause_writing`, so no write checks the buffer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from aiohttp._websocket.reader import WebSocketDataQueue
from aiohttp.http import WebSocketError, WebSocketReader, WSMsgType

from cluster.errors import (
    BAD_REQUEST_CLOSE,
    BAD_TEXT,
    PROTOCOL_ERROR,
    SERVER_ERROR,
    TOO_BIG,
    TOO_MANY_REQUESTS_CLOSE,
    Disconnect,
)
from cluster.log import get_logger
from cluster.protocol import native_pong_frame

log = get_logger()

#: Most bytes of one connection that are parsed in one turn of the event loop.
READ_BYTES = 16_384

#: How long the buffer may stay full before the peer counts as one that does not read.
_SLOW_GRACE_SECONDS = 0.05

#: How often it is looked at while it is so full that the peer is not read.
_FULL_CHECK_SECONDS = 0.25

#: The headers of one message may take so many bytes; a client that sends no fragments needs 14 at most.
_HEADER_BYTES = 256

_FRAME_FAULTS = {1007: BAD_TEXT, 1009: TOO_BIG}


class Opening:
    """What is checked of a client's bytes until its connect: they are masked, and they are few.

    aiohttp's reader accepts unmasked frames too; RFC 6455 §5.1 says 1002. A client masks always or
    never, so the second byte of its first frame decides, in whichever piece of the stream it comes.

    Args:
        most_bytes: how many bytes may come before the connect.
    """

    __slots__ = ("_bytes_left", "_until_mask")

    def __init__(self, most_bytes: int) -> None:
        self._bytes_left = most_bytes
        self._until_mask = 1

    def fault(self, data: bytes) -> Disconnect | None:
        """Check the next piece of the stream; returns why the connection must be closed, or None."""
        self._bytes_left -= len(data)
        if self._bytes_left < 0:
            return BAD_REQUEST_CLOSE
        at, self._until_mask = self._until_mask, self._until_mask - len(data)
        if 0 <= at < len(data) and not data[at] & 0x80:
            return PROTOCOL_ERROR
        return None


class FrameProtocol(WebSocketDataQueue, asyncio.Protocol):
    """Call `begin` with the socket; a subclass handles the messages.

    Attributes:
        write: gives whole frames to the socket, in order.
    """

    __slots__ = (
        "_is_closing", "_is_full", "_is_paused", "_is_turn_scheduled", "_most_unfinished", "_opening",
        "_ping", "_queue_max", "_reader", "_transport", "_unfinished", "_unread", "write",
    )  # fmt: skip

    def __init__(self) -> None:
        # The base class's queue stays unused: messages are handled as they are parsed.
        self._reader: WebSocketReader | None = None
        self._transport: asyncio.Transport | None = None
        self._opening: Opening | None = None
        self._is_closing = False
        self._is_full = False
        self._is_paused = False
        self._is_turn_scheduled = False
        self._ping: bytes | None = None
        self._queue_max = 0
        self._unfinished = self._most_unfinished = 0
        self._unread = b""
        self.write: Callable[[bytes], None] = _write_nowhere

    def begin(self, transport: asyncio.Transport, message_size_limit: int, queue_max: int) -> None:
        """Read from and write to this socket from now on."""
        self._transport = transport
        self.write = transport.write
        self._queue_max = queue_max
        # One mark for both: the transport then calls each time the buffer passes it.
        transport.set_write_buffer_limits(high=queue_max, low=queue_max)
        # One message whose end is missing, and as much again for the headers of fragments.
        self._most_unfinished = 2 * message_size_limit + _HEADER_BYTES
        # A connect, with the commands that SDKs send in one message with it.
        self._opening = Opening(2 * message_size_limit)
        self._reader = WebSocketReader(self, message_size_limit, False, False)

    # --- what a subclass handles ---------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Handle a text message."""
        raise NotImplementedError

    def control_frame(self) -> None:
        """Handle that a ping or pong frame has come, before what it asks for."""
        raise NotImplementedError

    def native_pong(self) -> None:
        """Handle a pong frame."""
        raise NotImplementedError

    def next_turn(self) -> None:
        """Go on with what the last turn's limits have left over, and read again if nothing is."""
        raise NotImplementedError

    def fail(self, why: Disconnect) -> None:
        """Close: the peer has violated the WebSocket protocol, or handling it failed."""
        raise NotImplementedError

    def closed_by_peer(self, code: int) -> None:
        """Handle a close frame; `code` is 0 if it carries none."""
        raise NotImplementedError

    def throttled(self) -> None:
        """Handle that the peer is not read until it has read."""
        raise NotImplementedError

    def peer_stalled(self) -> None:
        """Handle that the peer does not read."""
        raise NotImplementedError

    # --- from the socket -----------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Parse what was read, and handle its messages."""
        reader, transport = self._reader, self._transport
        if reader is None or transport is None:
            return
        if transport.get_write_buffer_size() > self._queue_max >> 2 and not self._is_closing:
            self._unread = data
            self._wait_for_output(transport)
            return
        if len(data) > READ_BYTES:
            data = self._postpone_rest(data)
        if self._opening is not None:
            why = self._opening.fault(data)
            if why is not None:
                self.fail(why)
                return
        self._unfinished += len(data)
        if self._unfinished > self._most_unfinished:
            self.fail(TOO_MANY_REQUESTS_CLOSE)
            return
        reader.feed_data(data)
        if self._ping is not None:
            ping, self._ping = self._ping, None
            self.write(native_pong_frame(ping))

    def _postpone_rest(self, data: bytes) -> bytes:
        """Keep all but the first `READ_BYTES` for the turns to come, and read nothing until then.

        uvloop reads 256 KiB at once, and without a pause libuv would do so up to 32 times in this turn.
        """
        self.pause()
        self._unread = data[READ_BYTES:]
        self.schedule_turn()
        return data[:READ_BYTES]

    def feed_data(self, message: Any, size: int) -> None:
        """Handle one message that the reader has parsed."""
        kind, data, _ = message
        if self._is_closing:
            if kind is WSMsgType.CLOSE:
                self.end()
        elif kind is WSMsgType.TEXT:
            self.receive(data)
        elif kind is WSMsgType.BINARY:
            self.fail(BAD_REQUEST_CLOSE)
        elif kind is WSMsgType.PING:
            self.control_frame()
            # RFC 6455, section 5.5.3: of several pings only the last one need be answered.
            self._ping = data
        elif kind is WSMsgType.PONG:
            self.control_frame()
            self.native_pong()
        elif kind is WSMsgType.CLOSE:
            self.closed_by_peer(data)

    def set_exception(self, exc: BaseException, exc_cause: Any = None) -> None:
        """The reader found an invalid frame; nothing more can be read."""
        if isinstance(exc, WebSocketError):
            self.fail(_FRAME_FAULTS.get(exc.code, PROTOCOL_ERROR))
        else:
            log.error("frame_failed", exc_info=exc)
            self.fail(SERVER_ERROR)

    def feed_eof(self) -> None:
        """Called by the reader at the end of the stream; `connection_lost` handles that."""

    def _wait_for_output(self, transport: asyncio.Transport) -> None:
        """Read and handle nothing until the peer has read: a quarter of `queue_max` is unsent.

        The transport calls `resume_writing` when half of that is left.
        """
        self.pause()
        self._is_full = self._is_turn_scheduled = True
        self.throttled()
        mark = self._queue_max >> 2
        transport.set_write_buffer_limits(high=mark, low=mark >> 1)
        asyncio.get_running_loop().call_later(_FULL_CHECK_SECONDS, self._check_full, False)

    def _check_full(self, was_above: bool) -> None:
        """While the transport watches the lower mark, watch the limit of unsent bytes here."""
        transport = self._transport
        if transport is None or self._is_closing or not self._is_full:
            return
        is_above = transport.get_write_buffer_size() > self._queue_max
        if is_above and was_above:
            self.peer_stalled()
            return
        wait = _SLOW_GRACE_SECONDS if is_above else _FULL_CHECK_SECONDS
        asyncio.get_running_loop().call_later(wait, self._check_full, is_above)

    def pause_writing(self) -> None:
        if not self._is_full:
            asyncio.get_running_loop().call_later(_SLOW_GRACE_SECONDS, self._check_stalled)

    def resume_writing(self) -> None:
        if self._is_full and self._transport is not None:
            self._is_full = self._is_turn_scheduled = False
            self._transport.set_write_buffer_limits(high=self._queue_max, low=self._queue_max)
            self.schedule_turn()

    def _check_stalled(self) -> None:
        transport = self._transport
        if transport is None or self._is_closing:
            return
        if transport.get_write_buffer_size() > self._queue_max:
            self.peer_stalled()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._reader = None
        self._unread = b""
        self.write = _write_nowhere

    # --- to the socket -------------------------------------------------------------------------

    def schedule_turn(self, delay_seconds: float = 0.0) -> None:
        """Call `next_turn` in the next turn of the event loop, or later; until then nothing is read."""
        if not self._is_turn_scheduled:
            self._is_turn_scheduled = True
            loop = asyncio.get_running_loop()
            if delay_seconds:
                self.pause()
                loop.call_later(delay_seconds, self._begin_turn)
            else:
                loop.call_soon(self._begin_turn)

    def _begin_turn(self) -> None:
        transport = self._transport
        if transport is None or self._is_full:
            return
        if transport.get_write_buffer_size() > self._queue_max >> 2 and not self._is_closing:
            self._wait_for_output(transport)
            return
        self._is_turn_scheduled = False
        self.next_turn()
        if self._unread and not self._is_turn_scheduled:
            data, self._unread = self._unread, b""
            self.data_received(data)
            # Reading goes on in `next_turn`, also if these bytes were no whole message.
            self.schedule_turn()

    def found_message(self, size: int) -> None:
        """Tell the limit of fragments that a whole message of so many bytes was among what was read."""
        self._unfinished = max(0, self._unfinished - size - _HEADER_BYTES)

    def pause(self) -> None:
        """Stop reading until `resume`."""
        if not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Go on reading, unless bytes that have been read wait to be parsed."""
        if self._is_paused and self._transport is not None and not self._unread:
            self._is_paused = False
            self._transport.resume_reading()

    def stop_reading(self) -> None:
        """Read nothing more, for good."""
        self.pause()
        self._reader = None
        # `resume` finds nothing to do.
        self._is_paused = False
        self._unread = b""

    def end(self) -> None:
        """Close the socket once everything written has been sent; the server aborts it if that takes too long."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close the socket now."""
        if self._transport is not None:
            self._transport.abort()


def _write_nowhere(data: bytes) -> None:
    """Stands in for the transport's `write` before and after the connection."""
