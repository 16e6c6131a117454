"""Lingering close: a socket whose request was refused stays open for a while, not read, and is then closed.

To close a socket with unread data discards what its client has not read yet. A client that floods is not read
meanwhile, and does not soon have a connection in place of this one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import Final
from weakref import WeakKeyDictionary

LINGERING_SECONDS: Final = 1.0

#: So many sockets may linger at a time; for one more the first is closed.
MOST_LINGERING: Final = 256


class LingeringSockets:
    """The sockets of one event loop that linger, in the order in which they were refused."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        # Some have ended: that of a client that has left is noticed when it is closed.
        self._waiting: deque[tuple[float, asyncio.Transport]] = deque()
        self._is_scheduled = False

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, transport: asyncio.Transport) -> None:
        """Send what was written, read nothing, and close the socket in a while."""
        send_eof(transport)
        if transport.is_closing():
            return
        transport.pause_reading()
        while len(self._waiting) >= MOST_LINGERING:
            self._waiting.popleft()[1].abort()
        self._waiting.append((self._loop.time() + LINGERING_SECONDS, transport))
        self._schedule()

    def _schedule(self) -> None:
        if self._waiting and not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_at(self._waiting[0][0], self._close_due)

    def _close_due(self) -> None:
        self._is_scheduled = False
        now = self._loop.time()
        while self._waiting and self._waiting[0][0] <= now:
            self._waiting.popleft()[1].abort()
        self._schedule()


def send_eof(transport: asyncio.Transport) -> None:
    """Send nothing more; if the peer has reset the connection, `connection_lost` follows."""
    # uvloop raises that there is no connection any more, after it has closed the socket.
    with contextlib.suppress(OSError, RuntimeError):
        transport.write_eof()


_of_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, LingeringSockets] = WeakKeyDictionary()


def lingering_of(loop: asyncio.AbstractEventLoop) -> LingeringSockets:
    """The lingering sockets of an event loop."""
    return _of_loops.setdefault(loop, LingeringSockets(loop))
