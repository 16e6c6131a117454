"""WebSocket frames of a client: parsed messages in, bytes out (RFC 6455, section 5).

The parser calls the protocol for each message, without a queue. Rules of the parser
- No socket and no clock. One call handles everything that it is given and keeps what is incomplete.
- A fault is reported once, as early as its bytes allow: a forbidden header before its payload, and
  invalid UTF-8 in the middle of a message that comes in pieces. Nothing is parsed after a fault or a
  close frame.
- A whole text message in one frame, read at once, is handed over unexamined: its JSON decoder checks
  the UTF-8. No extension is negotiated, so the reserved bits must be 0.
- At most `limit` bytes of a message are kept, and 131 of a header or a control frame.
"""

from __future__ import annotations

import asyncio
import codecs
from typing import Final, Protocol

from aiohttp._websocket.helpers import websocket_mask

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
from cluster.websocket.pacing import READ_BYTES_WHILE_OTHERS_WAIT, PacedProtocol

log = get_logger()

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

_OPCODES: Final = frozenset({CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG})
_FINAL: Final = 0x80
_SHORT_HEADER: Final = 6
_WHOLE_TEXT: Final = _FINAL | TEXT
_MOST_CONTROL_BYTES: Final = 125

#: Close codes that a peer may send (RFC 6455, section 7.4, and its registry at IANA): those from 3000
#: to 4999 belong to libraries and applications.
_CLOSE_CODES: Final = frozenset({*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)})

_decoder = codecs.getincrementaldecoder("utf-8")

#: Most frames of one connection that are parsed in one turn of the event loop.
FRAMES_PER_TURN: Final = 128

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

    def comes_again(self, data: bytes) -> None:
        """The end of that piece is parsed, and checked, in a later turn."""
        self._bytes_left += len(data)


class FrameProtocol(PacedProtocol):
    """Call `begin` with the socket; a subclass handles the messages."""

    __slots__ = ("_most_unfinished", "_opening", "_parser", "_pongs", "_unfinished")

    def __init__(self) -> None:
        super().__init__()
        self._parser: FrameParser | None = None
        self._opening: Opening | None = None
        self._unfinished = self._most_unfinished = 0
        self._pongs = b""

    def begin(self, transport: asyncio.Transport, message_size_limit: int, queue_max: int) -> None:
        """Read from and write to this socket from now on."""
        self.watch(transport, queue_max)
        # One message whose end is missing, and as much again for the headers of fragments.
        self._most_unfinished = 2 * message_size_limit + _HEADER_BYTES
        # A connect, with the commands that SDKs send in one message with it.
        self._opening = Opening(2 * message_size_limit)
        self._parser = FrameParser(self, message_size_limit)

    # --- what a subclass handles ---------------------------------------------------------------

    def data_arrived(self) -> None:
        """Called when something was read in this turn of the event loop, before it is parsed."""

    def receive(self, data: bytes) -> None:
        """Handle a text message."""
        raise NotImplementedError

    def receive_binary(self, data: bytes) -> None:
        """Handle a binary message."""
        raise NotImplementedError

    def control_frame(self) -> None:
        """Handle that a ping or pong frame has come, before what it asks for."""
        raise NotImplementedError

    def native_pong(self) -> None:
        """Handle a pong frame."""
        raise NotImplementedError

    def fail(self, why: Disconnect) -> None:
        """Close: the peer has violated the WebSocket protocol, or handling it failed."""
        raise NotImplementedError

    def closed_by_peer(self, code: int) -> None:
        """Handle a close frame; `code` is 0 if it carries none."""
        raise NotImplementedError

    # --- from the socket -----------------------------------------------------------------------

    def data_received(self, data: bytes | memoryview) -> None:
        """Parse what was read, and handle its messages."""
        parser, transport = self._parser, self._transport
        if parser is None or transport is None:
            return
        if transport.get_write_buffer_size() > self._queue_max >> 2 and not self._is_closing:
            self._unread = data
            self._wait_for_output(transport)
            return
        if not self._has_turn:
            self.data_arrived()
        if len(data) > READ_BYTES_WHILE_OTHERS_WAIT or type(data) is memoryview:
            data = self._first_part(data)
        elif (
            not (self._unfinished or self._is_closing)
            and (text := parser.whole_text(data)) is not None
        ):
            # Most reads are this. Nothing below has more to do for it.
            if self._opening is not None and (why := self._opening.fault(data)) is not None:
                self.fail(why)
                return
            try:
                self.receive(text)
            except Exception:
                log.exception("frame_failed")
                self._fail_for_good()
            return
        self._unfinished += len(data)
        if self._is_closing:
            if self._unfinished > self._most_unfinished:
                # Its answer to the close frame has not come; `abort` follows.
                self.stop_reading()
                return
        elif self._opening is not None and (why := self._opening.fault(data)) is not None:
            self.fail(why)
            return
        elif self._unfinished > self._most_unfinished:
            self.fail(TOO_MANY_REQUESTS_CLOSE)
            return
        try:
            later = parser.feed(data)
        except Exception:
            log.exception("frame_failed")
            self._fail_for_good()
        else:
            if later:
                self._unfinished = max(0, self._unfinished - len(later))
                if self._opening is not None:
                    self._opening.comes_again(later)
                self._go_on_later(later)
        if self._pongs:
            self._answer_pings()

    def _fail_for_good(self) -> None:
        self._parser = None
        self.fail(SERVER_ERROR)

    def message(self, opcode: int, data: bytes) -> None:
        """Handle one message or control frame that the parser has found."""
        if self._is_closing:
            if opcode == CLOSE:
                self.end()
            return
        self._unfinished = max(0, self._unfinished - len(data) - _HEADER_BYTES)
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
        elif opcode == BINARY:
            self.receive_binary(data)
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

    def stop_reading(self) -> None:
        super().stop_reading()
        self._parser = None

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._parser = None


