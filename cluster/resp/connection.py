"""One RESP connection: commands of one loop turn leave in one write, replies come in order.

Guarantees: replies reach their callbacks in the order of the commands; when a connection ends,
every command in flight is called back exactly once with `StoreUnavailable`; nothing is ever sent
twice. Messages that answer no command (pub/sub) are passed on as one list per read, because a
batch that grows with the load is what makes the fan-out cheap (docs/adr/0005).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, cast

import hiredis

from cluster.errors import StoreRefused, StoreUnavailable
from cluster.log import get_logger

log = get_logger()

Arg = bytes | str | int | float
#: Gets the reply that hiredis parsed, or the error that came instead of it.
Done = Callable[[Any], None]

_HIGH_WATER_BYTES = 64 * 1024 * 1024


class RespConnection(asyncio.Protocol):
    """The client's end of one connection.

    Args:
        on_messages: gets all pub/sub messages of one read; None on a connection for commands.
        on_lost: called once when the connection has ended, after all callbacks.
    """

    def __init__(
        self,
        *,
        on_lost: Callable[[], None],
        on_messages: Callable[[list[Any]], None] | None = None,
    ) -> None:
        self._reader = hiredis.Reader(replyError=_refused)
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._pending: deque[Done] = deque()
        self._on_lost = on_lost
        self._on_messages = on_messages
        self._oldest_sent_at = 0.0
        self.is_open = False

    # --- commands ------------------------------------------------------------------------

    def submit(self, args: Sequence[Arg], done: Done) -> None:
        """Send one command; `done` gets its reply, a `StoreRefused` or a `StoreUnavailable`."""
        if not self.is_open:
            done(StoreUnavailable("the store's connection is closed"))
            return
        if not self._pending:
            self._oldest_sent_at = self._loop.time()
        self._pending.append(done)
        self._queue(_pack(args))

    def send(self, args: Sequence[Arg]) -> None:
        """Send one command whose answer comes as a message (the subscribe family)."""
        if self.is_open:
            self._queue(_pack(args))

    def waiting_since(self) -> float | None:
        """Return the loop time since which a reply is awaited, or None."""
        return self._oldest_sent_at if self._pending else None

    def abort(self) -> None:
        """End the connection now; callbacks follow from `connection_lost`."""
        if self._transport is not None:
            self._transport.abort()

    def _queue(self, packed: bytes) -> None:
        out = self._out
        if not out:
            self._loop.call_soon(self._flush)
        out.append(packed)

    def _flush(self) -> None:
        out, self._out = self._out, []
        transport = self._transport
        if transport is None or not self.is_open:
            return
        transport.write(b"".join(out))
        if transport.get_write_buffer_size() > _HIGH_WATER_BYTES:
            transport.abort()

    # --- asyncio.Protocol ----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports only look like asyncio.Transport.
        self._transport = cast(asyncio.Transport, transport)
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        reader = self._reader
        reader.feed(data)
        if self._on_messages is None:
            self._read_replies(reader)
        else:
            self._read_messages(reader, self._on_messages)

    def _read_replies(self, reader: hiredis.Reader) -> None:
        pending = self._pending
        while (reply := reader.gets()) is not False:
            _call(pending.popleft(), reply)
        # The server replies in order, so any reply shows that it is alive.
        self._oldest_sent_at = self._loop.time()

    def _read_messages(
        self, reader: hiredis.Reader, on_messages: Callable[[list[Any]], None]
    ) -> None:
        messages = []
        pending = self._pending
        while (reply := reader.gets()) is not False:
            if pending and not _is_message(reply):
                _call(pending.popleft(), reply)
            else:
                messages.append(reply)
        self._oldest_sent_at = self._loop.time()
        if messages:
            _call(on_messages, messages)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self._transport = None
        self._out.clear()
        lost = StoreUnavailable("the connection to the store broke")
        while self._pending:
            _call(self._pending.popleft(), lost)
        self._on_lost()


def _pack(args: Sequence[Arg]) -> bytes:
    # The stub asks for a tuple of one; the function takes any number.
    packed: bytes = hiredis.pack_command(tuple(args))  # type: ignore[arg-type]
    return packed


def _call(back: Callable[[Any], None], reply: Any) -> None:
    """Call back; an error in one callback must not end the connection of all others."""
    try:
        back(reply)
    except Exception:
        log.exception("store_callback_failed")


_MESSAGE_KINDS = frozenset(
    {b"message", b"smessage", b"subscribe", b"ssubscribe", b"unsubscribe", b"sunsubscribe"}
)


def _is_message(reply: Any) -> bool:
    return isinstance(reply, list) and bool(reply) and reply[0] in _MESSAGE_KINDS


def _refused(text: str) -> StoreRefused:
    return StoreRefused(text)
