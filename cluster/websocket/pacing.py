"""A socket whose peer is read as fast as its messages are handled, and no faster than it reads.

What one peer makes this process do in a turn of the event loop is what all others wait for: a part
of what was read is handled, and reading pauses until the next turn has come to the rest. A peer that
does not read is not read either; above the limit of unsent bytes it counts as stalled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from cluster.lingering import send_eof
from cluster.turns import turns_of

#: Most bytes of one connection that are parsed in one turn of the event loop.
READ_BYTES = 16_384

#: Most bytes that are parsed at once while other connections wait for their turn.
READ_BYTES_WHILE_OTHERS_WAIT = 256

#: How long the buffer may stay full before the peer counts as one that does not read.
_SLOW_GRACE_SECONDS = 0.05

#: How often it is looked at while it is so full that the peer is not read.
_FULL_CHECK_SECONDS = 0.25


class PacedProtocol(asyncio.Protocol):
    """Call `begin` with the socket; a subclass handles what is read.

    Attributes:
        write: gives bytes to the socket, in order.
    """

    __slots__ = (
        "_has_turn", "_is_closing", "_is_full", "_is_paused", "_is_turn_scheduled", "_queue_max", "_transport",
        "_unread", "write",
    )  # fmt: skip

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._is_closing = False
        self._has_turn = False
        self._is_full = False
        self._is_paused = False
        self._is_turn_scheduled = False
        self._queue_max = 0
        self._unread: bytes | memoryview = b""
        self.write: Callable[[bytes], None] = _write_nowhere

    def watch(self, transport: asyncio.Transport, queue_max: int) -> None:
        """Write to this socket, of which at most `queue_max` bytes may be unsent."""
        self._transport = transport
        self.write = transport.write
        self._queue_max = queue_max
        # One mark for both: the transport then calls each time the buffer passes it.
        transport.set_write_buffer_limits(high=queue_max, low=queue_max)

    # --- what a subclass handles ---------------------------------------------------------------

    def data_received(self, data: bytes | memoryview) -> None:
        """Parse what was read; in its turn a connection gets a view of what it has kept."""
        raise NotImplementedError

    def next_turn(self) -> None:
        """Go on with what the last turn's limits have left over, and read again if nothing is."""
        raise NotImplementedError

    def throttled(self) -> None:
        """Handle that the peer is not read until it has read."""
        raise NotImplementedError

    def peer_stalled(self) -> None:
        """Handle that the peer does not read."""
        raise NotImplementedError

    # --- reading in turns ----------------------------------------------------------------------

    def _first_part(self, data: bytes | memoryview) -> bytes:
        """What may be parsed now; the rest is kept for the turns to come, and nothing is read until then.

        uvloop reads 256 KiB at once, and without a pause libuv would do so up to 32 times in this turn.
        """
        most = READ_BYTES
        if not self._has_turn and turns_of(asyncio.get_running_loop()).are_taken:
            most = READ_BYTES_WHILE_OTHERS_WAIT
        if len(data) <= most:
            return bytes(data)
        self.pause()
        # A view: of a part the rest would be copied in every turn.
        self._unread = memoryview(data)[most:]
        self.schedule_turn()
        return bytes(data[:most])

    def _go_on_later(self, data: bytes) -> None:
        """Parse these bytes, the end of what was to be parsed now, in the next turn, before what is unread."""
        self.pause()
        unread = self._unread
        if isinstance(unread, memoryview):
            # They lie directly before it.
            self._unread = memoryview(unread.obj)[-len(unread) - len(data) :]
        else:
            self._unread = data
        self.schedule_turn()

    def schedule_turn(self, delay_seconds: float = 0.0) -> None:
        """Call `next_turn` in the next turn of the event loop, or later; until then nothing is read."""
        if not self._is_turn_scheduled:
            self._is_turn_scheduled = True
            if delay_seconds:
                self.pause()
                asyncio.get_running_loop().call_later(delay_seconds, self._wait_for_turn)
            else:
                self._wait_for_turn()

    def _wait_for_turn(self) -> None:
        turns_of(asyncio.get_running_loop()).add(self)

    def begin_turn(self) -> None:
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
            self._has_turn = True
            try:
                self.data_received(data)
            finally:
                self._has_turn = False
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
        # `resume` finds nothing to do.
        self._is_paused = False
        self._unread = b""

    def end(self) -> None:
        """Send what has been written and no more; what still arrives is thrown away until the peer closes.

        If the socket were closed at once, a proxy that still sends for the client would find it closed and
        might throw away what it has not read. The server aborts it if the peer takes too long.
        """
        transport = self._transport
        if transport is not None and not transport.is_closing():
            self.write = _write_nowhere
            send_eof(transport)
            self._unread = b""
            self.resume()

    @property
    def unsent_bytes(self) -> int:
        """What was written and is not in the kernel yet."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def abort(self) -> None:
        """Close the socket now."""
        if self._transport is not None:
            self._transport.abort()

    # --- a peer that does not read -------------------------------------------------------------

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
        self._unread = b""
        self.write = _write_nowhere


def _write_nowhere(data: bytes) -> None:
    """Stands in for the transport's `write` before and after the connection."""