class FrameHandler(Protocol):
    """What a parser calls."""

    def message(self, opcode: int, data: bytes) -> None:
        """Handle a text or binary message, or a control frame; a close frame's data is valid."""

    def frame_fault(self, why: Disconnect) -> None:
        """Close: what came is no valid frame."""


class _Partial:
    """A message whose end has not come yet.

    Attributes:
        opcode: of its first frame.
        data: what came of it, unmasked.
        left: how many bytes of the current frame are still to come.
        mask: of the current frame, turned so that it begins with the next byte.
        is_final: whether the current frame ends the message.
    """

    __slots__ = ("_utf8", "data", "is_final", "left", "mask", "opcode")

    def __init__(self, opcode: int) -> None:
        self.opcode = opcode
        self.data = bytearray()
        self.left = 0
        self.mask = b""
        self.is_final = False
        self._utf8 = _decoder() if opcode == TEXT else None

    def add(self, masked: bytes) -> None:
        """Append bytes of the current frame.

        Raises:
            UnicodeDecodeError: the text is invalid, whatever follows.
        """
        piece, mask = bytearray(masked), self.mask
        websocket_mask(mask, piece)
        turn = len(masked) % 4
        self.mask = mask[turn:] + mask[:turn]
        self.left -= len(masked)
        if self._utf8 is not None:
            self._utf8.decode(piece, self.is_final and not self.left)
        self.data += piece


