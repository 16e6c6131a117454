"""A socket with WebSocket frames on it: parsed messages in, bytes out.

The parser calls this object for each message, without a queue. A peer that does not read is noticed
by the transport: above the limit of unsent bytes it calls `pause_writing`, so no write checks the
buffer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from cluster.errors import (
    BAD_REQUEST_CLOSE,
    SERVER_ERROR,
    TOO_MANY_REQUESTS_CLOSE,
    Disconnect,
)
from cluster.log import get_logger
from cluster.protocol import native_pong_frame
from cluster.websocket.frame_parser import CLOSE, PING, PONG, TEXT, FrameParser

log = get_logger()

#: Most bytes of one connection that are parsed in one turn of the event loop.
READ_BYTES = 16_384

#: How long the buffer may stay full before the peer counts as one that does not read.
_SLOW_GRACE_SECONDS = 0.05

#: How often it is looked at while it is so full that the peer is not read.
_FULL_CHECK_SECONDS = 0.25

#: The headers of one message may take so many bytes; a client that sends no fragments needs 14 at most.
_HEADER_BYTES = 256


class Opening:
    """What is checked of a client's bytes until its connect: they are few.

    Args:
        most_bytes: how many bytes may come before the connect.
    """

    __slots__ = ("_bytes_left",)

    def __init__(self, most_bytes: int) -> None:
        self._bytes_left = most_bytes

    def fault(self, data: bytes) -> Disconnect | None:
        """Check the next piece of the stream; returns why the connection must be closed, or None."""
        self._bytes_left -= len(data)
        return BAD_REQUEST_CLOSE if self._bytes_left < 0 else None


class FrameProtocol(asyncio.Protocol):
    """Call `begin` with the socket; a subclass handles the messages.

    Attributes:
        write: gives whole frames to the socket, in order.
    """

    __slots__ = (
        "_is_closing", "_is_full", "_is_paused", "_is_turn_scheduled", "_most_unfinished", "_opening",
        "_parser", "_pongs", "_queue_max", "_transport", "_unfinished", "_unread", "write",
    )  # fmt: skip

    def __init__(self) -> None:
        self._parser: FrameParser | None = None
        self._transport: asyncio.Transport | None = None
        self._opening: Opening | None = None
        self._is_closing = False
        self._is_full = False
        self._is_paused = False
        self._is_turn_scheduled = False
        self._queue_max = 0
        self._unfinished = self._most_unfinished = 0
        self._pongs = b""
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
        self._parser = FrameParser(self, message_size_limit)

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
        parser, transport = self._parser, self._transport
        if parser is None or transport is None:
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
        try:
            parser.feed(data)
        except Exception:
            log.exception("frame_failed")
            self._parser = None
            self.fail(SERVER_ERROR)
        if self._pongs:
            self._answer_pings()

    def _postpone_rest(self, data: bytes) -> bytes:
        """Keep all but the first `READ_BYTES` for the turns to come, and read nothing until then.

        uvloop reads 256 KiB at once, and without a pause libuv would do so up to 32 times in this turn.
        """
        self.pause()
        self._unread = data[READ_BYTES:]
        self.schedule_turn()
        return data[:READ_BYTES]

    def message(self, opcode: int, data: bytes) -> None:
        """Handle one message or control frame that the parser has found."""
        self._unfinished = max(0, self._unfinished - len(data) - _HEADER_BYTES)
        if self._is_closing:
            if opcode == CLOSE:
                self.end()
            return
        if opcode == PING:
            self.control_frame()
            self._pongs += native_pong_frame(data)
            return
        if self._pongs:
            self._answer_pings()
        if opcode == TEXT:
            self.receive(data)
        elif opcode == PONG:
            self.control_frame()
            self.native_pong()
        elif opcode == CLOSE:
            self.closed_by_peer(int.from_bytes(data[:2], "big"))
        else:
            self.fail(BAD_REQUEST_CLOSE)

    def frame_fault(self, why: Disconnect) -> None:
        """The parser found an invalid frame; nothing more can be read."""
        if self._pongs:
            self._answer_pings()
        self.fail(why)

    def _answer_pings(self) -> None:
        """Write the pongs together, before what answers the frames behind the pings."""
        pongs, self._pongs = self._pongs, b""
        if not self._is_closing:
            self.write(pongs)

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
        self._parser = None
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
        self._parser = None
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
