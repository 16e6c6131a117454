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
    Disconnect,
)
from cluster.log import get_logger
from cluster.protocol import native_pong_frame

log = get_logger()

#: Most bytes of one connection that are parsed in one turn of the event loop.
READ_BYTES = 16_384

#: How long the buffer may stay full before the peer counts as one that does not read.
_SLOW_GRACE_SECONDS = 0.05

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
        "_is_closing", "_is_paused", "_is_turn_scheduled", "_opening", "_ping", "_reader",
        "_transport", "_unread", "write",
    )  # fmt: skip

    def __init__(self) -> None:
        # The base class's queue stays unused: messages are handled as they are parsed.
        self._reader: WebSocketReader | None = None
        self._transport: asyncio.Transport | None = None
        self._opening: Opening | None = None
        self._is_closing = False
        self._is_paused = False
        self._is_turn_scheduled = False
        self._ping: bytes | None = None
        self._unread = b""
        self.write: Callable[[bytes], None] = _write_nowhere

    def begin(self, transport: asyncio.Transport, message_size_limit: int, queue_max: int) -> None:
        """Read from and write to this socket from now on."""
        self._transport = transport
        self.write = transport.write
        # One mark for both: the transport then calls each time the buffer passes it.
        transport.set_write_buffer_limits(high=queue_max, low=queue_max)
        # A connect, with the commands that SDKs send in one message with it.
        self._opening = Opening(2 * message_size_limit)
        self._reader = WebSocketReader(self, message_size_limit, False, False)

    # --- what a subclass handles ---------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Handle a text message."""
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

    def peer_stalled(self) -> None:
        """Handle that the peer does not read."""
        raise NotImplementedError

    # --- from the socket -----------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Parse what was read, and handle its messages."""
        reader = self._reader
        if reader is None:
            return
        if len(data) > READ_BYTES:
            data = self._postpone_rest(data)
        if self._opening is not None:
            why = self._opening.fault(data)
            if why is not None:
                self.fail(why)
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
            # RFC 6455, section 5.5.3: of several pings only the last one need be answered.
            self._ping = data
        elif kind is WSMsgType.PONG:
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

    def pause_writing(self) -> None:
        asyncio.get_running_loop().call_later(_SLOW_GRACE_SECONDS, self._check_stalled)

    def resume_writing(self) -> None:
        """Nothing waits for it."""

    def _check_stalled(self) -> None:
        transport = self._transport
        if transport is None or self._is_closing:
            return
        if transport.get_write_buffer_size() > transport.get_write_buffer_limits()[1]:
            self.peer_stalled()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._reader = None
        self._unread = b""
        self.write = _write_nowhere

    # --- to the socket -------------------------------------------------------------------------

    def schedule_turn(self) -> None:
        """Call `next_turn` in the next turn of the event loop."""
        if not self._is_turn_scheduled:
            self._is_turn_scheduled = True
            asyncio.get_running_loop().call_soon(self._begin_turn)

    def _begin_turn(self) -> None:
        self._is_turn_scheduled = False
        self.next_turn()
        if self._unread and not self._is_turn_scheduled:
            data, self._unread = self._unread, b""
            self.data_received(data)
            # Reading goes on in `next_turn`, also if these bytes were no whole message.
            self.schedule_turn()

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