class FrameParser:
    """Parses the frames of one client.

    Args:
        limit: most bytes of a message.
    """

    __slots__ = ("_handler", "_is_over", "_limit", "_partial", "_rest")

    def __init__(self, handler: FrameHandler, limit: int) -> None:
        self._handler = handler
        self._limit = limit
        self._is_over = False
        self._partial: _Partial | None = None
        self._rest = b""

    def whole_text(self, data: bytes) -> bytes | None:
        """The text message that `data` is, in one frame and nothing else; None: `feed` takes it."""
        size = len(data)
        if size < _SHORT_HEADER or data[0] != _WHOLE_TEXT:
            return None
        start, length = _SHORT_HEADER, data[1] - 0x80
        if length == 126 and size >= 8:
            start, length = 8, data[2] << 8 | data[3]
        elif not 0 <= length < 126:
            return None
        if (
            start + length != size
            or length > self._limit
            or self._rest
            or self._is_over
            or self._partial is not None
        ):
            return None
        payload = bytearray(data[start:])
        websocket_mask(data[start - 4 : start], payload)
        return bytes(payload)

    def feed(self, data: bytes) -> bytes:
        """Parse the next piece of the stream; returns what comes after `FRAMES_PER_TURN` frames."""
        if self._is_over:
            return b""
        if self._rest:
            data, self._rest = self._rest + data, b""
        partial = self._partial
        at = self._continue(data) if partial is not None and partial.left else 0
        size = len(data)
        frames_left = FRAMES_PER_TURN
        while size - at >= 2 and not self._is_over:
            if not frames_left:
                return data[at:]
            frames_left -= 1
            first, length = data[at], data[at + 1] - 0x80
            if (first != _WHOLE_TEXT or length < 0 or self._partial is not None) and (
                _is_forbidden(first, length, self._partial)
            ):
                self._fail(PROTOCOL_ERROR)
                return b""
            start = at + 6
            if length == 126:
                start += 2
                if size < at + 4:
                    break
                length = data[at + 2] << 8 | data[at + 3]
            elif length == 127:
                start += 8
                if size < at + 10:
                    break
                length = int.from_bytes(data[at + 2 : at + 10], "big")
            end = start + length
            if first == _WHOLE_TEXT and end <= size and length <= self._limit:
                at = end
                payload = bytearray(data[start:end])
                websocket_mask(data[start - 4 : start], payload)
                self._handler.message(TEXT, bytes(payload))
            elif first & 0x08:
                if end > size:
                    break
                at = end
                self._control(first & 0x0F, data[start - 4 : start], data[start:end])
            elif self._is_too_big(length):
                self._fail(TOO_BIG)
            elif start > size:
                break
            else:
                at = self._begin(first, length, data, start)
        if at < size and not self._is_over:
            self._rest = data[at:]
        return b""

    def _is_too_big(self, length: int) -> bool:
        partial = self._partial
        return length > self._limit - (len(partial.data) if partial is not None else 0)

    def _begin(self, first: int, length: int, data: bytes, start: int) -> int:
        """Begin a frame of a message that comes in pieces; returns where the next frame starts."""
        partial = self._partial
        if partial is None:
            partial = self._partial = _Partial(first & 0x0F)
        partial.left = length
        partial.mask = data[start - 4 : start]
        partial.is_final = first >= _FINAL
        return self._continue(data, start)

    def _continue(self, data: bytes, start: int = 0) -> int:
        """Take what came of the current frame; returns where the next one starts."""
        partial = self._partial
        assert partial is not None
        end = min(start + partial.left, len(data))
        try:
            partial.add(data[start:end])
        except UnicodeDecodeError:
            self._fail(BAD_TEXT)
            return end
        if partial.is_final and not partial.left:
            self._partial = None
            self._handler.message(partial.opcode, bytes(partial.data))
        return end

    def _control(self, opcode: int, mask: bytes, masked: bytes) -> None:
        unmasked = bytearray(masked)
        websocket_mask(mask, unmasked)
        payload = bytes(unmasked)
        if opcode == CLOSE:
            why = _close_fault(payload)
            if why is not None:
                self._fail(why)
                return
            self._is_over = True
        self._handler.message(opcode, payload)

    def _fail(self, why: Disconnect) -> None:
        self._is_over = True
        self._partial = None
        self._handler.frame_fault(why)


def _is_forbidden(first: int, length: int, partial: _Partial | None) -> bool:
    """Whether a header must not come here; `length` is the 7-bit length, negative without a mask."""
    opcode = first & 0x0F
    if length < 0 or first & 0x70 or opcode not in _OPCODES:
        return True
    if opcode >= CLOSE:
        return first < _FINAL or length > _MOST_CONTROL_BYTES
    return (opcode == CONTINUATION) == (partial is None)


def _close_fault(payload: bytes) -> Disconnect | None:
    """What is wrong with the payload of a close frame (RFC 6455, sections 5.5.1 and 7.4)."""
    if not payload:
        return None
    if len(payload) == 1 or int.from_bytes(payload[:2], "big") not in _CLOSE_CODES:
        return PROTOCOL_ERROR
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        return BAD_TEXT
    return None
